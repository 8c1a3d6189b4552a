// PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
#include "base/zip_writer.h"

#include <zlib.h>

#include "base/fail.h"

namespace graft {
namespace {

constexpr size_t kMostEntries = 0xFFFE;
constexpr uint16_t kVersion = 20;       // of the format: folders in names
constexpr uint16_t kVersionZip64 = 45;  // zip64 fields
constexpr uint16_t kUtf8 = 1U << 11U;
// 1980-01-01, the format's first day: the same model gives the same file.
constexpr uint16_t kTime = 0;
constexpr uint16_t kDate = 1U << 5U | 1U;
constexpr uint16_t kZip64Field = 0x0001;
// What PyTorch pads its own archives with ("FB"); readers skip fields that they do not know.
constexpr uint16_t kPaddingField = 0x4246;
constexpr size_t kFieldHead = 4;

template <typename T>
void append(std::string& out, T value) {
  for (size_t i = 0; i < sizeof(T); ++i)
    out += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xFFU);
}

uint32_t crc32_of(std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

void ZipWriter::put(std::string_view bytes) {
  file_.write(bytes);
  written_ += bytes.size();
}

void ZipWriter::add(const std::string& name, std::span<const std::byte> bytes) {
  if (entries_.size() >= kMostEntries) fail(ErrorKind::input, "more tensors than a zip file holds");
  const Entry entry{name, crc32_of(bytes), bytes.size(), written_};
  const bool large = entry.size >= zip64_from_;
  std::string extra;
  if (large) {
    append(extra, kZip64Field);
    append(extra, static_cast<uint16_t>(2 * sizeof(uint64_t)));
    append(extra, entry.size);
    append(extra, entry.size);
  }
  constexpr size_t kLocalHeader = 30;
  const uint64_t begin = written_ + kLocalHeader + name.size() + extra.size();
  if (begin % alignment_ != 0) {
    const uint64_t padding = alignment_ - (begin + kFieldHead) % alignment_;
    append(extra, kPaddingField);
    append(extra, static_cast<uint16_t>(padding));
    extra.append(padding, 'Z');
  }
  std::string header;
  append(header, uint32_t{0x04034b50});
  append(header, large ? kVersionZip64 : kVersion);
  append(header, kUtf8);
  append(header, uint16_t{0});  // stored
  append(header, kTime);
  append(header, kDate);
  append(header, entry.crc);
  append(header, short_of(entry.size));
  append(header, short_of(entry.size));
  append(header, static_cast<uint16_t>(name.size()));
  append(header, static_cast<uint16_t>(extra.size()));
  put(header + name + extra);
  file_.write(bytes);
  written_ += bytes.size();
  entries_.push_back(entry);
}

void ZipWriter::add(const std::string& name, std::string_view text) {
  add(name, std::as_bytes(std::span(text)));
}

std::string ZipWriter::listing() const {
  std::string out;
  for (const Entry& entry : entries_) out += zip_listing(entry.name, entry.crc, entry.size);
  return out;
}

std::string zip_listing(std::string_view name, uint32_t crc, uint64_t size) {
  return fmt::format("{}\n{:08x} {}\n", name, crc, size);
}

void ZipWriter::finish() {
  const uint64_t begin = written_;
  for (const Entry& entry : entries_) {
    const bool large = entry.size >= zip64_from_;
    const bool far = entry.offset >= zip64_from_;
    std::string extra;
    if (large || far) {
      append(extra, kZip64Field);
      append(extra, static_cast<uint16_t>((large ? 2 : 0) * sizeof(uint64_t) +
                                          (far ? 1 : 0) * sizeof(uint64_t)));
      if (large) {
        append(extra, entry.size);
        append(extra, entry.size);
      }
      if (far) append(extra, entry.offset);
    }
    std::string header;
    append(header, uint32_t{0x02014b50});
    append(header, large || far ? kVersionZip64 : kVersion);
    append(header, large || far ? kVersionZip64 : kVersion);
    append(header, kUtf8);
    append(header, uint16_t{0});
    append(header, kTime);
    append(header, kDate);
    append(header, entry.crc);
    append(header, short_of(entry.size));
    append(header, short_of(entry.size));
    append(header, static_cast<uint16_t>(entry.name.size()));
    append(header, static_cast<uint16_t>(extra.size()));
    append(header, uint16_t{0});  // no remark
    append(header, uint16_t{0});  // first disk
    append(header, uint16_t{0});
    append(header, uint32_t{0});
    append(header, short_of(entry.offset));
    put(header + entry.name + extra);
  }
  const uint64_t size = written_ - begin;
  const uint64_t end = written_;
  const auto count = static_cast<uint64_t>(entries_.size());
  std::string tail;
  if (begin >= zip64_from_) {
    append(tail, uint32_t{0x06064b50});
    append(tail, uint64_t{44});  // what follows of this record
    append(tail, kVersionZip64);
    append(tail, kVersionZip64);
    append(tail, uint32_t{0});
    append(tail, uint32_t{0});
    append(tail, count);
    append(tail, count);
    append(tail, size);
    append(tail, begin);
    append(tail, uint32_t{0x07064b50});
    append(tail, uint32_t{0});
    append(tail, end);
    append(tail, uint32_t{1});
  }
  append(tail, uint32_t{0x06054b50});
  append(tail, uint16_t{0});
  append(tail, uint16_t{0});
  append(tail, static_cast<uint16_t>(count));
  append(tail, static_cast<uint16_t>(count));
  append(tail, short_of(size));
  append(tail, short_of(begin));
  append(tail, uint16_t{0});
  put(tail);
}

}  // namespace graft
