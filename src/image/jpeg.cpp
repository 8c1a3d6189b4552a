// JPEG by libjpeg-turbo.
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>

// jpeglib.h does not include what it uses: after <cstdio>.
#include <jpeglib.h>

#include "image/codecs.h"

namespace graft {
namespace {

constexpr int kExifMarker = JPEG_APP0 + 1;

/// libjpeg reports through callbacks; a fatal one must not return, hence longjmp. Everything with a
/// destructor lives outside the function that calls setjmp.
struct ErrorState {
  jpeg_error_mgr manager{};
  std::jmp_buf jump{};
  std::array<char, JMSG_LENGTH_MAX> message{};
  bool truncated = false;
};

void on_fatal(j_common_ptr info) {
  auto* state = reinterpret_cast<ErrorState*>(info->err);
  info->err->format_message(info, state->message.data());
  std::longjmp(state->jump, 1);
}

void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  // A negative level marks damaged data that libjpeg would paint over in grey. Only a warning about
  // surplus bytes before a marker is harmless (some cameras pad).
  auto* state = reinterpret_cast<ErrorState*>(info->err);
  constexpr int kExtraneousData = 119;  // JWRN_EXTRANEOUS_DATA of jerror.h
  if (info->err->msg_code == kExtraneousData || state->truncated) return;
  info->err->format_message(info, state->message.data());
  state->truncated = true;
}

void on_output(j_common_ptr /*info*/) {}

struct Decoder {
  jpeg_decompress_struct info{};
  ErrorState errors;
  Decoder() {
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = on_fatal;
    errors.manager.emit_message = on_message;
    errors.manager.output_message = on_output;
  }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

// The functions that call setjmp hold no object with a destructor.
bool read_header(Decoder& decoder, std::span<const std::byte> bytes) {
  if (setjmp(decoder.errors.jump) != 0) return false;
  jpeg_create_decompress(&decoder.info);
  jpeg_mem_src(&decoder.info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_save_markers(&decoder.info, kExifMarker, 0xFFFF);
  jpeg_read_header(&decoder.info, TRUE);
  return true;
}

bool read_pixels(Decoder& decoder, uint8_t* pixels, size_t stride) {
  if (setjmp(decoder.errors.jump) != 0) return false;
  jpeg_start_decompress(&decoder.info);
  while (decoder.info.output_scanline < decoder.info.output_height) {
    JSAMPROW row = pixels + stride * decoder.info.output_scanline;
    jpeg_read_scanlines(&decoder.info, &row, 1);
  }
  jpeg_finish_decompress(&decoder.info);
  return true;
}

/// Adobe's CMYK is stored inverted: 255 is no ink. Multiplied, as Pillow does.
void cmyk_to_rgb(const std::vector<uint8_t>& cmyk, bool inverted, std::vector<uint8_t>& rgb) {
  rgb.resize(cmyk.size() / 4 * 3);
  for (size_t i = 0; i < cmyk.size() / 4; ++i) {
    const auto paper = [&](size_t c) -> int {
      return inverted ? cmyk[i * 4 + c] : 255 - cmyk[i * 4 + c];
    };
    for (size_t c = 0; c < 3; ++c)
      rgb[i * 3 + c] = static_cast<uint8_t>((paper(c) * paper(3) + 127) / 255);
  }
}

}  // namespace

ImageFacts probe_jpeg(const EncodedImage& encoded) {
  Decoder decoder;
  if (!read_header(decoder, encoded.bytes))
    fail_damaged(encoded, "JPEG", decoder.errors.message.data());
  const jpeg_decompress_struct& info = decoder.info;
  return {ImageFormat::jpeg,
          info.image_width,
          info.image_height,
          info.jpeg_color_space == JCS_GRAYSCALE,
          info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK,
          false};
}

Decoded decode_jpeg(const EncodedImage& encoded) {
  Decoder decoder;
  const auto damaged = [&] { fail_damaged(encoded, "JPEG", decoder.errors.message.data()); };
  if (!read_header(decoder, encoded.bytes)) damaged();
  jpeg_decompress_struct& info = decoder.info;
  check_dimensions(encoded, info.image_width, info.image_height);

  Decoded decoded;
  for (const jpeg_marker_struct* marker = info.marker_list; marker != nullptr;
       marker = marker->next)
    if (marker->marker == kExifMarker && marker->data_length > 6 &&
        std::memcmp(marker->data, "Exif", 4) == 0) {
      const auto* data = reinterpret_cast<const std::byte*>(marker->data);
      decoded.exif.assign(data, data + marker->data_length);
      break;
    }

  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  info.dct_method = JDCT_ISLOW;  // the accurate one, which every other tool uses
  const size_t channels = cmyk ? 4 : 3;
  const size_t stride = channels * info.image_width;
  std::vector<uint8_t> pixels(stride * info.image_height);
  const int width = static_cast<int>(info.image_width);
  const int height = static_cast<int>(info.image_height);
  if (!read_pixels(decoder, pixels.data(), stride) || decoder.errors.truncated) damaged();

  decoded.image.width = width;
  decoded.image.height = height;
  if (cmyk)
    cmyk_to_rgb(pixels, info.saw_Adobe_marker != 0, decoded.image.pixels);
  else
    decoded.image.pixels = std::move(pixels);
  return decoded;
}

}  // namespace graft
