#include "weights/zip_file.h"

#include <zip.h>

#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/zip_writer.h"

namespace graft {
namespace {

// Models of thousands of tensors have as many entries.
constexpr zip_int64_t kMaxEntries = 100'000;
constexpr uint64_t kFreeBytes = uint64_t{64} << 20U;

std::string text_of(zip_error_t* error) { return zip_error_strerror(error); }

}  // namespace

struct ZipFile::Archive {
  zip_t* zip = nullptr;

  Archive() = default;
  ~Archive() {
    if (zip != nullptr) zip_discard(zip);
  }
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;
};

ZipFile::ZipFile(std::span<const std::byte> bytes, std::string name)
    : name_(std::move(name)), bytes_(bytes.size()), archive_(std::make_unique<Archive>()) {
  zip_error_t error;
  zip_error_init(&error);
  zip_source_t* source = zip_source_buffer_create(bytes.data(), bytes.size(), /*freep=*/0, &error);
  if (source != nullptr) {
    archive_->zip = zip_open_from_source(source, ZIP_RDONLY, &error);
    if (archive_->zip == nullptr) zip_source_free(source);
  }
  const std::string why = text_of(&error);
  zip_error_fini(&error);
  if (archive_->zip == nullptr)
    refuse(fmt::format("it is damaged or cut short ({}); download or copy it again", why));
  const zip_int64_t count = zip_get_num_entries(archive_->zip, 0);
  if (count > kMaxEntries)
    refuse(fmt::format("it has {} entries; at most {} are read", count, kMaxEntries));
  for (zip_uint64_t i = 0; i < static_cast<zip_uint64_t>(count); ++i) {
    zip_stat_t about;
    if (zip_stat_index(archive_->zip, i, ZIP_FL_ENC_RAW, &about) != 0 ||
        (about.valid & ZIP_STAT_NAME) == 0 || (about.valid & ZIP_STAT_SIZE) == 0)
      refuse("its list of entries is damaged; download or copy it again");
    entries_.push_back({about.name, about.size, i, about.crc});
  }
  for (size_t i = 0; i < entries_.size(); ++i) by_name_.insert_or_assign(entries_[i].name, i);
}

ZipFile::~ZipFile() = default;

void ZipFile::refuse(const std::string& why) const {
  fail(ErrorKind::input, "{}: not a usable zip archive: {}", name_, why);
}

std::string ZipFile::listing_without(const ZipEntry& entry) const {
  std::string out;
  for (const ZipEntry& other : entries_)
    if (other.index != entry.index) out += zip_listing(other.name, other.crc, other.size);
  return out;
}

const ZipEntry* ZipFile::find(std::string_view name) const {
  const auto at = by_name_.find(name);
  return at == by_name_.end() ? nullptr : &entries_[at->second];
}

void ZipFile::check_size(const ZipEntry& entry) const {
  if (entry.size > bytes_ + kFreeBytes)
    refuse(fmt::format("{} claims {} bytes, of an archive of {}", printable(entry.name), entry.size,
                       bytes_));
}

void ZipFile::read(const ZipEntry& entry, std::span<std::byte> out) const {
  const auto damaged = [&](const std::string& why) {
    refuse(fmt::format("{} in it cannot be read ({}); download or copy it again",
                       printable(entry.name), why));
  };
  const auto close = [](zip_file_t* open) { zip_fclose(open); };
  const std::unique_ptr<zip_file_t, decltype(close)> file(
      zip_fopen_index(archive_->zip, entry.index, 0), close);
  if (!file) damaged(text_of(zip_get_error(archive_->zip)));
  size_t done = 0;
  while (done < out.size()) {
    const zip_int64_t got = zip_fread(file.get(), out.data() + done, out.size() - done);
    if (got < 0) damaged(text_of(zip_file_get_error(file.get())));
    if (got == 0) damaged("it ends early");
    done += static_cast<size_t>(got);
  }
  // The checksum is compared where the end is found.
  std::byte surplus{};
  const zip_int64_t got = zip_fread(file.get(), &surplus, 1);
  if (got < 0) damaged(text_of(zip_file_get_error(file.get())));
  if (got > 0) damaged("it is longer than the list says");
}

std::vector<std::byte> ZipFile::read(const ZipEntry& entry, uint64_t most) const {
  if (entry.size > most)
    refuse(fmt::format("{} has {} bytes; at most {} are read", printable(entry.name), entry.size,
                       most));
  check_size(entry);
  std::vector<std::byte> out(entry.size);
  read(entry, out);
  return out;
}

}  // namespace graft
