#include "graft/image.h"

#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>

// jpeglib.h does not include what it uses: after <cstdio>.
#include <jpeglib.h>

#include "base/fail.h"
#include "base/file.h"

namespace graft {
namespace {

struct Encoder {
  jpeg_compress_struct info{};
  jpeg_error_mgr manager{};
  std::jmp_buf jump{};
  unsigned char* bytes = nullptr;
  unsigned long size = 0;

  Encoder() {
    info.err = jpeg_std_error(&manager);
    info.client_data = this;
    manager.error_exit = [](j_common_ptr common) {
      std::longjmp(static_cast<Encoder*>(common->client_data)->jump, 1);
    };
  }
  ~Encoder() {
    jpeg_destroy_compress(&info);
    std::free(bytes);  // NOLINT(cppcoreguidelines-no-malloc): libjpeg's own malloc
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
};

// Holds no object with a destructor, as setjmp demands.
bool encode(Encoder& encoder, const Image& image, int quality) {
  if (setjmp(encoder.jump) != 0) return false;
  jpeg_compress_struct& info = encoder.info;
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, &encoder.bytes, &encoder.size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    // The signature lacks const; rows are only read.
    auto* row = const_cast<uint8_t*>(&image.pixels[size_t{3} * image.width * info.next_scanline]);
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  return true;
}

}  // namespace

std::vector<std::byte> encode_jpeg(const Image& image, int quality) {
  check_image(image);
  Encoder encoder;
  if (!encode(encoder, image, quality)) fail(ErrorKind::io, "libjpeg cannot encode an image");
  const auto* first = reinterpret_cast<const std::byte*>(encoder.bytes);
  return {first, first + encoder.size};
}

void save_image(const Image& image, const std::filesystem::path& file) {
  constexpr int kQuality = 90;
  const std::string suffix = file.extension().string();
  std::vector<std::byte> bytes;
  if (suffix == ".png")
    bytes = encode_png(image);
  else if (suffix == ".jpg" || suffix == ".jpeg")
    bytes = encode_jpeg(image, kQuality);
  else
    fail(ErrorKind::usage, "{}: images are written as .png, .jpg or .jpeg", printable(file));
  write_file_atomic(file, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

}  // namespace graft
