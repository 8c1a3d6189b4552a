// Images: from a file's bytes to the numbers that a network reads.
//
// The only public image type is 8-bit RGB, upright, rows from the top. Everything that depends on
// the weights (size, order of channels, means, scale) is in Preprocessing, which travels with them.
// All functions are thread-safe; bad input throws graft::Error(input) whose message names `name`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#pragma GCC visibility push(default)
namespace graft {

/// 8-bit RGB, interleaved (H, W, 3), values 0–255, no padding between rows.
struct Image {
  int width = 0;
  int height = 0;
  std::vector<uint8_t> pixels;
};

enum class ImageFormat { jpeg, png, webp, heic, avif, gif, tiff, bmp };

/// The format by the file's first bytes (never its extension); throws for anything else.
ImageFormat sniff_format(std::span<const std::byte> bytes, std::string_view name);

struct DecodeLimits {
  /// Width × height allowed, checked from the header before memory is taken.
  int64_t max_pixels = 100'000'000;
  /// Width and height allowed: as much as a JPEG can state (libjpeg reads 65,500).
  int64_t max_side = 65'535;
};

/// Decodes JPEG (grey, YCbCr, RGB, CMYK, YCCK, progressive; accurate inverse DCT), PNG (all colour
/// types, 16 bits reduced to 8), WebP, HEIC, AVIF, GIF, TIFF or BMP; of an animation the first
/// frame, of several pages the first. Transparent pixels are composited on white, ICC profiles and
/// other texts beside the pixels are ignored, and the orientation that the file states is applied.
/// An image counts as damaged where a pixel may be lost, not where what stands after the pixels is.
/// Memory stays below 16 bytes a pixel and the file's size, with one exception (docs/formats.md,
/// "Images, as read"). HEIC, AVIF, GIF, TIFF and BMP are decoded by graft-read-image, a process of
/// its own, without which they throw Error(io).
Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   const DecodeLimits& limits = {});
Image load_image(const std::filesystem::path& path, const DecodeLimits& limits = {});

/// Baseline JPEG, 4:2:0, `quality` 1–100. Throws Error(io) if libjpeg refuses.
std::vector<std::byte> encode_jpeg(const Image& image, int quality);
/// 8-bit RGB PNG, with what wrote it (a "Software" text) where `software` is not empty. Throws
/// Error(io) if libpng refuses.
std::vector<std::byte> encode_png(const Image& image, std::string_view software = {});
/// Whether a file is a PNG that encode_png() made with this `software`.
bool is_png_of(const std::filesystem::path& file, std::string_view software);

/// How images are brought to another size; levels are whole numbers afterwards. All but
/// bilinear_noaa are Pillow's, to the bit.
enum class Resampling {
  nearest,   ///< Image.NEAREST: what Keras' load_img and flow_from_directory do
  bilinear,  ///< Image.BILINEAR: a triangle filter widened when shrinking, i.e. antialiased
  /// Between the four nearest pixels, also when shrinking: tf.image.resize, and with it Keras'
  /// image_dataset_from_directory and Resizing; OpenCV's INTER_LINEAR to a level.
  bilinear_noaa,
  bicubic,  ///< Image.BICUBIC: Keys' kernel with a = -0.5, widened when shrinking
};

/// Throws Error(usage) unless width and height are at least 1 and `pixels` has 3 · W · H bytes. All
/// functions that take an Image do, so that one filled by hand is never read beyond its end.
void check_image(const Image& image);

/// Writes a JPEG (quality 90) or a PNG, by the file's suffix, atomically. Throws Error(io), or
/// Error(usage) for another suffix.
void save_image(const Image& image, const std::filesystem::path& file);

/// Resizes to exactly width × height, without keeping the aspect ratio.
Image resize(const Image& image, int width, int height, Resampling filter);

/// How raw RGB becomes a network's input. Belongs to the weights: it is recorded with them and in
/// every saved model, and is not a choice of the user.
struct Preprocessing {
  bool bgr = false;                     ///< channel order of the input: BGR (Keras' "caffe") or RGB
  std::array<float, 3> scale{1, 1, 1};  ///< x = pixel · scale − shift, in the order of the channels
  std::array<float, 3> shift{0, 0, 0};
  Resampling resampling = Resampling::bilinear;
  /// 0: the image is stretched to the input size. Else torchvision's way: the shorter side is
  /// brought to input · crop_ratio (256/224), and the centre is cut out.
  double crop_ratio = 0;

  bool operator==(const Preprocessing&) const = default;
};

/// Views of an image that a finished model looks at, at most: the image, and its mirror image.
inline constexpr int kMostTestViews = 2;

/// Keras' VGG16 and VGG19: BGR 0–255 minus (103.939, 116.779, 123.68), stretched
/// (keras/src/applications/imagenet_utils.py, mode "caffe").
Preprocessing keras_preprocessing();
/// torchvision: RGB / 255, mean (.485 .456 .406), std (.229 .224 .225), resize 256 and centre crop
/// 224 (torchvision/transforms/_presets.py).
Preprocessing torchvision_preprocessing();
/// RGB / 255 and no more, stretched: a Rescaling(1/255) in front of the network.
Preprocessing unit_preprocessing();
/// RGB / 127.5 − 1, stretched: Keras' preprocess_input in mode "tf".
Preprocessing symmetric_preprocessing();
/// RGB 0–255 as it is, stretched: no step at all in front of the network.
Preprocessing raw_preprocessing();
/// Networks trained from nothing by Graft: torchvision's mean and std, stretched.
Preprocessing scratch_preprocessing();

/// The image at a network's input size: resampled, cropped where the record says so.
Image fit_image(const Image& image, int width, int height, const Preprocessing& preprocessing);

/// Writes (3, H, W) floats of an image that already has the input size.
void to_input(const Image& image, const Preprocessing& preprocessing, float* out);
void to_input(const uint8_t* pixels, int width, int height, const Preprocessing& preprocessing,
              float* out);

}  // namespace graft
#pragma GCC visibility pop
