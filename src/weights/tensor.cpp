#include "weights/tensor.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"

namespace graft {

Tensor::Tensor(std::vector<int64_t> shape, std::vector<float> values) : shape_(std::move(shape)) {
  auto owned = std::make_shared<const std::vector<float>>(std::move(values));
  values_ = *owned;
  owner_ = std::move(owned);
}

Tensor::Tensor(std::vector<int64_t> shape, std::span<const float> values,
               std::shared_ptr<const void> owner)
    : shape_(std::move(shape)), values_(values), owner_(std::move(owner)) {}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

std::vector<std::string> tensor_differences(const Network& full, size_t needed_end,
                                            const ShapeMap& found) {
  std::vector<std::string> rows;
  std::set<std::string> known;
  for (const TensorSpec& spec : tensor_specs(full)) {
    known.insert(spec.name);
    const auto at = found.find(spec.name);
    const bool needed = spec.layer < needed_end;
    const std::string expected = shape_text(spec.shape);
    if (at == found.end()) {
      if (needed) rows.push_back(fmt::format("  {:<28} {:<20} missing", spec.name, expected));
    } else if (at->second != spec.shape &&
               (needed || full.layers[spec.layer].kind != LayerKind::dense)) {
      // Dense layers behind the cut depend on the input size, which need not be the file's.
      rows.push_back(
          fmt::format("  {:<28} {:<20} {}", spec.name, expected, shape_text(at->second)));
    }
  }
  for (const auto& [name, shape] : found)
    if (!known.contains(name))
      rows.push_back(fmt::format("  {:<28} {:<20} {}", printable(name), "not in the network",
                                 shape_text(shape)));
  return rows;
}

void check_tensors(const Network& full, size_t needed_end, const ShapeMap& found,
                   const std::string& file, const std::string& hint) {
  constexpr size_t kMostRows = 40;
  std::vector<std::string> rows = tensor_differences(full, needed_end, found);
  if (rows.empty()) return;
  const size_t all = rows.size();
  if (all > kMostRows) {
    rows.resize(kMostRows);
    rows.push_back(fmt::format("  … and {} more", all - kMostRows));
  }
  fail(ErrorKind::input, "{}: does not fit {} up to {}: {} differences{}\n  {:<28} {:<20} {}\n{}",
       file, full.backbone, full.layers[needed_end - 1].name, all, hint, "tensor", "expected",
       "found", fmt::join(rows, "\n"));
}

void check_tensors(const Network& full, size_t needed_end, const TensorMap& found,
                   const std::string& file, const std::string& hint) {
  ShapeMap shapes;
  for (const auto& [name, tensor] : found) shapes.emplace(name, tensor.shape());
  check_tensors(full, needed_end, shapes, file, hint);
}

void check_finite(const TensorMap& tensors, const std::string& file) {
  for (const auto& [name, tensor] : tensors) {
    // A NaN or an infinity anywhere makes the sum of x·0 a NaN: one pass without branches.
    float sum = 0;
    for (const float value : tensor.values()) sum += value * 0.0F;
    if (!(sum == 0.0F))
      fail(ErrorKind::input, "{}: tensor {} holds NaN or infinite values; the file is damaged",
           file, printable(name));
    const auto& values = tensor.values();
    if (name.ends_with(".running_var") &&
        std::any_of(values.begin(), values.end(), [](float value) { return value < 0; }))
      fail(ErrorKind::input, "{}: tensor {} holds a negative variance; the file is damaged", file,
           printable(name));
  }
}

const Tensor& need_tensor(const TensorMap& tensors, const TensorSpec& spec) {
  const auto at = tensors.find(spec.name);
  if (at == tensors.end()) fail(ErrorKind::input, "tensor {} is missing", spec.name);
  if (at->second.shape() != spec.shape)
    fail(ErrorKind::input, "tensor {} has shape {}, expected {}", spec.name,
         shape_text(at->second.shape()), shape_text(spec.shape));
  return at->second;
}

}  // namespace graft
