// Images without files; parity/test_images.py compares decoding and resampling with Pillow.
#include "graft/image.h"

#include "base/random.h"
#include "image/codecs.h"
#include "image/metadata.h"
#include "image/resample.h"
#include "support.h"

namespace graft {
namespace {

Image make_image(int width, int height) {
  Image image{width, height, {}};
  for (int i = 0; i < width * height * 3; ++i)
    image.pixels.push_back(static_cast<uint8_t>((i * 37) % 251));
  return image;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(Sniff, SaysWhatAFileIsInstead) {
  EXPECT_EQ(sniff_format(encode_jpeg(make_image(8, 8), 90), "x"), ImageFormat::jpeg);
  for (const auto& [text, what] :
       std::vector<std::pair<std::string_view, const char*>>{{"", "empty"},
                                                             {"8BPS....", "Photoshop"},
                                                             {"<!DOCTYPE html>", "HTML"},
                                                             {"hello", "none"}})
    EXPECT_ERROR(sniff_format(bytes_of(text), "a.jpg"), ErrorKind::input, what);
}

TEST(Image, OneFilledByHandIsCheckedBeforeItIsRead) {
  const std::vector<Image> wrong = {{},
                                    {100, 100, {}},
                                    {100, 100, std::vector<uint8_t>(100)},
                                    {-5, 5, std::vector<uint8_t>(75)},
                                    {2, 2, std::vector<uint8_t>(13)}};
  std::vector<float> input(3 * 100 * 100);
  for (const Image& image : wrong) {
    EXPECT_ERROR(check_image(image), ErrorKind::usage, "3 bytes a pixel");
    EXPECT_ERROR(resize(image, 8, 8, Resampling::bilinear), ErrorKind::usage, "bytes");
    EXPECT_ERROR(fit_image(image, 8, 8, torchvision_preprocessing()), ErrorKind::usage, "bytes");
    EXPECT_ERROR(to_input(image, keras_preprocessing(), input.data()), ErrorKind::usage, "bytes");
    EXPECT_ERROR(encode_png(image), ErrorKind::usage, "bytes");
    EXPECT_ERROR(encode_jpeg(image, 90), ErrorKind::usage, "bytes");
  }
  check_image({2, 2, std::vector<uint8_t>(12)});
}

TEST(Image, IsSavedByItsSuffix) {
  const testing::TemporaryFolder folder;
  const Image image{3, 2, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}};
  save_image(image, folder.path() / "a.png");
  EXPECT_EQ(load_image(folder.path() / "a.png").pixels, image.pixels);
  save_image(image, folder.path() / "a.jpg");
  EXPECT_EQ(load_image(folder.path() / "a.jpg").width, 3);
  EXPECT_ERROR(save_image(image, folder.path() / "a.bmp"), ErrorKind::usage, ".png, .jpg");
}

TEST(Decode, RefusesTooManyPixelsBeforeReadingThem) {
  const std::vector<std::byte> jpeg = encode_jpeg(make_image(40, 30), 90);
  DecodeLimits limits;
  limits.max_pixels = 40 * 30;
  EXPECT_EQ(decode_image(jpeg, "a.jpg", limits).width, 40);
  limits.max_pixels = 40 * 30 - 1;
  EXPECT_ERROR(decode_image(jpeg, "a.jpg", limits), ErrorKind::input, "a.jpg: 40x30");
}

TEST(Decode, TruncatedAtAnyByteIsAnErrorNotACrash) {
  const std::vector<std::byte> jpeg = encode_jpeg(make_image(64, 48), 90);
  for (size_t size = 0; size + 2 < jpeg.size(); size += 13)
    EXPECT_ERROR(decode_image(std::span(jpeg).first(size), "cut.jpg"), ErrorKind::input, "cut.jpg");
}

TEST(Decode, RefusesASideOverTheLimit) {
  DecodeLimits limits;
  limits.max_side = 39;
  EXPECT_ERROR(decode_image(encode_png(make_image(40, 3)), "a.png", limits), ErrorKind::input,
               "a side over the limit of 39");
  EXPECT_ERROR(decode_image(encode_jpeg(make_image(3, 40), 90), "a.jpg", limits), ErrorKind::input,
               "a side over the limit of 39");
}

TEST(Decode, TellsUnsupportedFromDamaged) {
  std::vector<std::byte> jpeg = encode_jpeg(make_image(16, 16), 90);
  size_t frame = 0;
  while (jpeg[frame] != std::byte{0xFF} || jpeg[frame + 1] != std::byte{0xC0}) ++frame;
  jpeg[frame + 4] = std::byte{12};
  EXPECT_THROW(decode_image(jpeg, "deep.jpg"), UnsupportedImage);
  EXPECT_THROW(decode_image(bytes_of("8BPS...."), "a.psd"), UnsupportedImage);
  try {
    decode_image(std::span(jpeg).first(jpeg.size() / 4), "cut.jpg");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(dynamic_cast<const UnsupportedImage*>(&error), nullptr) << error.what();
  }
}

TEST(Decode, FlippedBytesNeverCrash) {
  const std::vector<std::byte> jpeg = encode_jpeg(make_image(32, 32), 80);
  Random random(1);
  for (int k = 0; k < 500; ++k) {
    std::vector<std::byte> bad = jpeg;
    for (int i = 0; i < 4; ++i)
      bad[random.below(bad.size())] = static_cast<std::byte>(random.next());
    try {
      decode_image(bad, "bad.jpg", {10'000});
    } catch (const Error&) {
      // an error is as good as an image
    }
  }
}

TEST(Orientation, AllEight) {
  // 2×3 pixels, numbered row by row; what stands upright for each EXIF value.
  const std::vector<std::pair<int, std::vector<int>>> expected = {
      {1, {0, 1, 2, 3, 4, 5}}, {2, {1, 0, 3, 2, 5, 4}}, {3, {5, 4, 3, 2, 1, 0}},
      {4, {4, 5, 2, 3, 0, 1}}, {5, {0, 2, 4, 1, 3, 5}}, {6, {4, 2, 0, 5, 3, 1}},
      {7, {5, 3, 1, 4, 2, 0}}, {8, {1, 3, 5, 0, 2, 4}}};
  for (const auto& [orientation, order] : expected) {
    Image image{2, 3, {}};
    for (uint8_t i = 0; i < 6; ++i) image.pixels.insert(image.pixels.end(), 3, i);
    const Image out = apply_orientation(image, orientation);
    EXPECT_EQ(out.width, orientation >= 5 ? 3 : 2);
    for (size_t i = 0; i < 6; ++i) EXPECT_EQ(out.pixels[i * 3], order[i]) << orientation;
  }
}

TEST(Orientation, ExifBeforeXmp) {
  EXPECT_EQ(choose_orientation(6, 8), 6);
  EXPECT_EQ(choose_orientation(1, 8), 1);
  EXPECT_EQ(choose_orientation({}, 8), 8);
  EXPECT_EQ(choose_orientation({}, {}), 1);
  const std::string_view tag("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0", 26);
  EXPECT_EQ(exif_orientation(bytes_of(tag)), 6);
  std::string nonsense(tag);
  nonsense[18] = 9;
  EXPECT_EQ(exif_orientation(bytes_of(nonsense)), 1);
  nonsense[10] = 0x0F;  // another tag
  EXPECT_EQ(exif_orientation(bytes_of(nonsense)), std::nullopt);
  for (size_t size = 0; size < tag.size(); ++size) exif_orientation(bytes_of(tag.substr(0, size)));
}

TEST(Orientation, OfXmp) {
  EXPECT_EQ(xmp_orientation("<a tiff:Orientation=\"6\"/>"), 6);
  EXPECT_EQ(xmp_orientation("<a tiff:Orientation = '3'/>"), 3);
  EXPECT_EQ(xmp_orientation("<tiff:Orientation>8</tiff:Orientation>"), 8);
  EXPECT_EQ(xmp_orientation("xmlns:tiff:Orientation tiff:Orientation='2'"), 2);
  for (const char* text : {"", "tiff:Orientation", "tiff:Orientation=", "tiff:Orientation='",
                           "tiff:Orientation='0'", "tiff:Orientation='12'", "tiff:Orientation>"})
    EXPECT_EQ(xmp_orientation(text), std::nullopt) << text;
}

TEST(Preprocess, KerasCaffe) {
  const Image image{1, 1, {10, 20, 30}};
  std::vector<float> out(3);
  to_input(image, keras_preprocessing(), out.data());
  EXPECT_FLOAT_EQ(out[0], 30 - 103.939F);
  EXPECT_FLOAT_EQ(out[1], 20 - 116.779F);
  EXPECT_FLOAT_EQ(out[2], 10 - 123.68F);
}

TEST(Preprocess, Torchvision) {
  const Image image{1, 1, {255, 0, 128}};
  std::vector<float> out(3);
  to_input(image, torchvision_preprocessing(), out.data());
  EXPECT_NEAR(out[0], (1.0 - 0.485) / 0.229, 1e-6);
  EXPECT_NEAR(out[1], -0.456 / 0.224, 1e-6);
  EXPECT_NEAR(out[2], (128 / 255.0 - 0.406) / 0.225, 1e-6);
  // 300×200: the shorter side to 256, then the middle 224×224.
  EXPECT_EQ(fit_image(make_image(300, 200), 224, 224, torchvision_preprocessing()).width, 224);
}

TEST(Preprocess, CropsOfNarrowImagesAreNotMadeWhole) {
  // Resized as a whole this would take 256 × 16,776,960 × 3 bytes.
  const Image fitted = fit_image(make_image(1, 65535), 224, 224, torchvision_preprocessing());
  EXPECT_EQ(fitted.pixels.size(), 224U * 224 * 3);
  EXPECT_ERROR(fit_image(make_image(1, 5'000'000), 224, 224, torchvision_preprocessing()),
               ErrorKind::input, "too narrow");
}

TEST(Resize, APartIsThatPartOfTheWhole) {
  const Image image = make_image(61, 97);
  for (const Resampling filter :
       {Resampling::bilinear, Resampling::nearest, Resampling::bilinear_noaa, Resampling::bicubic})
    for (const auto& [width, height] :
         {std::pair{20, 300}, {200, 30}, {61, 40}, {30, 97}, {61, 97}}) {
      const Image whole = resize(image, width, height, filter);
      const Part part{width / 4, height / 3, width / 2, height / 2};
      const Image cut = resize_part(image, width, height, part, filter);
      for (int y = 0; y < part.height; ++y)
        EXPECT_TRUE(
            std::equal(&cut.pixels[size_t{3} * part.width * y],
                       &cut.pixels[size_t{3} * part.width * y] + size_t{3} * part.width,
                       &whole.pixels[(static_cast<size_t>(part.top + y) * width + part.left) * 3]));
    }
}

TEST(Resize, OfOnePixelAndToOnePixel) {
  EXPECT_EQ(resize(make_image(1, 1), 5, 7, Resampling::bilinear).pixels.size(), 105U);
  EXPECT_EQ(resize(make_image(9, 5), 1, 1, Resampling::bilinear).pixels.size(), 3U);
  EXPECT_EQ(resize(make_image(9, 5), 1, 1, Resampling::nearest).pixels.size(), 3U);
  EXPECT_ERROR(resize(make_image(2, 2), 0, 5, Resampling::nearest), ErrorKind::usage, "0x5");
}

}  // namespace
}  // namespace graft
