// Resampling with Pillow's arithmetic (src/libImaging/Resample.c and Geometry.c of version 9.4), so
// that images are the same to the bit: fixed-point coefficients, horizontal pass first, rounding
// between.
#include "image/resample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/fail.h"

namespace graft {
namespace {

// 8 bits of result, 2 bits of headroom for overshoot, of 32 (Pillow's PRECISION_BITS).
constexpr int kPrecisionBits = 32 - 8 - 2;

/// For each output position: where its window begins, and the fixed-point weights of the window.
struct Windows {
  int length = 0;  // weights kept per position
  std::vector<int> first;
  std::vector<int> count;
  std::vector<int> weights;
};

/// A filter as Pillow has it: 0 from `support` on.
struct Filter {
  double support = 0;
  double (*weight)(double distance) = nullptr;  // of a distance >= 0, below the support
};

constexpr Filter kTriangle{1, [](double distance) { return 1 - distance; }};

/// Keys, "Cubic convolution interpolation for digital image processing", 1981.
constexpr Filter kCubic{2, [](double distance) {
                          constexpr double a = -0.5;
                          if (distance < 1)
                            return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
                          return (((distance - 5) * distance + 8) * distance - 4) * a;
                        }};

/// Of `size` positions from `begin` on, out of `out`.
Windows filter_windows(const Filter& filter, int in, int out, int begin, int size) {
  const double scale = static_cast<double>(in) / out;
  const double filter_scale = std::max(scale, 1.0);  // widened when shrinking: antialias
  const double support = filter.support * filter_scale;
  Windows windows;
  windows.length = static_cast<int>(std::ceil(support)) * 2 + 1;
  windows.first.resize(size);
  windows.count.resize(size);
  windows.weights.assign(static_cast<size_t>(size) * windows.length, 0);
  std::vector<double> raw(windows.length);
  for (int x = 0; x < size; ++x) {
    const double center = (begin + x + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int last = std::min(static_cast<int>(center + support + 0.5), in);
    const int count = last - first;
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      const double distance = std::abs((i + first - center + 0.5) / filter_scale);
      raw[i] = distance < filter.support ? filter.weight(distance) : 0.0;
      sum += raw[i];
    }
    for (int i = 0; i < count; ++i) {
      const double weight = sum != 0 ? raw[i] / sum : raw[i];
      windows.weights[static_cast<size_t>(x) * windows.length + i] =
          static_cast<int>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kPrecisionBits));
    }
    windows.first[x] = first;
    windows.count[x] = count;
  }
  return windows;
}

uint8_t clip(int value) {
  return static_cast<uint8_t>(std::clamp(value >> kPrecisionBits, 0, 255));
}

/// One row of the part, from a row of the image.
void resize_row(const uint8_t* row, const Windows& windows, uint8_t* to) {
  const auto width = static_cast<int>(windows.first.size());
  for (int x = 0; x < width; ++x, to += 3) {
    const int* weight = &windows.weights[static_cast<size_t>(x) * windows.length];
    const uint8_t* from = row + size_t{3} * windows.first[x];
    int sum[3] = {1 << (kPrecisionBits - 1), 1 << (kPrecisionBits - 1), 1 << (kPrecisionBits - 1)};
    for (int i = 0; i < windows.count[x]; ++i, from += 3)
      for (int c = 0; c < 3; ++c) sum[c] += from[c] * weight[i];
    for (int c = 0; c < 3; ++c) to[c] = clip(sum[c]);
  }
}

/// The image's rows after the horizontal pass, made when asked for. Only as many as one window of
/// the vertical pass reads are kept: of an image that is narrow and high the pass would otherwise
/// make a hundred times as much.
class NarrowedRows {
 public:
  /// `kept`: the most rows that are asked for before an earlier one is no longer needed.
  NarrowedRows(const Image& image, const Filter& filter, int width, const Part& part, int kept)
      : image_(image), stride_(size_t{3} * part.width), left_(size_t{3} * part.left) {
    if (width == image.width) return;
    windows_ = filter_windows(filter, image.width, width, part.left, part.width);
    kept_ = std::min(kept, image.height);
    rows_.resize(stride_ * kept_);
  }

  /// Rows are asked for in ascending order, or again among the last `kept`.
  const uint8_t* operator()(int y) {
    const uint8_t* row = &image_.pixels[size_t{3} * image_.width * y];
    if (kept_ == 0) return row + left_;
    uint8_t* slot = &rows_[stride_ * (y % kept_)];
    if (y > last_) {
      resize_row(row, windows_, slot);
      last_ = y;
    }
    return slot;
  }

 private:
  const Image& image_;
  size_t stride_;
  size_t left_;
  Windows windows_;
  int kept_ = 0;  // 0: rows stay as they are
  std::vector<uint8_t> rows_;
  int last_ = -1;
};

