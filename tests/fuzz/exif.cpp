// EXIF blocks through the reader of the orientation.
#include "fuzz/fuzz.h"
#include "image/metadata.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int orientation = graft::exif_orientation(graft::fuzz::bytes(data, size)).value_or(1);
  graft::fuzz::require(orientation >= 1 && orientation <= 8);
  return 0;
}
