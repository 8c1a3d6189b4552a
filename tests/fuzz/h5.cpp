// Keras' .h5 files through the reader of weights.
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/file.h"
#include "fuzz/fuzz.h"
#include "graft/network.h"
#include "weights/keras_h5.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const fs::path file =
      fs::temp_directory_path() / ("graft-fuzz-" + std::to_string(::getpid()) + ".h5");
  static const Network net = backbone("vgg-mini", 64, 64);
  write_file_atomic(file, fuzz::text(data, size));
  fuzz::expect_typed_errors([] { read_keras_h5(file, net); });
  fs::remove(file);
  return 0;
}
