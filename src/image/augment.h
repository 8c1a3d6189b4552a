// Augmentation: random variants ("views") of training images.
//
// The language of `--augment`, words separated by blanks or commas. A is a largest amount in both
// directions, and A-B a range, where the table says so; the first block means what the arguments of
// Keras' ImageDataGenerator mean (keras/src/legacy/preprocessing/image.py).
//
//   rotate:A         degrees, from -A to A                             rotation_range
//   shift:A          in both directions; below 1 a share of the size,  width_shift_range and
//                    else pixels of the network's input                height_shift_range
//   shift-x:A        horizontally                                      width_shift_range
//   shift-y:A        vertically                                        height_shift_range
//   shear:A          degrees                                           shear_range
//   zoom:A | A-B     size of the visible part, 1-A to 1+A, for width   zoom_range
//                    and height apart; below 1 enlarges
//   brightness:A-B   factor on all pixels                              brightness_range
//   channel:A        one offset for all channels, within the           channel_shift_range
//                    image's own least and largest value
//   hflip, vflip     in half of the views                              horizontal_flip, …
//   fill:M           what is seen outside of the image: nearest      fill_mode
//                    (default), constant (black), reflect, wrap
//   crop:A-B         a random part of that share of the area, aspect 3/4 to 4/3, resized to the
//                    input (Szegedy et al., 2015; torchvision's RandomResizedCrop)
//   jitter:A         brightness, contrast and saturation, each by a factor from 1-A to 1+A
//   hue:A            turns hues by up to that share of the circle (at most 0.5)
//   erase:P          with probability P one rectangle, 2 to 33 % of the area, aspect 0.3 to 3.3,
//                    becomes the ImageNet mean colour (Zhong et al., "Random erasing", 2020)
//   mixup:A          mixes pairs of samples and targets, share from Beta(A, A) (Zhang et al., 2018)
//   cutmix:A         as mixup, but a rectangle comes from the other sample (Yun et al., 2019)
//
// Presets: none; light = "rotate:10 shift:0.05 zoom:0.1 brightness:0.8-1.2 hflip".
//
// Order: crop or resize, affine (rotate, shift, shear, zoom in one bilinear step), channel, flips,
// brightness (Keras' order), jitter, hue, erase. Pixels are rounded to 8 bits after each.
//
// mixup and cutmix work on what the trainable part reads: the images where everything trains, the
// features at the cut where a prefix is frozen ("Manifold Mixup", Verma et al., 2019).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "graft/image.h"

namespace graft {

enum class FillMode { nearest, constant, reflect, wrap };

struct Range {
  double low = 0;
  double high = 0;
};

/// What may happen to an image. Default-constructed: nothing.
struct Augmentation {
  double rotate = 0;   ///< degrees
  double shift_x = 0;  ///< below 1: share of the width; else pixels
  double shift_y = 0;
  double shear = 0;  ///< degrees
  Range zoom{1, 1};
  Range brightness{1, 1};
  double channel = 0;  ///< 0–255
  bool hflip = false;
  bool vflip = false;
  FillMode fill = FillMode::nearest;
  Range crop{1, 1};  ///< share of the area; {1, 1}: none
  double jitter = 0;
  double hue = 0;
  double erase = 0;   ///< probability
  double mixup = 0;   ///< parameter of the Beta distribution; 0: none
  double cutmix = 0;  ///< likewise

  /// True if images stay as they are (mixup and cutmix mix them afterwards).
  [[nodiscard]] bool leaves_images() const;
  /// Different views that flips alone can give; 0 if there is more to it.
  [[nodiscard]] int flip_views() const;
  /// Needs the image in its own size, not at the network's input size.
  [[nodiscard]] bool crops() const { return crop.low != 1 || crop.high != 1; }
};

/// Throws Error(usage) that names the word.
Augmentation parse_augmentation(std::string_view text);

/// One view's random numbers. Default-constructed: the image itself.
struct View {
  double theta = 0;    ///< degrees
  double shift_x = 0;  ///< share of the width
  double shift_y = 0;
  double pixels_x = 0;  ///< a shift in pixels of the network's input
  double pixels_y = 0;
  double shear = 0;  ///< degrees
  double zoom_x = 1;
  double zoom_y = 1;
  double channel = 0;
  bool hflip = false;
  bool vflip = false;
  double brightness = 1;
  FillMode fill = FillMode::nearest;
  /// Left, top, width, height as shares of the image; all zero: not cropped, or nothing erased.
  std::array<double, 4> crop{};
  std::array<double, 4> erase{};
  double jitter_brightness = 1;
  double contrast = 1;
  double saturation = 1;
  double hue = 0;

  /// Identifies the view: "" for the image itself, else a hash of all numbers.
  [[nodiscard]] std::string id() const;
};

/// View `number` of an image: a function of these values alone, whatever the thread. `image` is
/// the hash of its file. Flips alternate from number to number, so that two views for `hflip` are
/// the image and its mirror image.
View draw_view(const Augmentation& augmentation, uint64_t seed, const std::string& image,
               uint64_t number);

/// A view of a decoded image at the network's input size.
Image make_view(const Image& image, int width, int height, const Preprocessing& preprocessing,
                const View& view);
/// The same for an image that has that size already, all but the crop.
Image apply_view(Image image, const View& view);

}  // namespace graft
