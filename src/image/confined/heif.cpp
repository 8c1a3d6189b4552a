// HEIC and AVIF by libheif.
#include <libheif/heif.h>

#include <memory>
#include <new>

#include "image/confined/decoders.h"
#include "image/formats.h"

namespace graft::confined {
namespace {

using Context = std::unique_ptr<heif_context, decltype(&heif_context_free)>;
using Handle = std::unique_ptr<heif_image_handle, void (*)(const heif_image_handle*)>;
using Picture = std::unique_ptr<heif_image, void (*)(const heif_image*)>;
using Options = std::unique_ptr<heif_decoding_options, decltype(&heif_decoding_options_free)>;

class Reader {
 public:
  Reader(const EncodedImage& encoded, ImageFormat format) : encoded_(encoded), format_(format) {
    if (!context_) throw std::bad_alloc();
    const auto most = static_cast<int>(encoded.limits.max_side);
    heif_context_set_maximum_image_size_limit(context_.get(), most);
    heif_context_set_max_decoding_threads(context_.get(), 0);  // images are decoded side by side
    require(heif_context_read_from_memory_without_copy(context_.get(), encoded.bytes.data(),
                                                       encoded.bytes.size(), nullptr));
    heif_image_handle* handle = nullptr;
    require(heif_context_get_primary_image_handle(context_.get(), &handle));
    handle_.reset(handle);
  }

  [[nodiscard]] ImageFacts facts() const {
    return {.format = format_,
            .width = heif_image_handle_get_width(handle_.get()),
            .height = heif_image_handle_get_height(handle_.get()),
            .animated = heif_context_get_number_of_top_level_images(context_.get()) > 1};
  }

  void decode(const ImageFacts& facts, Decoded& out) {
    const bool alpha = heif_image_handle_has_alpha_channel(handle_.get()) != 0;
    const Options options(heif_decoding_options_alloc(), heif_decoding_options_free);
    if (!options) throw std::bad_alloc();
    options->convert_hdr_to_8bit = 1;
    heif_image* decoded = nullptr;
    // Turned and mirrored as the file says; its EXIF orientation, which telephones write too, does
    // not count (ISO/IEC 23008-12, A.2.1).
    require(heif_decode_image(handle_.get(), &decoded, heif_colorspace_RGB,
                              alpha ? heif_chroma_interleaved_RGBA : heif_chroma_interleaved_RGB,
                              options.get()));
    const Picture picture(decoded, heif_image_release);
    int stride = 0;
    const uint8_t* plane =
        heif_image_get_plane_readonly(decoded, heif_channel_interleaved, &stride);
    if (plane == nullptr ||
        heif_image_get_width(decoded, heif_channel_interleaved) != facts.width ||
        heif_image_get_height(decoded, heif_channel_interleaved) != facts.height)
      fail("its pixels are not of the size that it states");
    const auto row = static_cast<size_t>(facts.width) * (alpha ? 4 : 3);
    out.image.width = static_cast<int>(facts.width);
    out.image.height = static_cast<int>(facts.height);
    std::vector<uint8_t>& pixels = out.image.pixels;
    pixels.reserve(row * static_cast<size_t>(facts.height));
    for (int64_t y = 0; y < facts.height; ++y, plane += stride)
      pixels.insert(pixels.end(), plane, plane + row);
    if (alpha && heif_image_handle_is_premultiplied_alpha(handle_.get()) != 0)
      composite_multiplied_on_white(pixels);
    else if (alpha)
      composite_on_white(pixels);
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    fail_damaged(encoded_, format_name(format_), why);
  }

  void require(const heif_error& error) const {
    if (error.code == heif_error_Ok) return;
    const std::string_view why = error.message != nullptr ? error.message : "";
    if (error.code == heif_error_Memory_allocation_error) throw std::bad_alloc();
    if (error.code == heif_error_Unsupported_filetype ||
        error.code == heif_error_Unsupported_feature ||
        error.code == heif_error_Plugin_loading_error)
      fail_unsupported(
          encoded_, std::string(format_name(format_)) + " of this kind (" + std::string(why) + ")",
          "convert or remove it");
    fail(why);
  }

  const EncodedImage& encoded_;
  ImageFormat format_;
  Context context_{heif_context_alloc(), heif_context_free};
  Handle handle_{nullptr, heif_image_handle_release};
};

}  // namespace

ImageFacts read_heif(const EncodedImage& encoded, ImageFormat format, Decoded* out) {
  Reader reader(encoded, format);
  const ImageFacts facts = reader.facts();
  if (out == nullptr) return facts;
  allow_pixels(encoded, facts.width, facts.height);
  reader.decode(facts, *out);
  return facts;
}

}  // namespace graft::confined