Image resize_filtered(const Image& image, const Filter& filter, int width, int height,
                      const Part& part) {
  const size_t stride = size_t{3} * part.width;
  Image out{part.width, part.height, std::vector<uint8_t>(stride * part.height)};
  if (height == image.height) {
    NarrowedRows rows(image, filter, width, part, 1);
    for (int y = 0; y < part.height; ++y)
      std::copy_n(rows(part.top + y), stride, &out.pixels[stride * y]);
    return out;
  }
  const Windows windows = filter_windows(filter, image.height, height, part.top, part.height);
  NarrowedRows rows(image, filter, width, part, windows.length);
  std::vector<int> sum(stride);
  for (int y = 0; y < part.height; ++y) {
    const int* weight = &windows.weights[static_cast<size_t>(y) * windows.length];
    std::fill(sum.begin(), sum.end(), 1 << (kPrecisionBits - 1));
    for (int i = 0; i < windows.count[y]; ++i) {
      const uint8_t* from = rows(windows.first[y] + i);
      for (size_t k = 0; k < stride; ++k) sum[k] += from[k] * weight[i];
    }
    uint8_t* to = &out.pixels[stride * y];
    for (size_t k = 0; k < stride; ++k) to[k] = clip(sum[k]);
  }
  return out;
}

/// Positions [begin, begin + size) of `out`, as indices into `in`.
std::vector<int> nearest_positions(int in, int out, int begin, int size) {
  const double step = static_cast<double>(in) / out;
  // Pillow adds the step up instead of multiplying; its rounding errors are part of the result.
  std::vector<int> positions(size);
  double at = step * 0.5;
  for (int x = 0; x < begin; ++x) at += step;
  for (int x = 0; x < size; ++x, at += step) positions[x] = std::min(static_cast<int>(at), in - 1);
  return positions;
}

Image resize_nearest(const Image& image, int width, int height, const Part& part) {
  Image out{part.width, part.height, std::vector<uint8_t>(size_t{3} * part.width * part.height)};
  const std::vector<int> columns = nearest_positions(image.width, width, part.left, part.width);
  const std::vector<int> rows = nearest_positions(image.height, height, part.top, part.height);
  uint8_t* to = out.pixels.data();
  for (const int row : rows) {
    const uint8_t* from = &image.pixels[size_t{3} * image.width * row];
    for (const int column : columns) to = std::copy_n(from + size_t{3} * column, 3, to);
  }
  return out;
}

/// Where a position lies between two pixels.
struct Between {
  int low = 0;
  int high = 0;
  float share = 0;  // of the high one
};

/// Pixels' centres are at half numbers (half_pixel_centers).
std::vector<Between> between_pixels(int in, int out, int begin, int size) {
  const float scale = static_cast<float>(in) / static_cast<float>(out);
  std::vector<Between> places(size);
  for (int x = 0; x < size; ++x) {
    const float at = (static_cast<float>(begin + x) + 0.5F) * scale - 0.5F;
    const float low = std::floor(at);
    places[x] = {std::max(static_cast<int>(low), 0),
                 std::min(static_cast<int>(std::ceil(at)), in - 1), at - low};
  }
  return places;
}

Image resize_between(const Image& image, int width, int height, const Part& part) {
  Image out{part.width, part.height, std::vector<uint8_t>(size_t{3} * part.width * part.height)};
  const std::vector<Between> columns = between_pixels(image.width, width, part.left, part.width);
  uint8_t* to = out.pixels.data();
  for (const Between& y : between_pixels(image.height, height, part.top, part.height)) {
    const uint8_t* above = &image.pixels[size_t{3} * image.width * y.low];
    const uint8_t* below = &image.pixels[size_t{3} * image.width * y.high];
    for (const Between& x : columns)
      for (int c = 0; c < 3; ++c) {
        const auto mix = [&](const uint8_t* row) {
          const float low = row[size_t{3} * x.low + c];
          return low + (static_cast<float>(row[size_t{3} * x.high + c]) - low) * x.share;
        };
        const float high = mix(above);
        *to++ = static_cast<uint8_t>(std::lround(high + (mix(below) - high) * y.share));
      }
  }
  return out;
}

}  // namespace

Image resize_part(const Image& image, int width, int height, const Part& part, Resampling filter) {
  constexpr int kMaxSide = 1 << 30;
  constexpr int64_t kMaxPixels = 1 << 30;  // of what is made of it
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide ||
      int64_t{part.width} * part.height > kMaxPixels)
    fail(ErrorKind::usage, "cannot resize an image to {}x{}; sizes start at 1 and end at {} pixels",
         width, height, kMaxPixels);
  switch (filter) {
    case Resampling::nearest:
      return resize_nearest(image, width, height, part);
    case Resampling::bilinear:
      return resize_filtered(image, kTriangle, width, height, part);
    case Resampling::bilinear_noaa:
      return resize_between(image, width, height, part);
    case Resampling::bicubic:
      return resize_filtered(image, kCubic, width, height, part);
  }
  fail(ErrorKind::usage, "there is no resampling {}", static_cast<int>(filter));
}

Image resize(const Image& image, int width, int height, Resampling filter) {
  check_image(image);
  if (width == image.width && height == image.height) return image;
  return resize_part(image, width, height, {0, 0, width, height}, filter);
}

}  // namespace graft
