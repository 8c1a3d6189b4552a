// The part of a network that trains, in LibTorch: unfrozen layers and the head.
#pragma once

#include <torch/torch.h>

#include <string>
#include <utility>
#include <vector>

#include "graft/network.h"
#include "graft/precision.h"
#include "train/batch_part.h"
#include "train/dense.h"
#include "weights/tensor.h"

namespace graft {

/// Layers [begin, end of network). Parameters carry their canonical names. Not thread-safe.
class Suffix {
 public:
  /// `precision`: of convolutions and large dense layers; what is kept is float32.
  Suffix(const Network& network, size_t begin, const TensorMap& initial, torch::Device device,
         Precision precision = Precision::fp32);

  /// x: (N, elements of one image before layer `begin`), or already shaped. Returns logits
  /// (N, classes). Training mode uses batch statistics and dropout; frozen layers are not here.
  /// `postponed`: see dense(); null: all gradients are made by backward(). `part`: of what x are
  /// rows, in training; must live until backward() is over.
  torch::Tensor forward(torch::Tensor x, bool training, PostponedGradients* postponed = nullptr,
                        const BatchPart& part = {});
  /// What dropout draws from now on. LibTorch's own generator is the whole process's.
  void seed_dropout(uint64_t seed);

  /// What the optimiser updates, in the order of the layers.
  [[nodiscard]] std::vector<torch::Tensor> parameters() const;
  /// Shares of the learning rate for parameters(): 1 for the head, `decay` for the backbone's
  /// last block, decay² for the one before, and so on ("discriminative
  /// fine-tuning": Howard and Ruder, ACL 2018). A block ends with its pooling.
  [[nodiscard]] std::vector<double> rate_factors(double decay) const;
  [[nodiscard]] torch::Tensor tensor(const std::string& name) const;

  /// Views of (or, on a GPU, copies of) all tensors, under their canonical names.
  [[nodiscard]] TensorMap snapshot() const;
  /// All tensors themselves.
  [[nodiscard]] std::vector<torch::Tensor> tensors() const;
  /// Copies of all tensors, to be averaged over steps.
  [[nodiscard]] std::vector<torch::Tensor> copies() const;
  /// Moves `average`, as made by copies(), towards the tensors: share 1 − `decay` of the way.
  void average_into(std::vector<torch::Tensor>& average, double decay) const;
  /// Exchanges the tensors' values with those of `other`.
  void swap(std::vector<torch::Tensor>& other);
  [[nodiscard]] bool has_batchnorm() const;
  /// The first tensor that holds a value which is not finite; empty: none.
  [[nodiscard]] std::string not_finite() const;

 private:
  [[nodiscard]] torch::Tensor dropout_mask(const torch::Tensor& x, double rate,
                                           const BatchPart& part);
  [[nodiscard]] torch::Tensor get(const Layer& layer, const char* role) const;

  Network network_;
  std::vector<Shape> shapes_;
  size_t begin_;
  torch::Device device_;
  Precision precision_;
  torch::Generator generator_;  // of dropout
  std::vector<std::pair<TensorSpec, torch::Tensor>> tensors_;
};

/// A LibTorch tensor on the CPU as a Tensor that shares its memory.
Tensor to_tensor(const torch::Tensor& tensor);

}  // namespace graft
