// Zip archives by libzip.
#include <sys/stat.h>
#include <zip.h>

#include <algorithm>
#include <mutex>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/archive_kinds.h"

namespace graft {
namespace {

using Zip = std::unique_ptr<zip_t, decltype(&zip_discard)>;

Zip open(const fs::path& file) {
  int code = 0;
  Zip zip(zip_open(file.c_str(), ZIP_RDONLY, &code), zip_discard);
  if (zip) return zip;
  zip_error_t error;
  zip_error_init_with_code(&error, code);
  const std::string why = zip_error_strerror(&error);
  zip_error_fini(&error);
  fail(ErrorKind::input,
       "{}: not a usable zip archive: it is damaged or cut short ({}); download or copy it again",
       printable(file), why);
}

/// By the mode that programs on Unix put beside an entry.
bool is_link(zip_t* zip, zip_uint64_t index) {
  zip_uint8_t system = 0;
  zip_uint32_t attributes = 0;
  constexpr unsigned kModeShift = 16;
  return zip_file_get_external_attributes(zip, index, 0, &system, &attributes) == 0 &&
         system == ZIP_OPSYS_UNIX && S_ISLNK(attributes >> kModeShift);
}

class ZipArchive : public Archive {
 public:
  explicit ZipArchive(const fs::path& file) : file_(file) {
    Zip zip = open(file);
    const zip_int64_t count = zip_get_num_entries(zip.get(), 0);
    std::vector<Member> members;
    std::vector<std::string> folders;
    bool has_slash = false;
    size_t links = 0;
    for (zip_uint64_t i = 0; i < static_cast<zip_uint64_t>(count); ++i) {
      zip_stat_t about;
      // Names without the mark of UTF-8 are converted, unless they are UTF-8 nevertheless.
      if (zip_stat_index(zip.get(), i, ZIP_FL_ENC_GUESS, &about) != 0 ||
          (about.valid & ZIP_STAT_NAME) == 0 || (about.valid & ZIP_STAT_SIZE) == 0)
        fail(ErrorKind::input,
             "{}: not a usable zip archive: its list of entries is damaged; download or copy it "
             "again",
             printable(file));
      if ((about.valid & ZIP_STAT_ENCRYPTION_METHOD) != 0 && about.encryption_method != ZIP_EM_NONE)
        fail(ErrorKind::input, "{}: {} in it is encrypted; unpack the archive with its password",
             printable(file), printable(about.name));
      const bool packed = (about.valid & ZIP_STAT_COMP_METHOD) != 0;
      if (packed && zip_compression_method_supported(about.comp_method, /*compress=*/0) == 0)
        fail(ErrorKind::input,
             "{}: {} in it is compressed by a method that is not read (number {}); unpack the "
             "archive, or make it again with deflate",
             printable(file), printable(about.name), about.comp_method);
      std::string name = about.name;
      if (is_link(zip.get(), i)) {
        ++links;
        folders.push_back(fs::path(name).parent_path().string());
        continue;
      }
      if (name.ends_with('/') || name.ends_with('\\')) {
        folders.push_back(std::move(name));
        continue;
      }
      has_slash = has_slash || name.find('/') != std::string::npos;
      members.push_back({std::move(name), about.size, i});
    }
    // Some programs for Windows write its separator, against the format's rules.
    if (!has_slash) {
      for (std::string& folder : folders) std::replace(folder.begin(), folder.end(), '\\', '/');
      for (Member& member : members)
        std::replace(member.name.begin(), member.name.end(), '\\', '/');
    }
    if (links > 0)
      add_note(fmt::format("{}: {}; left out", printable(file),
                           links == 1 ? "an entry that is a link"
                                      : fmt::format("{} entries that are links", links)));
    set_members(std::move(members), folders);
    idle_.push_back(std::move(zip));
  }

  [[nodiscard]] std::vector<std::byte> read(const Member& member, uint64_t most) const override {
    Zip zip = take();
    std::vector<std::byte> out = read(zip.get(), member, std::min(member.size, most));
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(zip));
    return out;
  }

 private:
  /// A handle for this thread alone.
  [[nodiscard]] Zip take() const {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        Zip zip = std::move(idle_.back());
        idle_.pop_back();
        return zip;
      }
    }
    return open(file_);
  }

  [[nodiscard]] std::vector<std::byte> read(zip_t* zip, const Member& member,
                                            uint64_t count) const {
    const auto damaged = [&](const std::string& why) {
      fail(ErrorKind::input, "{}: cannot be read from the archive: {}; download or copy it again",
           printable(file_ / member.name), why);
    };
    // No photo shrinks so much; what does is made to fill memory.
    constexpr uint64_t kMostGrowth = 100;
    constexpr uint64_t kAnyGrowth = uint64_t{32} << 20U;
    zip_stat_t about;
    if (count > kAnyGrowth &&
        (zip_stat_index(zip, member.place, 0, &about) != 0 ||
         (about.valid & ZIP_STAT_COMP_SIZE) == 0 || member.size / kMostGrowth > about.comp_size))
      fail(ErrorKind::input,
           "{}: grows to more than {} times its size when it is inflated, which no photo does; "
           "remove it",
           printable(file_ / member.name), kMostGrowth);
    const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> file(
        zip_fopen_index(zip, member.place, 0), zip_fclose);
    if (!file) damaged(zip_strerror(zip));
    // What a list states is believed as far as there is content.
    constexpr uint64_t kPiece = uint64_t{16} << 20U;
    std::vector<std::byte> out;
    for (uint64_t done = 0; done < count;) {
      out.resize(std::min(count, done + kPiece));
      const zip_int64_t got = zip_fread(file.get(), out.data() + done, out.size() - done);
      if (got < 0) damaged(zip_file_strerror(file.get()));
      if (got == 0) damaged("it ends early");
      done += static_cast<uint64_t>(got);
    }
    if (count < member.size) return out;
    // The checksum is compared where the end is found.
    std::byte surplus{};
    const zip_int64_t got = zip_fread(file.get(), &surplus, 1);
    if (got < 0) damaged(zip_file_strerror(file.get()));
    if (got > 0) damaged("it is longer than the list says");
    return out;
  }

  fs::path file_;
  mutable std::mutex mutex_;
  mutable std::vector<Zip> idle_;
};

}  // namespace

std::shared_ptr<const Archive> open_zip(const fs::path& file) {
  return std::make_shared<ZipArchive>(file);
}

}  // namespace graft
