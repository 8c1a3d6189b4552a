#include "weights/onnx_pixels.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace graft {
namespace {

/// The same but for what float32 and its reciprocals round off.
bool close(double a, double b) {
  constexpr double kRelative = 1e-5;
  return std::abs(a - b) <= kRelative * std::max({std::abs(a), std::abs(b), 1e-3});
}

bool is(const OnnxAffine& affine, const Preprocessing& known, double levels) {
  if (affine.bgr != known.bgr) return false;
  for (size_t c = 0; c < affine.scale.size(); ++c)
    if (!close(affine.scale[c], known.scale[c] * levels) || !close(affine.shift[c], known.shift[c]))
      return false;
  return true;
}

Preprocessing own_record(const OnnxAffine& affine) {
  Preprocessing out;
  out.bgr = affine.bgr;
  for (size_t c = 0; c < affine.scale.size(); ++c) {
    out.scale[c] = static_cast<float>(affine.scale[c]);
    out.shift[c] = static_cast<float>(affine.shift[c]);
  }
  return out;
}

}  // namespace

void OnnxPixels::scale(std::span<const float> by) {
  for (size_t c = 0; c < channels.size(); ++c) {
    const double factor = by[by.size() == 1 ? 0 : c];
    channels[c].scale *= factor;
    channels[c].shift *= factor;
  }
}

void OnnxPixels::divide(std::span<const float> by) {
  for (size_t c = 0; c < channels.size(); ++c) {
    const double divisor = by[by.size() == 1 ? 0 : c];
    channels[c].scale /= divisor;
    channels[c].shift /= divisor;
  }
}

void OnnxPixels::shift(std::span<const float> by, double sign) {
  for (size_t c = 0; c < channels.size(); ++c)
    channels[c].shift += sign * by[by.size() == 1 ? 0 : c];
}

bool OnnxPixels::select(std::span<const int64_t> indices) {
  std::vector<Channel> selected;
  const auto count = static_cast<int64_t>(channels.size());
  for (int64_t index : indices) {
    if (index < 0) index += count;
    if (index < 0 || index >= count) return false;
    selected.push_back(channels[static_cast<size_t>(index)]);
  }
  channels = std::move(selected);
  return true;
}

bool OnnxAffine::is_identity() const {
  return !bgr && !is_bytes && scale == std::array<double, 3>{1, 1, 1} &&
         shift == std::array<double, 3>{0, 0, 0};
}

std::optional<OnnxAffine> affine_of(const OnnxPixels& pixels) {
  const auto& c = pixels.channels;
  if (c.size() != 3) return std::nullopt;
  OnnxAffine out;
  out.is_bytes = pixels.is_bytes;
  out.bgr = c[0].source == 2;
  for (size_t i = 0; i < c.size(); ++i) {
    const int want = static_cast<int>(out.bgr ? 2 - i : i);
    constexpr double kMost = 1e30;  // a float, with what may still be done to it; and no NaN
    if (c[i].source != want || !(std::abs(c[i].scale) < kMost) || !(std::abs(c[i].shift) < kMost))
      return std::nullopt;
    out.scale[i] = c[i].scale;
    out.shift[i] = 0 - c[i].shift;
  }
  return out;
}

std::optional<Preprocessing> recognised(const OnnxAffine& affine) {
  constexpr double kLevels = 255;
  for (const Preprocessing& known : {keras_preprocessing(), torchvision_preprocessing(),
                                     unit_preprocessing(), symmetric_preprocessing()})
    if (is(affine, known, 1)) return known;
  // Of one scale and shift for all channels the graph may turn them round.
  for (Preprocessing known : {unit_preprocessing(), symmetric_preprocessing()}) {
    known.bgr = !known.bgr;
    if (is(affine, known, 1)) return known;
  }
  if (affine.is_bytes) return own_record(affine);
  // torchvision's mean and deviation of numbers from 0 to 1, which is how they are published.
  if (is(affine, torchvision_preprocessing(), kLevels)) return torchvision_preprocessing();
  return std::nullopt;
}

Preprocessing behind(const Preprocessing& input, const OnnxAffine& affine) {
  Preprocessing out = input;
  out.bgr = input.bgr != affine.bgr;
  for (size_t c = 0; c < out.scale.size(); ++c) {
    const size_t from = affine.bgr ? 2 - c : c;
    out.scale[c] = static_cast<float>(affine.scale[c] * input.scale[from]);
    out.shift[c] = static_cast<float>(affine.scale[c] * input.shift[from] + affine.shift[c]);
  }
  return out;
}

}  // namespace graft
