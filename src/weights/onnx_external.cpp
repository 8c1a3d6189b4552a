#include "weights/onnx_external.h"

#include <charconv>

#include "base/fail.h"
#include "weights/onnx_file.h"

namespace graft {
namespace {

constexpr size_t kMostFiles = 64;

}  // namespace

std::span<const std::byte> OnnxExternal::find(
    const std::map<std::string_view, std::string_view>& entries, uint64_t size,
    const std::string& model, const std::string& tensor) {
  const auto refuse = [&](const std::string& why) {
    fail(ErrorKind::input, "{}: not a usable ONNX model: the values of {} {}", model, tensor, why);
  };
  const auto number = [&](std::string_view key) {
    uint64_t value = 0;
    const auto at = entries.find(key);
    if (at == entries.end()) return value;
    const char* end = at->second.data() + at->second.size();
    const auto [stop, error] = std::from_chars(at->second.data(), end, value);
    if (error != std::errc() || stop != end) refuse("have no possible place in their file");
    return value;
  };
  const auto location = entries.find("location");
  if (location == entries.end()) refuse("are in another file, which is not named");
  if (folder_.empty()) refuse("are in another file");
  const std::span<const std::byte> all = open(std::string(location->second), model);
  const uint64_t offset = number("offset");
  const bool whole = entries.contains("length") ? number("length") == size : true;
  if (!whole || offset > all.size() || size > all.size() - offset)
    refuse("are not all in " + shown(location->second) +
           ", the file beside it; download or copy both again");
  return all.subspan(offset, size);
}

uint64_t OnnxExternal::bytes() const {
  uint64_t out = 0;
  for (const auto& [name, file] : files_) out += file.bytes().size();
  return out;
}

std::span<const std::byte> OnnxExternal::open(const std::string& location,
                                              const std::string& model) {
  const auto known = files_.find(location);
  if (known != files_.end()) return known->second.bytes();
  if (files_.size() == kMostFiles)
    fail(ErrorKind::input, "{}: its tensors lie in more than {} files", model, kMostFiles);
  try {
    return files_.emplace(location, MappedFile::below(folder_, location)).first->second.bytes();
  } catch (const Error& error) {
    fail(ErrorKind::input, "{}: its tensors are in another file, which must lie beside it: {}",
         model, error.what());
  }
}

}  // namespace graft
