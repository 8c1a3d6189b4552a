// Decompressing tar archives: once, into the cache folder.
#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
#include <xxhash.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/progress.h"
#include "dataset/archive_kinds.h"
#include "dataset/libarchive.h"
#include "graft/dataset.h"

namespace graft {
namespace {

constexpr size_t kPiece = size_t{1} << 20U;

/// The size and ends of a file tell it from other versions of it, without reading all.
std::string fingerprint(const fs::path& path) {
  constexpr size_t kEnd = size_t{64} << 10U;
  const MappedFile map(path);
  const std::span<const std::byte> bytes = map.bytes();
  struct stat info {};
  ::stat(path.c_str(), &info);
  const std::string where = whole_path(path).string();
  const size_t count = std::min(bytes.size(), kEnd);
  uint64_t hash = XXH3_64bits_withSeed(where.data(), where.size(), bytes.size());
  hash = XXH3_64bits_withSeed(&info.st_mtim, sizeof(info.st_mtim), hash);
  hash = XXH3_64bits_withSeed(bytes.data(), count, hash);
  hash = XXH3_64bits_withSeed(bytes.data() + bytes.size() - count, count, hash);
  return fmt::format("{:016x}", hash);
}

fs::path archive_cache_folder() { return default_cache_folder() / "archives"; }

std::vector<fs::path> kept_tars() {
  std::vector<fs::path> out;
  std::error_code error;
  for (fs::directory_iterator at(archive_cache_folder(), error), end; !error && at != end;
       at.increment(error))
    if (at->path().extension() == ".tar") out.push_back(at->path());
  return out;
}

/// Whether a copy is what was once decompressed, to the bit: it is trusted as the archive is.
bool is_as_recorded(const fs::path& copy, const fs::path& record) {
  std::error_code error;
  if (!fs::is_regular_file(fs::symlink_status(copy, error)) || !fs::exists(record, error))
    return false;
  try {
    const auto about = nlohmann::json::parse(read_text_file(record), nullptr, false);
    return about.is_object() && about.value("hash", "") == content_hash(MappedFile(copy).bytes());
  } catch (const std::exception&) {
    return false;  // decompressed anew
  }
}

/// Removes what earlier versions of the archive became, and whatever has this one's name.
void remove_older(const fs::path& source, const fs::path& folder, const fs::path& target) {
  std::error_code error;
  if (!fs::is_directory(fs::symlink_status(target, error))) fs::remove(target, error);
  const std::string name = whole_path(source).string();
  for (const fs::path& file : kept_tars()) {
    const fs::path record = fs::path(file).replace_extension(".json");
    if (!fs::exists(record, error)) continue;
    try {
      const auto about = nlohmann::json::parse(read_text_file(record), nullptr, false);
      if (!about.is_object() || about.value("source", "") != name) continue;
    } catch (const std::exception&) {
      continue;
    }
    fs::remove(file, error);
    fs::remove(record, error);
  }
  remove_leftovers(folder);
}

/// The content of a compressed file, piece by piece, its checksums compared.
class Decompressor {
 public:
  virtual ~Decompressor() = default;
  /// As many bytes as fit, 0 at the end. Throws Error(input).
  virtual size_t read(std::span<std::byte> out) = 0;
  /// Bytes of the file that were read so far.
  [[nodiscard]] virtual uint64_t position() const = 0;
};

/// gzip by zlib: libarchive does not compare its checksum.
class Gzip : public Decompressor {
 public:
  explicit Gzip(const fs::path& path) : path_(path), file_(gzopen(path.c_str(), "rbe")) {
    if (file_ == nullptr)
      fail(ErrorKind::io, "{}: cannot open: {}", printable(path), system_error_text(errno));
  }
  ~Gzip() override { gzclose(file_); }
  Gzip(const Gzip&) = delete;
  Gzip& operator=(const Gzip&) = delete;

  size_t read(std::span<std::byte> out) override {
    const int got = gzread(file_, out.data(), static_cast<unsigned>(out.size()));
    int code = Z_OK;
    const char* why = gzerror(file_, &code);
    if (got < 0 || code != Z_OK)
      fail(ErrorKind::input, "{}: not a usable tar archive: {}; download or copy it again",
           printable(path_), code == Z_BUF_ERROR ? "it ends too early" : why);
    return static_cast<size_t>(got);
  }
  [[nodiscard]] uint64_t position() const override {
    return static_cast<uint64_t>(std::max<z_off_t>(0, gzoffset(file_)));
  }

