// Parameters that all processes of a group hold, and of which each updates a share.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "graft/train.h"
#include "train/dense.h"
#include "train/group.h"

namespace graft {

/// Tensors one behind the other, as if they were one array. They share its memory.
class TensorRow {
 public:
  explicit TensorRow(const std::vector<torch::Tensor>& tensors);
  [[nodiscard]] int64_t size() const { return starts_.back(); }
  /// `out` is zero where the row has ended.
  void read(int64_t begin, const torch::Tensor& out) const;
  /// What lies beyond the row's end is left out.
  void write(int64_t begin, const torch::Tensor& values);
  /// Parts of tensors that [begin, end) is: (tensor, first element, elements).
  void each(int64_t begin, int64_t end,
            const std::function<void(size_t tensor, int64_t first, int64_t count)>& part) const;

 private:
  std::vector<torch::Tensor> flat_;
  std::vector<int64_t> starts_;  // of each tensor, and the end
};

/// The parameters, one behind the other, in buckets, each in as many parts of one size as there are
/// processes; the optimiser of a process knows its own parts alone, so that its state takes 1/N of
/// the memory. Gradients go to their owners bucket by bucket, while backward() still computes those
/// of layers before; a gradient that is postponed is made bucket by bucket, while those made before
/// are on their way. Not thread-safe.
class ParameterShards {
 public:
  // Elements. Large enough for the network's full speed, small enough that several are on their way
  // while backward() runs: as PyTorch's DistributedDataParallel has it.
  static constexpr int64_t kBucket = 25'000'000 / sizeof(float);

  /// `parameters` with their gradients live elsewhere; `factors`, one for each, as FusedOptimizer
  /// takes them. The group must outlive it.
  /// `compression`: what gradients are rounded to before they are sent. Their owner adds them up
  /// in fp32, its own as it is. `at_once`: elements of a bucket.
  ParameterShards(std::vector<torch::Tensor> parameters, const std::vector<double>& factors,
                  Group& group, GradientCompression compression = GradientCompression::none,
                  int64_t at_once = kBucket);
  ~ParameterShards();
  ParameterShards(const ParameterShards&) = delete;
  ParameterShards& operator=(const ParameterShards&) = delete;

  /// Of this process, as parameters of an optimiser: views of the real ones.
  [[nodiscard]] const std::vector<torch::Tensor>& own() const { return own_; }
  [[nodiscard]] const std::vector<double>& own_factors() const { return own_factors_; }

  /// Drops gradients. `adds`: whether this process adds to those of the next backward().
  /// `postponed`: where gradients of some parameters will be; must live until the step is over.
  void begin_step(bool adds, const PostponedGradients* postponed = nullptr);
  /// After backward(): the gradients of own() are the group's.
  void finish_gradients();
  /// After the optimiser's step: every process has all parameters.
  void share_parameters();

  /// Tensors shaped as own(), of all ranks, as one behind the other shaped as the parameters: in
  /// rank 0; nothing in the others. And back.
  [[nodiscard]] std::vector<torch::Tensor> gather(const std::vector<torch::Tensor>& mine) const;
  void scatter(const std::vector<torch::Tensor>& whole,
               const std::vector<torch::Tensor>& mine) const;

 private:
  struct Bucket;
  class Ready;
  struct Piece {
    size_t parameter;
    int64_t first;
    int64_t count;
  };

  void parameter_is_ready(size_t parameter);
  void begin_buckets();
  [[nodiscard]] bool is_postponed(size_t parameter) const;
  void make_postponed(const Piece& piece);
  void begin_bucket(Bucket& bucket);
  void finish_bucket(Bucket& bucket);
  [[nodiscard]] int64_t own_size(const Bucket& bucket) const;
  [[nodiscard]] torch::Tensor packed(const torch::Tensor& values) const;
  void add_packed(const torch::Tensor& received, const torch::Tensor& sum) const;

  Group& group_;
  GradientCompression compression_;
  std::vector<torch::Tensor> parameters_;
  TensorRow row_;
  std::vector<torch::Tensor> own_;
  std::vector<double> own_factors_;
  std::vector<Bucket> buckets_;
  // Held by another kind of pointer in each version of LibTorch.
  using Accumulator =
      decltype(torch::autograd::impl::grad_accumulator(std::declval<const torch::Tensor&>()));
  std::vector<Accumulator> accumulators_;
  std::vector<bool> ready_;
  std::vector<int64_t>
      made_;  // rows of each parameter from which on its postponed gradient is there
  const PostponedGradients* postponed_ = nullptr;
  size_t next_ = 0;   // bucket that begins, from the last to the first
  size_t first_ = 0;  // that is on its way: those in [next_, first_) are
  bool adds_ = true;
};

}  // namespace graft
