// The language of augmentation and what is drawn from it.
#include "image/augment.h"

#include <gtest/gtest.h>

#include <set>

#include "support.h"

namespace graft {
namespace {

TEST(Augment, ReadsItsLanguage) {
  const Augmentation a =
      parse_augmentation("rotate:90 shift:0.5, zoom:0.2 brightness:0.1-0.7 hflip fill:reflect");
  EXPECT_EQ(a.rotate, 90);
  EXPECT_EQ(a.shift_x, 0.5);
  EXPECT_EQ(a.shift_y, 0.5);
  EXPECT_EQ(a.zoom.low, 0.8);
  EXPECT_EQ(a.zoom.high, 1.2);
  EXPECT_EQ(a.brightness.low, 0.1);
  EXPECT_EQ(a.brightness.high, 0.7);
  EXPECT_TRUE(a.hflip);
  EXPECT_FALSE(a.vflip);
  EXPECT_EQ(a.fill, FillMode::reflect);
  EXPECT_TRUE(parse_augmentation("").leaves_images());
  EXPECT_TRUE(parse_augmentation("light none").leaves_images());
  EXPECT_TRUE(parse_augmentation("mixup:0.2").leaves_images());
  EXPECT_FALSE(parse_augmentation("light").leaves_images());
  EXPECT_EQ(parse_augmentation("hflip vflip").flip_views(), 4);
  EXPECT_EQ(parse_augmentation("vflip").flip_views(), 2);
  EXPECT_EQ(parse_augmentation("hflip rotate:1").flip_views(), 0);
}

TEST(Augment, RefusesWhatItDoesNotKnow) {
  for (const char* text :
       {"rotat:3", "rotate", "rotate:x", "rotate:200", "rotate:-3", "hflip:1", "brightness:0.5",
        "brightness:0.7-0.1", "zoom:1.5", "crop:0-1", "fill:mirror", "hue:0.6", "shift:nan",
        "erase:2", "light:1", "mixup:0.2 cutmix:1"})
    EXPECT_ERROR(parse_augmentation(text), ErrorKind::usage, "`augment`");
}

TEST(Augment, DrawsWithinItsLimitsAndAlternatesFlips) {
  const Augmentation a = parse_augmentation(
      "rotate:30 shift-x:0.2 shift-y:12 shear:5 zoom:0.3 brightness:0.5-2 channel:9 hflip vflip "
      "crop:0.2-0.9 jitter:0.4 hue:0.1 erase:0.5");
  std::set<std::string> ids;
  int erased = 0;
  for (int image = 0; image < 50; ++image) {
    std::set<std::pair<bool, bool>> flips;
    for (uint64_t number = 0; number < 4; ++number) {
      const View v = draw_view(a, 7, std::to_string(image), number);
      EXPECT_LE(std::abs(v.theta), 30);
      EXPECT_LE(std::abs(v.shift_x), 0.2);
      EXPECT_EQ(v.shift_y, 0);
      EXPECT_LE(std::abs(v.pixels_y), 12);
      EXPECT_LE(std::abs(v.shear), 5);
      EXPECT_TRUE(v.zoom_x >= 0.7 && v.zoom_x <= 1.3);
      EXPECT_TRUE(v.brightness >= 0.5 && v.brightness <= 2);
      EXPECT_LE(std::abs(v.channel), 9);
      EXPECT_LE(std::abs(v.hue), 0.1);
      const double area = v.crop[2] * v.crop[3];
      EXPECT_TRUE((area >= 0.2 - 1e-9 && area <= 0.9 + 1e-9) || area == 1) << area;
      EXPECT_LE(v.crop[0] + v.crop[2], 1 + 1e-9);
      EXPECT_LE(v.crop[1] + v.crop[3], 1 + 1e-9);
      erased += v.erase[2] > 0 ? 1 : 0;
      flips.emplace(v.hflip, v.vflip);
      ids.insert(v.id());
      EXPECT_EQ(v.id(), draw_view(a, 7, std::to_string(image), number).id());
    }
    EXPECT_EQ(flips.size(), 4U);
  }
  EXPECT_EQ(ids.size(), 200U);
  EXPECT_NEAR(erased, 100, 30);
}

TEST(Augment, TheImageItselfHasNoId) {
  EXPECT_EQ(View().id(), "");
  EXPECT_EQ(draw_view({}, 3, "x", 5).id(), "");
  EXPECT_EQ(draw_view(parse_augmentation("fill:wrap"), 3, "x", 5).id(), "");
  View v;
  v.hflip = true;
  EXPECT_NE(v.id(), "");
}

}  // namespace
}  // namespace graft
