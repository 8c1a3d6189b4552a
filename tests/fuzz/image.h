// What the fuzz targets of the image formats share.
#pragma once

#include "fuzz/fuzz.h"
#include "graft/image.h"
#include "image/codecs.h"

namespace graft::fuzz {

/// Decodes inputs of one format, so that the search stays in it.
inline int decode(const uint8_t* data, size_t size, ImageFormat format) {
  return expect_typed_errors([&] {
    const auto file = bytes(data, size);
    if (sniff_format(file, "fuzz") != format) return;
    // Small, so that many inputs run; the limit itself is what is tested.
    const Image image = decode_image(file, "fuzz", {.max_pixels = 1'000'000});
    require(image.width > 0 && image.height > 0);
    require(image.pixels.size() == static_cast<size_t>(image.width) * image.height * 3);
    const ImageFacts facts = probe_image(file, "fuzz");
    require(facts.width * facts.height == static_cast<int64_t>(image.width) * image.height);
  });
}

}  // namespace graft::fuzz
