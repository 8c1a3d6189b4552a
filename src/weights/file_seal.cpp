#include "weights/file_seal.h"

#include "base/hash.h"

namespace graft {

std::string seal_of(std::span<const std::byte> file, size_t at) {
  ContentHash hash;
  hash.update(file.first(at));
  hash.update(std::as_bytes(std::span(kSealBlank)));
  hash.update(file.subspan(at + kSealBlank.size()));
  return hash.finish();
}

std::string record_seal(std::string_view record, std::string_view listing) {
  const std::string both = std::string(record).append(listing);
  return content_hash(std::as_bytes(std::span(both)));
}

bool has_seal(std::span<const std::byte> file, std::string_view digits) {
  if (digits.size() != kSealBlank.size()) return false;
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  const size_t at = text.rfind(digits);  // it stands near the end of large files
  return at != std::string_view::npos && seal_of(file, at) == digits;
}

}  // namespace graft
