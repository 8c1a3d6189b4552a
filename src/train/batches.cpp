#include "train/batches.h"

#include <cstring>

namespace graft {

Batches::Batches(const Source& source, const std::vector<Sample>& samples, const std::string& label,
                 const std::function<void(size_t, const std::string&)>& on_error)
    : network_(source.network),
      preprocessing_(source.preprocessing),
      prefix_(source.prefix),
      keeps_pictures_(source.features == nullptr),
      pool_(std::make_unique<ThreadPool>(source.threads)) {
  std::vector<std::filesystem::path> paths;
  paths.reserve(samples.size());
  for (const Sample& sample : samples) paths.push_back(sample.path);
  ExtractJob job{paths,          network_.input_height, network_.input_width,
                 preprocessing_, source.threads,        keeps_pictures_ ? 64 : 16,
                 label,          source.verbosity};
  const auto rows = static_cast<int64_t>(samples.size());
  std::vector<bool> good(samples.size());
  const auto put = [&](size_t i, const void* values, size_t bytes) {
    std::memcpy(static_cast<char*>(kept_.data_ptr()) + i * bytes, values, bytes);
    good[i] = true;
  };
  if (keeps_pictures_) {
    kept_ = torch::empty({rows, int64_t{3} * network_.input_height * network_.input_width},
                         torch::kUInt8);
    load_inputs(
        job,
        [&](size_t i, const Image& image) { put(i, image.pixels.data(), image.pixels.size()); },
        on_error);
  } else {
    kept_ = torch::empty({rows, output_shapes(network_)[source.features->end - 1].elements()});
    prefix_features(
        *source.features, job,
        [&](size_t i, std::span<const float> values) {
          put(i, values.data(), values.size_bytes());
        },
        on_error);
  }
  // Rows keep the order of the samples, whatever came from the cache; those of damaged pictures go.
  const size_t row_bytes = kept_.nbytes() / std::max<size_t>(samples.size(), 1);
  auto* base = static_cast<char*>(kept_.data_ptr());
  for (size_t i = 0; i < samples.size(); ++i) {
    if (!good[i]) continue;
    if (labels_.size() != i)
      std::memcpy(base + labels_.size() * row_bytes, base + i * row_bytes, row_bytes);
    labels_.push_back(samples[i].label);
  }
}

torch::Tensor Batches::inputs(const std::vector<int64_t>& rows) {
  if (keeps_pictures_) return pictures_to_inputs(rows);
  return kept_.index_select(0, torch::tensor(rows, torch::kLong));
}

torch::Tensor Batches::pictures_to_inputs(const std::vector<int64_t>& rows) {
  const int height = network_.input_height;
  const int width = network_.input_width;
  const int64_t elements = int64_t{3} * height * width;
  const auto count = static_cast<int64_t>(rows.size());
  torch::Tensor out = torch::empty({count, elements});
  const auto* pictures = kept_.data_ptr<uint8_t>();
  auto* values = out.data_ptr<float>();
  pool_->parallel_for(rows.size(), [&](size_t i) {
    to_input(pictures + rows[i] * elements, width, height, preprocessing_,
             values + static_cast<int64_t>(i) * elements);
  });
  if (prefix_ == nullptr) return out;
  torch::Tensor features = torch::empty({count, prefix_->output_elements()});
  prefix_->run(values, static_cast<int>(count), features.data_ptr<float>());
  return features;
}

torch::Tensor Batches::labels(const std::vector<int64_t>& rows) const {
  std::vector<int64_t> picked;
  picked.reserve(rows.size());
  for (const int64_t row : rows) picked.push_back(labels_[row]);
  return torch::tensor(picked, torch::kLong);
}

}  // namespace graft
