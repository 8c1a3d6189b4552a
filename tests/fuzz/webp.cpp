// WEBP files through the decoder.
#include "fuzz/image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return graft::fuzz::decode(data, size, graft::ImageFormat::webp);
}