 private:
  fs::path path_;
  gzFile file_;
};

/// What libarchive knows: bzip2, xz, Zstandard, LZ4.
class OtherCompression : public Decompressor {
 public:
  explicit OtherCompression(const fs::path& path) : path_(path), reader_(new_archive_reader()) {
    archive_read_support_filter_all(reader_.get());
    archive_read_support_format_raw(reader_.get());
    archive_entry* entry = nullptr;
    if (archive_read_open_filename(reader_.get(), path.c_str(), kPiece) != ARCHIVE_OK ||
        archive_read_next_header(reader_.get(), &entry) != ARCHIVE_OK)
      fail_damaged_tar(path, reader_.get());
  }
  size_t read(std::span<std::byte> out) override {
    const la_ssize_t got = archive_read_data(reader_.get(), out.data(), out.size());
    if (got < 0) fail_damaged_tar(path_, reader_.get());
    return static_cast<size_t>(got);
  }
  [[nodiscard]] uint64_t position() const override {
    return static_cast<uint64_t>(std::max<la_int64_t>(0, archive_filter_bytes(reader_.get(), -1)));
  }

 private:
  fs::path path_;
  ArchiveReader reader_;
};

bool is_gzip(const fs::path& path) { return file_begins_with(path, "\x1F\x8B"); }

/// Writes the content to `target`; its hash.
std::string decompress(const fs::path& path, const fs::path& target, const RunContext& context) {
  // Photos hardly get smaller; what grows so much is made to fill a disk.
  constexpr uint64_t kMostGrowth = 50;
  constexpr uint64_t kLeastLimit = uint64_t{256} << 20U;
  std::unique_ptr<Decompressor> input;
  if (is_gzip(path))
    input = std::make_unique<Gzip>(path);
  else
    input = std::make_unique<OtherCompression>(path);
  const uint64_t bytes = fs::file_size(path);
  const uint64_t most = std::max(kMostGrowth * bytes, kLeastLimit);
  Progress progress(context, "decompressing", bytes, "B");
  AtomicFile out(target);
  ContentHash hash;
  std::vector<std::byte> piece(kPiece);
  uint64_t sum = 0;
  while (const size_t got = input->read(piece)) {
    const auto content = std::span(piece).first(got);
    if (sum == 0 && archive_kind(content) != ArchiveKind::tar)
      fail(ErrorKind::input, "{}: a compressed file that is no tar archive; unpack it",
           printable(path));
    sum += got;
    if (sum > most)
      fail(ErrorKind::input,
           "{}: it grows to more than {} times its size when it is decompressed, which photos do "
           "not; unpack it yourself if it is what it should be",
           printable(path), kMostGrowth);
    out.write(content);
    hash.update(content);
    progress.update(std::min(bytes, input->position()));
    context.check_stop();
  }
  progress.finish();
  out.commit();
  return hash.finish();
}

}  // namespace

DecompressedArchives decompressed_archives() {
  DecompressedArchives out{archive_cache_folder()};
  for (const fs::path& file : kept_tars()) {
    ++out.files;
    out.bytes += size_of_path(file).value_or(0);
  }
  return out;
}

uint64_t clear_decompressed_archives() {
  const uint64_t bytes = decompressed_archives().bytes;
  for (const fs::path& file : kept_tars()) {
    std::error_code error;
    fs::remove(fs::path(file).replace_extension(".json"), error);
    if (!fs::remove(file, error) && error)
      fail(ErrorKind::io, "{}: cannot be removed: {}", printable(file), error.message());
  }
  return bytes;
}

fs::path decompressed_tar(const fs::path& path, const RunContext& context) {
  const fs::path folder = archive_cache_folder();
  const std::string name = fingerprint(path);
  fs::path target = folder / (name + ".tar");
  const fs::path record = folder / (name + ".json");
  if (is_as_recorded(target, record)) return target;
  try {
    make_folder(folder);
  } catch (const Error& failure) {
    fail(
        ErrorKind::io,
        "{}: a compressed tar is decompressed into the cache folder first, but {}; unpack it, make "
        "it a zip, or name another cache folder with $XDG_CACHE_HOME",
        printable(path), failure.what());
  }
  remove_older(path, folder, target);
  const nlohmann::json found = {{"source", whole_path(path).string()},
                                {"hash", decompress(path, target, context)}};
  write_file_atomic(record, found.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  return target;
}

}  // namespace graft
