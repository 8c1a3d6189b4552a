// Where training batches come from: kept features, kept pictures, or pictures through the engine.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/threads.h"
#include "dataset/dataset.h"
#include "engine/engine.h"
#include "features/prefix_features.h"
#include "graft/image.h"
#include "graft/network.h"

namespace graft {

/// Samples in memory, in the form in which the suffix reads them.
class Batches {
 public:
  struct Source {
    const Network& network;
    Preprocessing preprocessing;
    /// Features to keep; null: pictures are kept.
    const PrefixJob* features = nullptr;
    /// Turns kept pictures into features, batch by batch; null: the suffix reads pictures.
    Engine* prefix = nullptr;
    int threads = 1;
    Verbosity verbosity = Verbosity::normal;
  };

  /// Loads the samples; those that cannot be decoded are passed to `on_error` and left out.
  Batches(const Source& source, const std::vector<Sample>& samples, const std::string& label,
          const std::function<void(size_t, const std::string&)>& on_error);

  [[nodiscard]] size_t size() const { return labels_.size(); }
  /// Inputs (rows, elements) of the suffix for some rows.
  torch::Tensor inputs(const std::vector<int64_t>& rows);
  [[nodiscard]] torch::Tensor labels(const std::vector<int64_t>& rows) const;

 private:
  torch::Tensor pictures_to_inputs(const std::vector<int64_t>& rows);

  Network network_;
  Preprocessing preprocessing_;
  Engine* prefix_;
  bool keeps_pictures_;
  std::unique_ptr<ThreadPool> pool_;
  torch::Tensor kept_;  ///< (rows, elements): float32 features or 8-bit pictures
  std::vector<int64_t> labels_;
};

}  // namespace graft
