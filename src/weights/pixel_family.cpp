#include "weights/pixel_family.h"

#include <algorithm>
#include <cmath>

namespace graft {

bool is_torch(PixelFamily family) {
  return family == PixelFamily::torch || family == PixelFamily::torch_stretched;
}

bool has_torch_colours(const Preprocessing& pixels) {
  const auto close = [](float a, float b) {
    constexpr float kRelative = 1e-5F;
    return std::abs(a - b) <= kRelative * std::max(std::abs(a), std::abs(b));
  };
  const Preprocessing known = torchvision_preprocessing();
  return pixels.bgr == known.bgr &&
         std::equal(pixels.scale.begin(), pixels.scale.end(), known.scale.begin(), close) &&
         std::equal(pixels.shift.begin(), pixels.shift.end(), known.shift.begin(), close);
}

Preprocessing preprocessing_of(PixelFamily family) {
  switch (family) {
    case PixelFamily::torch:
      return torchvision_preprocessing();
    case PixelFamily::torch_stretched: {
      Preprocessing out = torchvision_preprocessing();
      out.crop_ratio = 0;
      return out;
    }
    case PixelFamily::unit:
      return unit_preprocessing();
    case PixelFamily::symmetric:
      return symmetric_preprocessing();
    case PixelFamily::raw:
      return raw_preprocessing();
    default:
      return keras_preprocessing();
  }
}

}  // namespace graft
