// How Keras names weights, and how it lays them out.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// BatchNormalization's default, which files with weights alone do not say.
inline constexpr double kKerasEpsilon = 1e-3;

/// The canonical role of a weight in its layer ("weight", "bias", "running_mean", "running_var"),
/// or "". Names seen: block1_conv1_W_1:0, block1_conv1/kernel:0, vgg16/block1_conv1/kernel,
/// gamma:0.
std::string keras_role(const std::string& weight);

/// Without the "_1" that Keras appends to a name that it has used before.
std::string without_repeat(const std::string& name);

/// The parts of a path that are not empty.
std::vector<std::string> path_parts(std::string_view path);

/// The shape of a weight in canonical layout: HWIO → OIHW, (in, out) → (out, in).
std::vector<int64_t> canonical_shape(const std::vector<int64_t>& shape);
/// Values of that shape as Keras has it, in canonical layout.
std::vector<float> canonical_values(const std::vector<int64_t>& shape, std::span<const float> in);

}  // namespace graft
