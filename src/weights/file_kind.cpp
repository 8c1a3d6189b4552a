#include "weights/file_kind.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/read_at.h"

namespace graft {
namespace {

using namespace std::string_view_literals;

constexpr const char* kAgain = "download or copy it again";
constexpr const char* kUnpack = "unpack it and name the weights file in it";
constexpr const char* kToKerasH5 =
    "open it in Keras and write it with model.save('model.h5'), or where the backbone is a layer "
    "of the model with model.get_layer('vgg16').save('vgg16.h5')";
// Other frameworks' weights expect other pixels, so there is no line that converts them rightly.
constexpr const char* kUseKeras =
    "use a Keras .h5 file, a PyTorch .pth, safetensors, ONNX or a Graft model; Keras' own ImageNet "
    "weights of vgg16 and vgg19 are `weights` imagenet";

/// The first and the last bytes of a file.
struct Glimpse {
  std::string start;
  std::string end;  ///< a zip archive's list of names is there
  uint64_t size = 0;
};

Glimpse glimpse(const fs::path& path) {
  constexpr size_t kStart = 4096;
  constexpr size_t kEnd = size_t{64} << 10U;
  // O_NONBLOCK: opening a named pipe must be an error below, not a wait for a writer.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const int error = errno;
    if (error == ENOENT || error == ENOTDIR)
      fail(ErrorKind::input,
           "{}: no such file; give a Keras .h5, PyTorch .pth, safetensors or ONNX file, a Graft "
           "model or run, 'imagenet', 'builtin' or 'none' ('graft weights list' has the published "
           "files)",
           printable(path));
    fail(ErrorKind::io, "{}: cannot open: {}{}", printable(path), system_error_text(error),
         error == EACCES
             ? "; make the file and its folders readable for you (chmod), or ask their owner"
         : error == ENAMETOOLONG
             ? "; names of files have at most 255 bytes, paths 4095: is it a path at all?"
             : "");
  }
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } const closer{fd};
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    fail(ErrorKind::io, "{}: cannot read: {}", printable(path), system_error_text(errno));
  if (!S_ISREG(info.st_mode)) {
    std::error_code error;
    if (fs::exists(path / "saved_model.pb", error))
      fail(ErrorKind::input, "{}: a TensorFlow SavedModel, which is not read; {}", printable(path),
           kToKerasH5);
    if (S_ISDIR(info.st_mode) && !fs::exists(path / "model.safetensors", error))
      fail(ErrorKind::input,
           "{}: a folder, not a regular file, and no run of Graft's (it has no "
           "model.safetensors); name the file of "
           "weights in it",
           printable(path));
    fail(ErrorKind::input, "{}: not a regular file; give a Keras .h5 file or a Graft model file{}",
         printable(path),
         fs::exists(path / "model.safetensors", error) ? " (the model.safetensors in it)" : "");
  }
  Glimpse out;
  out.size = static_cast<uint64_t>(info.st_size);
  out.start = read_at(fd, 0, std::min<uint64_t>(out.size, kStart), path);
  const uint64_t tail = std::min<uint64_t>(out.size, kEnd);
  out.end = read_at(fd, out.size - tail, tail, path);
  return out;
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// HDF5's signature stands at 0, or behind a user block at 512, 1024, …
bool has_hdf5_signature(std::string_view start) {
  constexpr std::string_view kSignature = "\x89HDF\r\n\x1A\n"sv;
  for (size_t at = 0; at < start.size(); at = at == 0 ? 512 : at * 2)
    if (start.substr(at).starts_with(kSignature)) return true;
  return false;
}

bool is_safetensors(const Glimpse& file) {
  uint64_t header = 0;
  if (file.start.size() < 9) return false;
  std::memcpy(&header, file.start.data(), sizeof(header));
  return file.start[8] == '{' && header <= file.size - 8;
}

FileKind of_zip(const Glimpse& file) {
  if (contains(file.end, "model.weights.h5"))
    return {FileKind::keras, "a Keras model (.keras)", ""};
  // PyTorch writes it first; the list at the end is long where there are many tensors.
  if (contains(file.end, "data.pkl") || contains(file.start, "/data.pkl"))
    return {FileKind::torch, "a PyTorch file (.pth, .pt)", ""};
  if (!contains(file.end, "PK\x05\x06"))
    return {FileKind::other,
            "a zip archive that is cut short: the list of what is in it, at its end, is missing",
            kAgain};
  if (contains(file.end, ".npy")) return {FileKind::other, "a NumPy archive (.npz)", kUseKeras};
  return {FileKind::other, "a zip archive", kUnpack};
}

/// A text that begins with markup or is a pointer in place of the file.
FileKind of_text(std::string_view start) {
  std::string text(start.substr(0, 1024));
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  text.erase(0, std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (text.starts_with("version https://git-lfs"))
    return {FileKind::other, "a git-lfs pointer: the file itself has not been fetched",
            "run 'git lfs pull' in its repository"};
  if (text.starts_with("<!doctype html") || text.starts_with("<html") ||
      text.starts_with("<head") || (text.starts_with("<") && contains(text, "<html")))
    return {FileKind::other, "a web page (of an error or a login?) saved under this name", kAgain};
  if (text.starts_with("<?xml"))
    return {FileKind::other, "an XML document (a server's error?)", kAgain};
  if (text.starts_with("{") || text.starts_with("["))
    return {FileKind::other,
            "a JSON text (a model's description or a server's error?), not weights", kUseKeras};
  const bool is_text =
      start.size() >= 4 && std::all_of(start.begin(), start.end(), [](char c) {
        return static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\r' || c == '\t';
      });
  if (!is_text) return {};
  const std::string_view line = start.substr(0, start.find('\n'));
  if (line.find(',') != std::string_view::npos)
    return {FileKind::other, "a text of fields between commas (CSV)", kUseKeras};
  return {FileKind::other, "a text", kUseKeras};
}

FileKind sniff(const Glimpse& file) {
  const std::string_view start = file.start;
  if (has_hdf5_signature(start)) return {FileKind::hdf5, "", ""};
  if (is_safetensors(file)) return {FileKind::safetensors, "", ""};
  if (start.empty()) return {FileKind::other, "empty: it has no bytes", kAgain};
  if (std::all_of(start.begin(), start.end(), [](char c) { return c == 0; }))
    return {FileKind::other, "nothing but zeros at its start (a copy that was interrupted?)",
            kAgain};
  struct Signature {
    size_t at;
    std::string_view bytes;
    const char* what;
    const char* advice;
  };
  // PyTorch's stream of before 1.6: the pickled number 0x1950a86a20f9469cfc6c, in any protocol.
  constexpr std::string_view kTorch = "\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19"sv;
  if (start.size() > 2 && start[0] == '\x80' && start.substr(2, 32).find(kTorch) < 16)
    return {FileKind::torch, "a PyTorch file (.pth, .pt)", ""};
  static constexpr std::array<Signature, 19> kSignatures = {{
      {0, "\x80\x02"sv, "a Python pickle", kUseKeras},
      {0, "\x80\x03"sv, "a Python pickle", kUseKeras},
      {0, "\x80\x04"sv, "a Python pickle", kUseKeras},
      {0, "\x80\x05"sv, "a Python pickle", kUseKeras},
      {0, "\x93NUMPY"sv, "a NumPy array (.npy)", kUseKeras},
      {0, "GGUF"sv, "a GGUF file", kUseKeras},
      {4, "TFL3"sv, "a TensorFlow Lite model", kUseKeras},
      {0, "MATLAB 5.0 MAT-file"sv, "a MATLAB file", kUseKeras},
      {0, "\x1F\x8B"sv, "a gzip archive", kUnpack},
      {0,
       "\xFD"
       "7zXZ\0"sv,
       "an xz archive", kUnpack},
      {0, "\x28\xB5\x2F\xFD"sv, "a Zstandard archive", kUnpack},
      {0, "BZh"sv, "a bzip2 archive", kUnpack},
      {0, "7z\xBC\xAF\x27\x1C"sv, "a 7-Zip archive", kUnpack},
      {0, "Rar!"sv, "a RAR archive", kUnpack},
      {257, "ustar"sv, "a tar archive", kUnpack},
      {0, "%PDF"sv, "a PDF document", kUseKeras},
      {0, "\xFF\xD8\xFF"sv, "a JPEG image", kUseKeras},
      {0, "\x89PNG"sv, "a PNG image", kUseKeras},
      {0, "#!"sv, "a script", kUseKeras},
  }};
  if (start.starts_with("PK\x03\x04") || start.starts_with("PK\x05\x06")) return of_zip(file);
  for (const Signature& s : kSignatures)
    if (start.size() > s.at && start.substr(s.at).starts_with(s.bytes))
      return {FileKind::other, s.what, s.advice};
  // ONNX and SavedModel are protobuf without a signature: field 1 is a small version, and then
  // a string (producer_name and _version, domain, doc_string: fields 2, 3, 4, 6), a number
  // (model_version: field 5) or a nested message (graph: field 7, imports: field 8).
  constexpr std::string_view kNext = "\x12\x1A\x22\x28\x32\x3A\x42"sv;
  if (start.size() > 2 && start[0] == '\x08' && start[1] > 0 && start[1] < 32 &&
      kNext.find(start[2]) != std::string_view::npos) {
    if (start[1] == 1) return {FileKind::other, "a TensorFlow SavedModel's graph", kToKerasH5};
    return {FileKind::onnx, "an ONNX model", ""};
  }
  return of_text(start);
}

}  // namespace

FileKind file_kind(const fs::path& path) { return sniff(glimpse(path)); }

void expect_model_file(const fs::path& path) {
  const FileKind kind = file_kind(path);
  const std::string name = printable(path);
  const char* weights = kind.format == FileKind::hdf5    ? "a Keras weights file (HDF5)"
                        : kind.format == FileKind::torch ? "a PyTorch weights file (.pth)"
                        : kind.format == FileKind::keras ? "a Keras model (.keras)"
                        : kind.format == FileKind::onnx  ? "an ONNX model"
                                                         : nullptr;
  if (weights != nullptr)
    fail(ErrorKind::input,
         "{}: {}, not a Graft model; if it is a whole classifier, 'graft weights convert {} "
         "MODEL.safetensors' makes one of it, and else train one on it with 'graft train DATA "
         "`weights` {}'",
         name, weights, name, name);
  if (kind.format == FileKind::other)
    fail(ErrorKind::input,
         "{}: this is {}, not a Graft model; give the model.safetensors or the run folder that "
         "'graft train' made",
         name, kind.what);
}

}  // namespace graft
