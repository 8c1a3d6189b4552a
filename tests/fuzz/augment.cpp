// The language of augmentation, and a view that is drawn from it.
#include "image/augment.h"
#include "fuzz/fuzz.h"
#include "graft/image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const Image image{5, 4, std::vector<uint8_t>(60, 100)};
  return fuzz::expect_typed_errors([&] {
    const Augmentation augmentation = parse_augmentation(std::string(fuzz::text(data, size)));
    const Image view = make_view(image, 8, 8, keras_preprocessing(),
                                 draw_view(augmentation, 1, std::string(32, 'a'), 0));
    fuzz::require(view.pixels.size() == 8 * 8 * 3);
  });
}
