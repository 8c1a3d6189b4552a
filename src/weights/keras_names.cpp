#include "weights/keras_names.h"

#include <algorithm>
#include <array>
#include <utility>

namespace graft {

std::string keras_role(const std::string& weight) {
  std::string leaf = weight.substr(weight.rfind('/') + 1);
  leaf = leaf.substr(0, leaf.find(':'));
  if (leaf == "moving_mean" || leaf == "running_mean") return "running_mean";
  if (leaf == "moving_variance" || leaf == "running_std") return "running_var";
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kRoles = {{
      {"kernel", "weight"},
      {"_W_1", "weight"},
      {"_W", "weight"},
      {"gamma", "weight"},
      {"beta", "bias"},
      {"bias", "bias"},
      {"_b_1", "bias"},
      {"_b", "bias"},
  }};
  for (const auto& [end, role] : kRoles)
    if (leaf.ends_with(end)) return std::string(role);
  return "";
}

std::string without_repeat(const std::string& name) {
  const size_t line = name.rfind('_');
  const bool number = line != std::string::npos && line + 1 < name.size() &&
                      name.find_first_not_of("0123456789", line + 1) == std::string::npos;
  return number ? name.substr(0, line) : name;
}

std::vector<std::string> path_parts(std::string_view path) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    if (end > at) out.emplace_back(path.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

std::vector<int64_t> canonical_shape(const std::vector<int64_t>& shape) {
  if (shape.size() == 4) return {shape[3], shape[2], shape[0], shape[1]};  // HWIO → OIHW
  if (shape.size() == 2) return {shape[1], shape[0]};
  return shape;
}

std::vector<float> canonical_values(const std::vector<int64_t>& shape, std::span<const float> in) {
  std::vector<float> out(in.size());
  if (shape.size() == 4) {  // H, W, I, O → O, I, H, W
    const int64_t taps = shape[0] * shape[1];
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t i = 0; i < shape[2]; ++i)
        for (int64_t o = 0; o < shape[3]; ++o)
          out[(o * shape[2] + i) * taps + t] = in[(t * shape[2] + i) * shape[3] + o];
  } else if (shape.size() == 2) {
    for (int64_t i = 0; i < shape[0]; ++i)
      for (int64_t o = 0; o < shape[1]; ++o) out[o * shape[0] + i] = in[i * shape[1] + o];
  } else {
    std::copy(in.begin(), in.end(), out.begin());
  }
  return out;
}

}  // namespace graft
