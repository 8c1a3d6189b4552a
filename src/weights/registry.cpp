#include "weights/registry.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/limits.h"
#include "weights/download.h"

namespace graft {
namespace {

/// By how much a size may be off that is not known to the byte.
constexpr uint64_t kSizeTolerance = 64 << 10U;

constexpr const char* kKerasBase = "https://storage.googleapis.com/tensorflow/keras-applications/";
constexpr const char* kTorchvisionBase = "https://download.pytorch.org/models/";
// The authors' release; Keras converted the files without changing their terms.
constexpr const char* kVggLicence = "CC BY 4.0 (Visual Geometry Group, University of Oxford)";
// Trained by its authors, who state no terms but those of the package.
constexpr const char* kTorchvisionLicence = "BSD 3-Clause (torchvision)";

std::string capitals(std::string backbone) {
  backbone.replace(0, 3, "VGG");
  return backbone;
}

PublishedFile keras(const std::string& backbone, bool top, const char* md5, uint64_t bytes) {
  const std::string file = backbone + "_weights_tf_dim_ordering_tf_kernels" +
                           (top ? std::string() : std::string("_notop")) + ".h5";
  return {.family = "keras",
          .backbone = backbone,
          .include_top = top,
          .file = file,
          .url = kKerasBase + backbone + "/" + file,
          .md5 = md5,
          .sha256 = "",
          .bytes = bytes,
          .exact_size = true,
          .top1 = 0.713,  // of both (keras.io/api/applications)
          .source = "Keras " + capitals(backbone) + " ImageNet" + (top ? "" : " (no top)"),
          .licence = kVggLicence};
}

/// `sha256`: its first 8 digits are in the file's name, and all that torch.hub compares.
PublishedFile torchvision(const std::string& backbone, const std::string& sha256, double top1,
                          uint64_t bytes, bool exact_size = true) {
  const std::string file = backbone + "-" + sha256.substr(0, 8) + ".pth";
  return {.family = "torchvision",
          .backbone = backbone,
          .include_top = true,
          .file = file,
          .url = kTorchvisionBase + file,
          .md5 = "",
          .sha256 = sha256,
          .bytes = bytes,
          .exact_size = exact_size,
          .top1 = top1,
          .source = "torchvision " + capitals(backbone) + " ImageNet",
          .licence = kTorchvisionLicence};
}

/// A size that torchvision states as "_file_size", MiB to three places.
constexpr uint64_t mebibytes(double size) { return static_cast<uint64_t>(size * (1U << 20U)); }

}  // namespace

const std::vector<PublishedFile>& published_files() {
  static const std::vector<PublishedFile> kFiles = {
      keras("vgg16", false, "6d6bbae143d832006294945121d1f1fc", 58'889'256),
      keras("vgg16", true, "64373286793e3c8b2b4e3219cbf3544b", 553'467'096),
      keras("vgg19", false, "253f8cb515780f3b799900260a226db6", 80'134'624),
      keras("vgg19", true, "cbe5617147190e668d6c5d5026f83318", 574'710'816),
      torchvision("vgg11", "8a719046", 0.69020, mebibytes(506.840), false),
      torchvision("vgg13", "19584684", 0.69928, mebibytes(507.545), false),
      torchvision("vgg16", "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                  0.71592, 553'433'881),
      torchvision("vgg19", "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
                  0.72376, 574'673'361),
      torchvision("vgg11_bn", "6002323d", 0.70370, mebibytes(506.881), false),
      torchvision("vgg13_bn", "abd245e5", 0.71586, mebibytes(507.590), false),
      torchvision("vgg16_bn", "6c64b313", 0.73360, 553'507'836),
      torchvision("vgg19_bn", "c79401a0", 0.74218, 574'769'405),
  };
  return kFiles;
}

const PublishedFile* find_published(std::string_view backbone, bool include_top,
                                    std::string_view family) {
  const PublishedFile* found = nullptr;
  for (const PublishedFile& file : published_files()) {
    if (file.backbone != backbone || (include_top && !file.include_top)) continue;
    if (!family.empty() && file.family != family) continue;
    // A whole file has everything that one without top has.
    if (found == nullptr || (found->family == file.family && file.bytes < found->bytes))
      found = &file;
  }
  return found;
}

bool has_published_hash(const PublishedFile& file, const std::filesystem::path& path) {
  return file.md5.empty() ? sha256_of_file(path).starts_with(file.sha256)
                          : md5_of_file(path) == file.md5;
}

bool may_have_size(const PublishedFile& file, uint64_t bytes) {
  const uint64_t most = file.exact_size ? 0 : kSizeTolerance;
  return bytes + most >= file.bytes && bytes <= file.bytes + most;
}

std::string published_hash(const PublishedFile& file) {
  if (!file.md5.empty()) return "MD5 " + file.md5;
  return fmt::format("SHA-256 {}{}", file.sha256, file.sha256.size() < 64 ? "…" : "");
}

const PublishedFile* recognise_published(const std::filesystem::path& path,
                                         const std::string& md5) {
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(path, error);
  for (const PublishedFile& file : published_files()) {
    if (error || !may_have_size(file, bytes)) continue;
    if (file.md5.empty() ? has_published_hash(file, path) : file.md5 == md5) return &file;
  }
  return nullptr;
}

std::optional<std::string_view> published_family(std::string_view weights) {
  if (weights == "imagenet") return "";
  if (weights == "keras" || weights == "torchvision") return weights;
  return std::nullopt;
}

std::filesystem::path cached_path(const PublishedFile& file, const std::filesystem::path& cache) {
  return cache / "weights" / file.file;
}

void check_published(const PublishedFile& file, const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    fail(ErrorKind::io, "{}: cannot read: {}", printable(path), system_error_text(errno));
  const auto refuse = [&](const std::string& found) {
    fail(
        ErrorKind::input,
        "{}: not the published file of that name ({}); delete it and it is downloaded again, or if "
        "it is meant, move it elsewhere and name it with `weights` FILE",
        printable(path), found);
  };
  if (!may_have_size(file, static_cast<uint64_t>(info.st_size)))
    refuse(fmt::format("it has {} bytes instead of {}", info.st_size, file.bytes));
  // A file that was replaced or written to differs in one of these.
  const std::string record =
      fmt::format("{} {} {}.{:09} {}.{:09} {}\n", file.md5.empty() ? file.sha256 : file.md5,
                  info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec, info.st_ctim.tv_sec,
                  info.st_ctim.tv_nsec, info.st_ino);
  std::filesystem::path memo = path;
  memo += ".checked";
  std::error_code error;
  try {
    if (std::filesystem::exists(memo, error) && read_text_file(memo) == record) return;
  } catch (const Error&) {
    // An unreadable record is none.
  }
  if (!has_published_hash(file, path))
    refuse(fmt::format("its hash is not {}", published_hash(file)));
  try {
    write_file_atomic(memo, record);
  } catch (const Error&) {
    // A folder that cannot be written to costs the time of the hash at each load.
  }
}

void fetch_published(const PublishedFile& file, const std::filesystem::path& cache,
                     const RunContext& context) {
  download({.url = download_url(file),
            .target = cached_path(file, cache),
            .hash = published_hash(file),
            .bytes = file.bytes,
            .tolerance = file.exact_size ? 0 : kSizeTolerance,
            .is_right = [&](const fs::path& path) { return has_published_hash(file, path); }},
           context);
}

void store_published(const PublishedFile& file, const std::filesystem::path& source,
                     const std::filesystem::path& cache) {
  const fs::path target = cached_path(file, cache);
  if (same_file(source, target)) return;
  make_folder(target.parent_path());
  const MappedFile content(source);
  AtomicFile copy(target);
  copy.write(content.bytes());
  copy.commit();
}

std::string download_url(const PublishedFile& file) {
  const char* mirror = std::getenv("GRAFT_WEIGHTS_URL");
  if (mirror == nullptr || mirror[0] == '\0') return file.url;
  return std::string(mirror) + "/" + file.file;
}

}  // namespace graft
