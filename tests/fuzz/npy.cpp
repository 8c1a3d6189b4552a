// The .npy writer: a shape and rows out of the input, the file's header checked by its own rules.
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/file.h"
#include "features/npy.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const fs::path file =
      fs::temp_directory_path() / ("graft-fuzz-" + std::to_string(::getpid()) + ".npy");
  return fuzz::expect_typed_errors([&] {
    if (size < 4) return;
    std::vector<int64_t> shape;
    size_t row = 1;
    for (size_t i = 0; i < static_cast<size_t>(data[0] % 4); ++i) {
      shape.push_back(1 + data[1 + i] % 16);
      row *= static_cast<size_t>(shape.back());
    }
    std::vector<float> values((size - 4) / sizeof(float) / row * row);
    if (!values.empty()) std::memcpy(values.data(), data + 4, values.size() * sizeof(float));
    NpyWriter writer(file, shape);
    for (size_t at = 0; at < values.size(); at += row)
      writer.add(std::span(values).subspan(at, row));
    writer.commit();
    const std::vector<std::byte> bytes = read_file(file);
    fs::remove(file);
    const size_t header =
        10 + std::to_integer<size_t>(bytes[8]) + 256 * std::to_integer<size_t>(bytes[9]);
    fuzz::require(header % 64 == 0 && bytes.size() == header + values.size() * sizeof(float));
    fuzz::require(values.empty() ||
                  std::memcmp(bytes.data() + header, values.data(), values.size() * 4) == 0);
    const std::string text(reinterpret_cast<const char*>(bytes.data()) + 10, header - 10);
    fuzz::require(text.find("'shape': (" + std::to_string(values.size() / row) + ",") !=
                  std::string::npos);
  });
}
