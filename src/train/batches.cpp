#include "train/batches.h"

#include <cstring>

namespace graft {

Batches::Batches(const Source& source, const std::vector<Sample>& samples, const std::string& label,
                 const std::function<void(size_t, const std::string&)>& on_error)
    : network_(source.network),
      preprocessing_(source.preprocessing),
      prefix_(source.prefix),
      keeps_pictures_(source.prefix == nullptr || !source.keep_features),
      pool_(std::make_unique<ThreadPool>(source.threads)) {
  std::vector<std::filesystem::path> paths;
  paths.reserve(samples.size());
  for (const Sample& sample : samples) paths.push_back(sample.path);
  ExtractJob job{
      paths,          network_.input_height, network_.input_width,
      preprocessing_, source.threads,        prefix_ != nullptr ? prefix_->max_batch() : 64,
      label,          source.verbosity};
  const auto rows = static_cast<int64_t>(samples.size());
  if (keeps_pictures_) {
    const int64_t bytes = int64_t{3} * network_.input_height * network_.input_width;
    kept_ = torch::empty({rows, bytes}, torch::kUInt8);
    load_inputs(
        job,
        [&](size_t i, const Image& image) {
          std::memcpy(kept_.data_ptr<uint8_t>() + static_cast<int64_t>(labels_.size()) * bytes,
                      image.pixels.data(), static_cast<size_t>(bytes));
          labels_.push_back(samples[i].label);
        },
        on_error);
  } else {
    const int64_t elements = prefix_->output_elements();
    kept_ = torch::empty({rows, elements});
    extract(
        job, *prefix_,
        [&](size_t i, std::span<const float> values) {
          std::memcpy(kept_.data_ptr<float>() + static_cast<int64_t>(labels_.size()) * elements,
                      values.data(), values.size_bytes());
          labels_.push_back(samples[i].label);
        },
        on_error);
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
