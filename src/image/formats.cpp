#include "image/formats.h"

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "base/fail.h"
#include "image/codecs.h"

namespace graft {
namespace {

constexpr std::string_view operator""_bytes(const char* text, size_t size) { return {text, size}; }

struct Format {
  ImageFormat format;
  std::string_view name;
  std::array<std::string_view, 9> suffixes;
};

constexpr std::array<Format, 8> kFormats = {{
    {ImageFormat::jpeg,
     "JPEG",
     {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo", ".insp"}},
    {ImageFormat::png, "PNG", {".png", ".apng"}},
    {ImageFormat::webp, "WebP", {".webp"}},
    {ImageFormat::heic, "HEIC", {".heic", ".heif", ".hif", ".heics"}},
    {ImageFormat::avif, "AVIF", {".avif", ".avifs"}},
    {ImageFormat::gif, "GIF", {".gif"}},
    {ImageFormat::tiff, "TIFF", {".tif", ".tiff"}},
    {ImageFormat::bmp, "BMP", {".bmp", ".dib"}},
}};

constexpr std::string_view kRawAdvice = "develop them to JPEG, e.g. with darktable-cli";
constexpr std::string_view kConvert = "convert them to PNG or JPEG, e.g. with ImageMagick";
constexpr UnreadKind kRaw{"camera raw files", kRawAdvice};
constexpr UnreadKind kVideo{"videos", "take frames out of them with ffmpeg to use them", false};
constexpr UnreadKind kOther{"images of other formats", kConvert};
constexpr UnreadKind kDrawing{"drawings", "render them to PNG, e.g. with rsvg-convert"};
constexpr UnreadKind kMedical{"medical images", "convert them to PNG, e.g. with dcm2img of DCMTK"};

struct UnreadSuffix {
  std::string_view suffix;
  const UnreadKind* kind;
};
constexpr UnreadSuffix kUnread[] = {
    {".jp2", &kOther},   {".j2k", &kOther},   {".jpx", &kOther},  {".jxl", &kOther},
    {".jxr", &kOther},   {".ppm", &kOther},   {".pgm", &kOther},  {".pbm", &kOther},
    {".pnm", &kOther},   {".pfm", &kOther},   {".tga", &kOther},  {".ico", &kOther},
    {".psd", &kOther},   {".exr", &kOther},   {".hdr", &kOther},  {".xcf", &kOther},
    {".svg", &kDrawing}, {".dcm", &kMedical}, {".cr2", &kRaw},    {".cr3", &kRaw},
    {".crw", &kRaw},     {".nef", &kRaw},     {".nrw", &kRaw},    {".arw", &kRaw},
    {".dng", &kRaw},     {".orf", &kRaw},     {".rw2", &kRaw},    {".raf", &kRaw},
    {".pef", &kRaw},     {".srw", &kRaw},     {".x3f", &kRaw},    {".3fr", &kRaw},
    {".mov", &kVideo},   {".mp4", &kVideo},   {".m4v", &kVideo},  {".avi", &kVideo},
    {".mkv", &kVideo},   {".webm", &kVideo},  {".3gp", &kVideo},  {".mts", &kVideo},
    {".m2ts", &kVideo},  {".wmv", &kVideo},   {".flv", &kVideo},  {".mpg", &kVideo},
    {".mpeg", &kVideo},  {".ogv", &kVideo},   {".insv", &kVideo},
};

std::string_view text_at(std::span<const std::byte> bytes, size_t at, size_t count) {
  if (bytes.size() < at + count) return {};
  return {reinterpret_cast<const char*>(bytes.data()) + at, count};
}

struct KnownFile {
  std::string_view magic;
  size_t at;
  std::string_view what;
};

/// Images and videos of kinds that are not read: nothing is wrong with them. Before TIFF, which
/// cameras' raw files begin as.
constexpr KnownFile kOtherFormats[] = {
    {"CR\2"_bytes, 8, "a camera's raw file (CR2)"},
    {"ftypcrx", 4, "a camera's raw file (CR3)"},
    {"HEAPCCDR", 6, "a camera's raw file (CRW)"},
    {"IIRO", 0, "a camera's raw file (ORF)"},
    {"IIRS", 0, "a camera's raw file (ORF)"},
    {"MMOR", 0, "a camera's raw file (ORF)"},
    {"IIU\0"_bytes, 0, "a camera's raw file (RW2)"},
    {"FUJIFILMCCD-RAW", 0, "a camera's raw file (RAF)"},
    {"FOVb", 0, "a camera's raw file (X3F)"},
    {"\0\0\0\x0CjP  "_bytes, 0, "a JPEG 2000"},
    {"\xFF\x4F\xFF\x51", 0, "a JPEG 2000"},
    {"\0\0\0\x0CJXL "_bytes, 0, "a JPEG XL"},
    {"\xFF\x0A", 0, "a JPEG XL"},
    {"II\xBC\1"_bytes, 0, "a JPEG XR"},
    {"8BPS", 0, "a Photoshop file"},
    {"gimp xcf", 0, "a GIMP file"},
    {"\0\0\1\0"_bytes, 0, "an icon"},
    {"\x76\x2F\x31\x01", 0, "an OpenEXR file"},
};

/// No images at all.
constexpr KnownFile kOtherFiles[] = {
    {"<", 0, "it looks like HTML or XML"},
    {"version https://git-lfs", 0, "it is a Git LFS pointer ('git lfs pull' fetches the file)"},
    {"\0\x05\x16\x07"_bytes, 0, "it is a macOS resource file, not the image itself"},
    {"%PDF", 0, "it is a PDF"},
    {"PK\3\4", 0, "it is a zip archive"},
    {"ftyp", 4, "it is a video"},
    {"\x1A\x45\xDF\xA3", 0, "it is a video"},
    {"AVI ", 8, "it is a video"},
};

/// ISO base media files tell by their brands what they hold: the major one, and those that they
/// are compatible with (ISO/IEC 23008-12, 10; AV1 Image File Format, 8).
std::optional<ImageFormat> sniff_brands(std::span<const std::byte> bytes) {
  if (!has_magic(bytes, "ftyp", 4)) return std::nullopt;
  const auto format_of = [](std::string_view brand) -> std::optional<ImageFormat> {
    if (brand == "avif" || brand == "avis") return ImageFormat::avif;
    for (const std::string_view heic :
         {"heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs"})
      if (brand == heic) return ImageFormat::heic;
    return std::nullopt;
  };
  const std::string_view major = text_at(bytes, 8, 4);
  if (const auto format = format_of(major)) return format;
  if (major != "mif1" && major != "msf1" && major != "mif2" && major != "miaf") return std::nullopt;
  size_t size = 0;
  for (size_t i = 0; i < 4; ++i) size = size << 8U | std::to_integer<size_t>(bytes[i]);
  constexpr size_t kMostBrands = 64;
  for (size_t i = 0, at = 16; i < kMostBrands && at + 4 <= std::min(size, bytes.size());
       ++i, at += 4)
    if (const auto format = format_of(text_at(bytes, at, 4))) return format;
  return ImageFormat::heic;
}

/// "BM" alone begins texts too: the header's size, which follows, has few values.
bool is_bmp(std::span<const std::byte> bytes) {
  if (!has_magic(bytes, "BM")) return false;
  for (const char size : {12, 16, 40, 52, 56, 64, 108, 124})
    if (has_magic(bytes, std::string_view(&size, 1), 14) && has_magic(bytes, "\0\0\0"_bytes, 15))
      return true;
  return false;
}

std::optional<ImageFormat> format_of(std::span<const std::byte> bytes) {
  if (has_magic(bytes, "\xFF\xD8\xFF")) return ImageFormat::jpeg;
  if (has_magic(bytes, "\x89PNG\r\n\x1A\n")) return ImageFormat::png;
  if (has_magic(bytes, "RIFF") && has_magic(bytes, "WEBP", 8)) return ImageFormat::webp;
  if (has_magic(bytes, "GIF87a") || has_magic(bytes, "GIF89a")) return ImageFormat::gif;
  for (const std::string_view magic : {"II*\0"_bytes, "MM\0*"_bytes, "II+\0"_bytes, "MM\0+"_bytes})
    if (has_magic(bytes, magic)) return ImageFormat::tiff;
  if (is_bmp(bytes)) return ImageFormat::bmp;
  return sniff_brands(bytes);
}

const KnownFile* find(std::span<const KnownFile> files, std::span<const std::byte> bytes) {
  for (const KnownFile& known : files)
    if (has_magic(bytes, known.magic, known.at)) return &known;
  return nullptr;
}

}  // namespace

std::string_view format_name(ImageFormat format) {
  for (const Format& known : kFormats)
    if (known.format == format) return known.name;
  return "";
}

std::string format_names() {
  std::string out;
  for (const Format& known : kFormats) {
    if (!out.empty()) out += ", ";
    out += known.name;
  }
  return out;
}

std::optional<ImageFormat> format_of_suffix(std::string_view suffix) {
  if (suffix.empty()) return std::nullopt;
  for (const Format& known : kFormats)
    for (const std::string_view own : known.suffixes)
      if (suffix == own) return known.format;
  return std::nullopt;
}

const UnreadKind* unread_kind(std::string_view suffix) {
  for (const UnreadSuffix& known : kUnread)
    if (known.suffix == suffix) return known.kind;
  return nullptr;
}

bool begins_as_image(std::span<const std::byte> bytes) {
  return find(kOtherFormats, bytes) != nullptr || format_of(bytes).has_value();
}

ImageFormat sniff_format(std::span<const std::byte> bytes, std::string_view name) {
  if (const KnownFile* other = find(kOtherFormats, bytes))
    throw UnsupportedImage(
        fmt::format("{}: not an image that Graft reads ({}): it is {}; convert "
                    "or remove it",
                    name, format_names(), other->what));
  if (const auto format = format_of(bytes)) return *format;
  std::string_view what = "its first bytes belong to none of these";
  if (bytes.empty()) what = "the file is empty";
  if (const KnownFile* other = find(kOtherFiles, bytes)) what = other->what;
  fail(ErrorKind::input, "{}: not an image that Graft reads ({}): {}; replace or remove it", name,
       format_names(), what);
}

}  // namespace graft
