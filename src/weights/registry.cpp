#include "weights/registry.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"

namespace graft {
namespace {

constexpr const char* kKerasBase = "https://storage.googleapis.com/tensorflow/keras-applications/";
// The authors' release; Keras converted the files without changing their terms.
constexpr const char* kVggLicence = "CC BY 4.0 (Visual Geometry Group, University of Oxford)";

PublishedFile keras(const std::string& backbone, bool top, const char* md5, uint64_t bytes) {
  const std::string file = backbone + "_weights_tf_dim_ordering_tf_kernels" +
                           (top ? std::string() : std::string("_notop")) + ".h5";
  std::string model = backbone;
  model.replace(0, 3, "VGG");
  return {backbone,
          top,
          file,
          kKerasBase + backbone + "/" + file,
          md5,
          bytes,
          "Keras " + model + " ImageNet" + (top ? "" : " (no top)"),
          kVggLicence};
}

}  // namespace

const std::vector<PublishedFile>& published_files() {
  static const std::vector<PublishedFile> kFiles = {
      keras("vgg16", false, "6d6bbae143d832006294945121d1f1fc", 58'889'256),
      keras("vgg16", true, "64373286793e3c8b2b4e3219cbf3544b", 553'467'096),
      keras("vgg19", false, "253f8cb515780f3b799900260a226db6", 80'134'624),
      keras("vgg19", true, "cbe5617147190e668d6c5d5026f83318", 574'710'816),
  };
  return kFiles;
}

const PublishedFile* find_published(std::string_view backbone, bool include_top) {
  for (const PublishedFile& file : published_files())
    if (file.backbone == backbone && file.include_top == include_top) return &file;
  return nullptr;
}

const PublishedFile* find_published_md5(std::string_view md5) {
  for (const PublishedFile& file : published_files())
    if (file.md5 == md5) return &file;
  return nullptr;
}

std::filesystem::path cached_path(const PublishedFile& file, const std::filesystem::path& cache) {
  return cache / "weights" / file.file;
}

void check_published(const PublishedFile& file, const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    fail(ErrorKind::io, "{}: cannot read: {}", printable(path), std::strerror(errno));
  const auto refuse = [&](const std::string& found) {
    fail(
        ErrorKind::input,
        "{}: not the published file of that name ({}); delete it and it is downloaded again, or if "
        "it is meant, move it elsewhere and name it with `weights` FILE",
        printable(path), found);
  };
  if (static_cast<uint64_t>(info.st_size) != file.bytes)
    refuse(fmt::format("it has {} bytes instead of {}", info.st_size, file.bytes));
  // A file that was replaced or written to differs in one of these.
  const std::string record =
      fmt::format("{} {} {}.{:09} {}.{:09} {}\n", file.md5, info.st_size, info.st_mtim.tv_sec,
                  info.st_mtim.tv_nsec, info.st_ctim.tv_sec, info.st_ctim.tv_nsec, info.st_ino);
  std::filesystem::path memo = path;
  memo += ".checked";
  std::error_code error;
  try {
    if (std::filesystem::exists(memo, error) && read_text_file(memo) == record) return;
  } catch (const Error&) {
    // An unreadable record is none.
  }
  const std::string md5 = md5_of_file(path);
  if (md5 != file.md5) refuse(fmt::format("its MD5 is {} instead of {}", md5, file.md5));
  try {
    write_file_atomic(memo, record);
  } catch (const Error&) {
    // A folder that cannot be written to costs the time of the MD5 at each load.
  }
}

std::string download_url(const PublishedFile& file) {
  const char* mirror = std::getenv("GRAFT_WEIGHTS_MIRROR");
  if (mirror == nullptr || mirror[0] == '\0') return file.url;
  return std::string(mirror) + "/" + file.file;
}

}  // namespace graft
