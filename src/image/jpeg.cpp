// JPEG by libjpeg-turbo.
#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

// jpeglib.h does not include what it uses: after <cstdio>.
#include <jpeglib.h>
// Without JMESSAGE it defines the codes of all messages.
#include <jerror.h>

#include "base/fail.h"
#include "image/codecs.h"
#include "image/metadata.h"

namespace graft {
namespace {

constexpr int kApp1 = 0xE1;
constexpr std::string_view kExifPrefix("Exif\0", 5);
constexpr std::string_view kXmpPrefix("http://ns.adobe.com/xap/1.0/\0", 29);

// Each scan passes over all pixels, whatever it holds: a few hundred kilobytes of scans that hold
// nothing keep a processor busy for minutes. Encoders write up to some 20 scans. More are read as
// long as scans times pixels stays below what takes about two seconds.
constexpr int kPlainScans = 30;
constexpr int64_t kMaxScanPixels = 200'000'000;

/// libjpeg reports through callbacks; a fatal one must not return, hence longjmp. Everything with a
/// destructor lives outside the function that calls setjmp.
struct ErrorState {
  jpeg_error_mgr manager{};
  std::jmp_buf jump{};
  std::array<char, JMSG_LENGTH_MAX> message{};
  bool ended_early = false;     // there was no end marker
  bool too_many_scans = false;  // the reason for stopping
};

void on_fatal(j_common_ptr info) {
  auto* state = reinterpret_cast<ErrorState*>(info->err);
  info->err->format_message(info, state->message.data());
  std::longjmp(state->jump, 1);
}

/// A negative level is a warning. Most mark pixels that libjpeg would paint over in grey; others
/// are about what does not reach the pixels.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:  // surplus bytes before a marker: some cameras pad
    case JWRN_NOT_SEQUENTIAL:   // Ss, Se, Ah, Al, which a sequential scan does not use
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_BOGUS_ICC:
      return;
    case JWRN_JPEG_EOF:  // harmless if all blocks came before it, else another warning follows
      reinterpret_cast<ErrorState*>(info->err)->ended_early = true;
      return;
    default:
      on_fatal(info);
  }
}

void on_output(j_common_ptr /*info*/) {}

void limit_scans(j_common_ptr common) {
  const auto* info = reinterpret_cast<j_decompress_ptr>(common);
  const int64_t pixels = int64_t{info->image_width} * info->image_height;
  if (info->input_scan_number <= kPlainScans || info->input_scan_number * pixels <= kMaxScanPixels)
    return;
  auto* state = reinterpret_cast<ErrorState*>(common->err);
  state->too_many_scans = true;
  std::longjmp(state->jump, 1);
}

