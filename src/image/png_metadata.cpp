// The chunks of a PNG that libpng is told to skip: it would inflate whatever a text chunk claims.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "image/metadata.h"

namespace graft {
namespace {

// Of a compressed text no more than this is read; EXIF is at most 64 KB in a JPEG, and the
// orientation stands near the start of an XMP packet.
constexpr size_t kMaxText = size_t{1} << 20;

struct Chunk {
  std::string_view type;
  std::string_view data;
};

uint32_t big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (const char c : bytes.substr(0, 4)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

/// A chunk's checksum covers its type and its data, which lie side by side.
bool checksum_fits(const Chunk& chunk) {
  const size_t size = chunk.type.size() + chunk.data.size();
  const auto* first = reinterpret_cast<const Bytef*>(chunk.type.data());
  return crc32(0, first, static_cast<uInt>(size)) ==
         big_endian({chunk.data.data() + chunk.data.size(), 4});
}

/// The first kMaxText bytes of a zlib stream, as far as it can be read.
std::string inflate_some(std::string_view compressed) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) return {};
  std::string out(kMaxText, '\0');
  // zlib's pointers lack const; the input is only read.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
  stream.avail_in = static_cast<uInt>(compressed.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  inflate(&stream, Z_SYNC_FLUSH);
  out.resize(out.size() - stream.avail_out);
  inflateEnd(&stream);
  return out;
}

/// Splits at the first NUL; without one the text is not valid, and both parts are empty.
std::pair<std::string_view, std::string_view> split_at_nul(std::string_view text) {
  const size_t nul = text.find('\0');
  if (nul == std::string_view::npos) return {};
  return {text.substr(0, nul), text.substr(nul + 1)};
}

/// The text of a tEXt, zTXt or iTXt chunk (PNG specification, 11.3.3); a keyword stands before it.
std::string read_text(const Chunk& chunk, std::string_view after_keyword) {
  if (chunk.type == "tEXt") return std::string(after_keyword.substr(0, kMaxText));
  if (chunk.type == "zTXt")  // one byte names the method
    return after_keyword.size() < 2 ? "" : inflate_some(after_keyword.substr(1));
  if (after_keyword.size() < 2) return {};
  const bool compressed = after_keyword[0] != '\0';
  const std::string_view language = after_keyword.substr(2);
  const std::string_view text = split_at_nul(split_at_nul(language).second).second;
  return compressed ? inflate_some(text) : std::string(text.substr(0, kMaxText));
}

/// ImageMagick's "Raw profile type …": a line feed, a name, a length, and hexadecimal digits.
std::vector<std::byte> decode_raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  std::vector<std::byte> out;
  int high = -1;
  for (const char c : text) {
    int digit = 0;
    if (c >= '0' && c <= '9')
      digit = c - '0';
    else if (c >= 'a' && c <= 'f')
      digit = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F')
      digit = c - 'A' + 10;
    else
      continue;
    if (high < 0) {
      high = digit;
    } else {
      out.push_back(static_cast<std::byte>(high << 4 | digit));
      high = -1;
    }
  }
  return out;
}

/// The chunks that may say which way is up; of each kind the first counts.
class OrientationChunks {
 public:
  void add(const Chunk& chunk) {
    if (chunk.type == "eXIf") {
      if (!exif_ && checksum_fits(chunk))
        exif_ = exif_orientation(std::as_bytes(std::span(chunk.data)));
      return;
    }
    if (chunk.type != "tEXt" && chunk.type != "zTXt" && chunk.type != "iTXt") return;
    const auto [keyword, text] = split_at_nul(chunk.data);
    if (keyword == "XML:com.adobe.xmp") {
      if (std::exchange(seen_.at(0), true) || !checksum_fits(chunk)) return;
      xmp_ = xmp_orientation(read_text(chunk, text));
    } else if (keyword == "Raw profile type exif" || keyword == "Raw profile type APP1") {
      if (std::exchange(seen_.at(1), true) || !checksum_fits(chunk)) return;
      profile_ = exif_orientation(decode_raw_profile(read_text(chunk, text)));
    }
  }

  [[nodiscard]] int orientation() const {
    return choose_orientation(exif_ ? exif_ : profile_, xmp_);
  }

 private:
  std::optional<int> exif_;
  std::optional<int> profile_;
  std::optional<int> xmp_;
  std::array<bool, 2> seen_{};
};

}  // namespace

PngMetadata read_png_metadata(std::span<const std::byte> png) {
  constexpr size_t kSignature = 8;
  constexpr size_t kFrame = 12;              // length, type and checksum around a chunk's data
  constexpr size_t kMaxLength = 0x7FFFFFFF;  // by the specification
  const std::string_view file(reinterpret_cast<const char*>(png.data()), png.size());
  PngMetadata out;
  OrientationChunks chunks;
  bool pixels = false;
  for (size_t at = kSignature; at + kFrame <= file.size();) {
    const size_t length = big_endian(file.substr(at));
    if (length > kMaxLength || length > file.size() - at - kFrame) break;
    const Chunk chunk{file.substr(at + 4, 4), file.substr(at + 8, length)};
    if (chunk.type == "IEND") break;
    if (chunk.type == "IDAT") pixels = true;
    // Third edition, 11.3.6: before the pixels.
    if (chunk.type == "acTL" && !pixels) out.animated = true;
    chunks.add(chunk);
    at += kFrame + length;
  }
  out.orientation = chunks.orientation();
  return out;
}

}  // namespace graft
