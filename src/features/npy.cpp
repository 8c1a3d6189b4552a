#include "features/npy.h"

#include <fmt/format.h>

#include <utility>

namespace graft {
namespace {

// Room for any shape, and a multiple of 64 so that the data is aligned.
constexpr size_t kHeaderBytes = 192;

}  // namespace

std::string npy_header(const std::string& type, const std::string& shape) {
  std::string text =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", type, shape);
  const std::string magic("\x93NUMPY\x01\x00", 8);
  const auto length = static_cast<uint16_t>(kHeaderBytes - magic.size() - 2);
  text.resize(length - 1, ' ');
  return magic + static_cast<char>(length & 0xFFU) + static_cast<char>(length >> 8U) + text + '\n';
}

NpyWriter::NpyWriter(const std::filesystem::path& path, std::vector<int64_t> row_shape)
    : file_(path), row_shape_(std::move(row_shape)) {
  file_.write(header());
}

std::string NpyWriter::header() const {
  return npy_header("<f4", fmt::format("{}, {}", rows_, fmt::join(row_shape_, ", ")));
}

void NpyWriter::add(std::span<const float> row) {
  file_.write(std::as_bytes(row));
  ++rows_;
}

const std::filesystem::path& NpyWriter::end() {
  file_.rewrite_start(header());
  file_.flush();
  return file_.temporary();
}

void NpyWriter::commit() {
  file_.rewrite_start(header());
  file_.commit();
}

}  // namespace graft