struct Decoder {
  jpeg_decompress_struct info{};
  ErrorState errors;
  jpeg_progress_mgr progress{};
  Decoder() {
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = on_fatal;
    errors.manager.emit_message = on_message;
    errors.manager.output_message = on_output;
    progress.progress_monitor = limit_scans;
  }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

// The functions that call setjmp hold no object with a destructor.
bool read_header(Decoder& decoder, std::span<const std::byte> bytes) {
  if (setjmp(decoder.errors.jump) != 0) return false;
  jpeg_create_decompress(&decoder.info);
  decoder.info.progress = &decoder.progress;
  jpeg_mem_src(&decoder.info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&decoder.info, TRUE);
  return true;
}

/// What stands after the last row is not looked at.
bool read_pixels(Decoder& decoder, uint8_t* pixels, size_t stride) {
  if (setjmp(decoder.errors.jump) != 0) return false;
  jpeg_start_decompress(&decoder.info);
  while (decoder.info.output_scanline < decoder.info.output_height) {
    JSAMPROW row = pixels + stride * decoder.info.output_scanline;
    jpeg_read_scanlines(&decoder.info, &row, 1);
  }
  return true;
}

/// What libjpeg does not decode although nothing is wrong with the file; nullopt for damage.
std::optional<std::string> unsupported(const jpeg_error_mgr& error) {
  const int parameter = error.msg_parm.i[0];
  switch (error.msg_code) {
    case JERR_BAD_PRECISION:
      return fmt::format("JPEG with {} bits a channel", parameter);
    case JERR_SOF_UNSUPPORTED:  // ITU-T T.81, table B.1
      if (parameter == 0xC3 || parameter == 0xCB) return "lossless JPEG";
      return "hierarchical JPEG";
    case JERR_UNKNOWN_MARKER:
      if (parameter == 0xF7) return "JPEG-LS";
      return std::nullopt;
    case JERR_ARITH_NOTIMPL:
      return "arithmetic-coded JPEG";
    case JERR_IMAGE_TOO_BIG:
      return fmt::format("JPEG of over {} pixels a side", parameter);
    case JERR_EMPTY_IMAGE:
      return "JPEG whose height stands after its pixels (DNL)";
    case JERR_CONVERSION_NOTIMPL:
    case JERR_CCIR601_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_NOTIMPL:
      return "JPEG of this colour space or sampling";
    default:
      return std::nullopt;
  }
}

[[noreturn]] void fail_decoding(const EncodedImage& encoded, const Decoder& decoder) {
  if (decoder.errors.too_many_scans)
    fail(ErrorKind::input,
         "{}: a JPEG of more than {} scans over {}x{} pixels would take too long; save it again "
         "without them",
         encoded.name, decoder.info.input_scan_number - 1, decoder.info.image_width,
         decoder.info.image_height);
  if (const std::optional<std::string> what = unsupported(decoder.errors.manager))
    fail_unsupported(encoded, *what, "save it as an ordinary 8-bit JPEG or a PNG, or remove it");
  fail_damaged(encoded, "JPEG", decoder.errors.message.data());
}

/// Whether data that came to an end without the marker for it left blocks undecoded of which
/// libjpeg does not warn.
bool lacks_data(const jpeg_decompress_struct& info) {
  for (int c = 0; c < info.num_components; ++c) {
    // Taken over when a component's first scan starts.
    if (info.comp_info[c].quant_table == nullptr) return true;
  }
  // A decoder of arithmetic codes reads zeros after the end.
  if (info.arith_code != 0) return true;
  if (info.progressive_mode == 0) return false;
  for (int c = 0; c < info.num_components; ++c)
    for (int k = 0; k < DCTSIZE2; ++k)
      if (info.coef_bits[c][k] != 0) return true;  // not sent, or not to the last bit
  return false;
}

/// The APP1 segments in front of the image, as they lie in the file: libjpeg would keep a copy of
/// each, and there may be as many as a file has room for.
std::vector<std::string_view> app1_segments(std::span<const std::byte> bytes) {
  const std::string_view file(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto byte = [&](size_t at) { return static_cast<unsigned char>(file[at]); };
  std::vector<std::string_view> out;
  // ITU-T T.81, B.1.1: FF, the marker, a length of two bytes that counts itself.
  for (size_t at = 2;
       (at = file.find('\xFF', at)) != std::string_view::npos && at + 4 <= file.size();) {
    const unsigned marker = byte(at + 1);
    constexpr unsigned kSos = 0xDA;
    constexpr unsigned kEoi = 0xD9;
    if (marker == kSos || marker == kEoi) break;
    if (marker == 0xFF || marker == 0) {  // a fill byte; no marker
      ++at;
      continue;
    }
    const bool alone = marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8);
    const size_t length = alone ? 0 : byte(at + 2) << 8U | byte(at + 3);
    if (marker == kApp1 && length > 2) out.push_back(file.substr(at + 4, length - 2));
    at += 2 + length;
  }
  return out;
}

int read_orientation(std::span<const std::byte> bytes) {
  std::optional<int> exif;
  std::optional<int> xmp;
  bool seen_exif = false;
  for (const std::string_view data : app1_segments(bytes)) {
    if (data.starts_with(kExifPrefix) && !std::exchange(seen_exif, true))
      exif = exif_orientation(std::as_bytes(std::span(data)));
    if (data.starts_with(kXmpPrefix) && !xmp) xmp = xmp_orientation(data);
  }
  return choose_orientation(exif, xmp);
}

/// Adobe's CMYK is stored inverted: 255 is no ink. Multiplied, as Pillow does. In place.
void cmyk_to_rgb(std::vector<uint8_t>& pixels, bool inverted) {
  const size_t count = pixels.size() / 4;
  for (size_t i = 0; i < count; ++i) {
    const auto paper = [&](size_t c) -> int {
      return inverted ? pixels[i * 4 + c] : 255 - pixels[i * 4 + c];
    };
    const int key = paper(3);
    for (size_t c = 0; c < 3; ++c)
      pixels[i * 3 + c] = static_cast<uint8_t>((paper(c) * key + 127) / 255);
  }
  pixels.resize(count * 3);
}

bool is_cmyk(const jpeg_decompress_struct& info) {
  return info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
}

}  // namespace

ImageFacts probe_jpeg(const EncodedImage& encoded) {
  Decoder decoder;
  if (!read_header(decoder, encoded.bytes)) fail_decoding(encoded, decoder);
  const jpeg_decompress_struct& info = decoder.info;
  return {.format = ImageFormat::jpeg,
          .width = info.image_width,
          .height = info.image_height,
          .grey = info.jpeg_color_space == JCS_GRAYSCALE,
          .cmyk = is_cmyk(info)};
}

Decoded decode_jpeg(const EncodedImage& encoded) {
  Decoder decoder;
  if (!read_header(decoder, encoded.bytes)) fail_decoding(encoded, decoder);
  jpeg_decompress_struct& info = decoder.info;
  check_dimensions(encoded, info.image_width, info.image_height);

  const bool cmyk = is_cmyk(info);
  info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  info.dct_method = JDCT_ISLOW;  // the accurate one, which every other tool uses
  const size_t stride = size_t{cmyk ? 4U : 3U} * info.image_width;
  Decoded decoded;
  decoded.image.width = static_cast<int>(info.image_width);
  decoded.image.height = static_cast<int>(info.image_height);
  decoded.image.pixels.resize(stride * info.image_height);
  if (!read_pixels(decoder, decoded.image.pixels.data(), stride)) fail_decoding(encoded, decoder);
  if (decoder.errors.ended_early && lacks_data(info))
    fail_damaged(encoded, "JPEG", "it ends too early");
  if (cmyk) cmyk_to_rgb(decoded.image.pixels, info.saw_Adobe_marker != 0);
  decoded.orientation = read_orientation(encoded.bytes);
  return decoded;
}

}  // namespace graft
