#include "weights/pixel_family.h"

namespace graft {

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
