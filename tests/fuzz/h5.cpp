// Keras' .h5 files through the reader of weights, and the messages between it and its helper.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "base/file.h"
#include "fuzz/fuzz.h"
#include "graft/network.h"
#include "weights/h5_message.h"
#include "weights/h5_process.h"
#include "weights/keras_classifier.h"
#include "weights/keras_h5.h"
#include "weights/own_export.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const fs::path file =
      fs::temp_directory_path() / ("graft-fuzz-" + std::to_string(::getpid()) + ".h5");
  static const Network net = backbone("vgg-mini", 64, 64);
  // What is no HDF5 file is taken for an answer of the program that reads them.
  if (!fuzz::text(data, size).starts_with("\x89HDF")) {
    H5Message message;
    if (decode(fuzz::bytes(data, size), message))
      for (const H5Weight& weight : message.weights)
        fuzz::require(weight.bytes() <= kH5MaxTensorBytes);
    return 0;
  }
  static const int unused = ::setenv("GRAFT_LIBEXEC", GRAFT_BUILT_LIBEXEC, /*overwrite=*/0);
  static_cast<void>(unused);
  write_file_atomic(file, fuzz::text(data, size));
  fuzz::expect_typed_errors([] {
    H5File open(file);
    read_keras_h5(open, net, net.layers.size());
  });
  fuzz::expect_typed_errors([] {
    const auto open = std::make_shared<H5File>(file);
    static_cast<void>(own_export(open, file));
    if (const auto graph = read_keras_classifier(open))
      static_cast<void>(assemble(*graph).read("x"));
  });
  fs::remove(file);
  return 0;
}
