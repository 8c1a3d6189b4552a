#include "image/augment.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "base/hash.h"
#include "base/random.h"

namespace graft {
namespace {

constexpr std::array<uint8_t, 3> kImageNetMean = {124, 117, 104};  // RGB, rounded

uint8_t to_byte(double value) {
  return static_cast<uint8_t>(std::lround(std::clamp(value, 0.0, 255.0)));
}

struct Matrix {  // of homogeneous coordinates (x, y, 1); the last row is 0 0 1
  double xx = 1, xy = 0, x1 = 0;
  double yx = 0, yy = 1, y1 = 0;
};

Matrix operator*(const Matrix& a, const Matrix& b) {
  return {a.xx * b.xx + a.xy * b.yx, a.xx * b.xy + a.xy * b.yy, a.xx * b.x1 + a.xy * b.y1 + a.x1,
          a.yx * b.xx + a.yy * b.yx, a.yx * b.xy + a.yy * b.yy, a.yx * b.x1 + a.yy * b.y1 + a.y1};
}

/// Where a pixel of the view comes from, about the image's middle: rotation, shift, shear, zoom
/// multiplied in this order, as Keras does.
Matrix affine(const View& view, int width, int height) {
  constexpr double kRadians = std::numbers::pi / 180;
  const double cos = std::cos(view.theta * kRadians);
  const double sin = std::sin(view.theta * kRadians);
  const double tx = view.shift_x * width + view.pixels_x;
  const double ty = view.shift_y * height + view.pixels_y;
  const double shear = view.shear * kRadians;
  const double cx = width / 2.0 - 0.5;
  const double cy = height / 2.0 - 0.5;
  return Matrix{1, 0, cx, 0, 1, cy} * Matrix{cos, -sin, 0, sin, cos, 0} *
         Matrix{1, 0, tx, 0, 1, ty} * Matrix{1, -std::sin(shear), 0, 0, std::cos(shear), 0} *
         Matrix{view.zoom_x, 0, 0, 0, view.zoom_y, 0} * Matrix{1, 0, -cx, 0, 1, -cy};
}

/// The index inside [0, size) whose pixel is seen at index `i`.
int extended(int i, int size, FillMode fill) {
  if (i >= 0 && i < size) return i;
  switch (fill) {
    case FillMode::reflect: {  // d c b a | a b c d | d c b a
      const int period = 2 * size;
      i = ((i % period) + period) % period;
      return i < size ? i : period - 1 - i;
    }
    case FillMode::wrap:
      return ((i % size) + size) % size;
    case FillMode::nearest:
    case FillMode::constant:
      break;
  }
  return std::clamp(i, 0, size - 1);
}

Image warp(const Image& image, const Matrix& m, FillMode fill) {
  Image out{image.width, image.height, std::vector<uint8_t>(image.pixels.size())};
  uint8_t* to = out.pixels.data();
  const auto row = static_cast<size_t>(image.width) * 3;
  for (int y = 0; y < image.height; ++y) {
    for (int x = 0; x < image.width; ++x, to += 3) {
      const double sx = m.xx * x + m.xy * y + m.x1;
      const double sy = m.yx * x + m.yy * y + m.y1;
      if (fill == FillMode::constant &&
          (sx < 0 || sy < 0 || sx > image.width - 1 || sy > image.height - 1)) {
        to[0] = to[1] = to[2] = 0;
        continue;
      }
      // Far outside all modes but wrap and reflect are the border; those stay exact up to 2^30.
      const double fx = std::floor(std::clamp(sx, -1e9, 1e9));
      const double fy = std::floor(std::clamp(sy, -1e9, 1e9));
      const auto ax = static_cast<float>(std::clamp(sx, -1e9, 1e9) - fx);
      const auto ay = static_cast<float>(std::clamp(sy, -1e9, 1e9) - fy);
      const int x0 = extended(static_cast<int>(fx), image.width, fill);
      const int x1 = extended(static_cast<int>(fx) + 1, image.width, fill);
      const uint8_t* top = &image.pixels[row * extended(static_cast<int>(fy), image.height, fill)];
      const uint8_t* bottom =
          &image.pixels[row * extended(static_cast<int>(fy) + 1, image.height, fill)];
      for (int c = 0; c < 3; ++c) {
        const float a = static_cast<float>(top[x0 * 3 + c]) * (1 - ax) +
                        static_cast<float>(top[x1 * 3 + c]) * ax;
        const float b = static_cast<float>(bottom[x0 * 3 + c]) * (1 - ax) +
                        static_cast<float>(bottom[x1 * 3 + c]) * ax;
        to[c] = static_cast<uint8_t>(a * (1 - ay) + b * ay + 0.5F);
      }
    }
  }
  return out;
}

void map_bytes(Image& image, const std::array<uint8_t, 256>& table) {
  for (uint8_t& value : image.pixels) value = table[value];
}

void shift_channels(Image& image, double offset) {
  const auto [low, high] = std::minmax_element(image.pixels.begin(), image.pixels.end());
  const double least = *low;
  const double most = *high;
  std::array<uint8_t, 256> table{};
  for (int v = 0; v < 256; ++v) table[v] = to_byte(std::clamp(v + offset, least, most));
  map_bytes(image, table);
}

void scale_bytes(Image& image, double factor) {
  std::array<uint8_t, 256> table{};
  for (int v = 0; v < 256; ++v) table[v] = to_byte(v * factor);
  map_bytes(image, table);
}

void flip_horizontally(Image& image) {
  const auto row = static_cast<size_t>(image.width) * 3;
  for (int y = 0; y < image.height; ++y) {
    uint8_t* line = &image.pixels[row * y];
    for (int left = 0, right = image.width - 1; left < right; ++left, --right)
      std::swap_ranges(line + left * 3, line + left * 3 + 3, line + right * 3);
  }
}

void flip_vertically(Image& image) {
  const auto row = static_cast<long>(image.width) * 3;
  for (int top = 0, bottom = image.height - 1; top < bottom; ++top, --bottom)
    std::swap_ranges(image.pixels.begin() + row * top, image.pixels.begin() + row * (top + 1),
                     image.pixels.begin() + row * bottom);
}

/// ITU-R BT.601 luma, as Pillow's "L".
double grey(const uint8_t* p) { return 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]; }

void change_contrast(Image& image, double factor) {
  double sum = 0;
  for (size_t i = 0; i < image.pixels.size(); i += 3) sum += grey(&image.pixels[i]);
  const double mean = sum * 3 / static_cast<double>(std::max<size_t>(image.pixels.size(), 1));
  std::array<uint8_t, 256> table{};
  for (int v = 0; v < 256; ++v) table[v] = to_byte(mean + (v - mean) * factor);
  map_bytes(image, table);
}

void change_saturation(Image& image, double factor) {
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    uint8_t* p = &image.pixels[i];
    const double base = grey(p);
    for (int c = 0; c < 3; ++c) p[c] = to_byte(base + (p[c] - base) * factor);
  }
}

/// Turns the hue in HSV; `turn` as a share of the circle.
void turn_hue(Image& image, double turn) {
  for (size_t i = 0; i < image.pixels.size(); i += 3) {
    uint8_t* p = &image.pixels[i];
    const double most = std::max({p[0], p[1], p[2]});
    const double chroma = most - std::min({p[0], p[1], p[2]});
    if (chroma == 0) continue;
    double hue = 0;  // in sixths of the circle
    if (most == p[0])
      hue = (p[1] - p[2]) / chroma;
    else if (most == p[1])
      hue = (p[2] - p[0]) / chroma + 2;
    else
      hue = (p[0] - p[1]) / chroma + 4;
    hue += turn * 6;
    constexpr std::array<double, 3> kOffsets = {5, 3, 1};  // of red, green, blue
    for (int c = 0; c < 3; ++c) {
      const double k = std::fmod(std::fmod(kOffsets.at(c) + hue, 6) + 6, 6);
      p[c] = to_byte(most - chroma * std::clamp(std::min(k, 4 - k), 0.0, 1.0));
    }
  }
}

struct Box {
  int left = 0, top = 0, width = 0, height = 0;
};

Box to_pixels(const std::array<double, 4>& share, int width, int height) {
  Box box;
  box.left = std::clamp(static_cast<int>(std::lround(share[0] * width)), 0, width - 1);
  box.top = std::clamp(static_cast<int>(std::lround(share[1] * height)), 0, height - 1);
  box.width = std::clamp(static_cast<int>(std::lround(share[2] * width)), 1, width - box.left);
  box.height = std::clamp(static_cast<int>(std::lround(share[3] * height)), 1, height - box.top);
  return box;
}

bool is_box(const std::array<double, 4>& share) { return share[2] > 0; }

void erase(Image& image, const std::array<double, 4>& share) {
  const Box box = to_pixels(share, image.width, image.height);
  for (int y = box.top; y < box.top + box.height; ++y)
    for (int x = box.left; x < box.left + box.width; ++x)
      std::copy(kImageNetMean.begin(), kImageNetMean.end(),
                &image.pixels[(static_cast<size_t>(y) * image.width + x) * 3]);
}

/// A random box of that share of the area whose aspect is a factor in [1/aspect, aspect] of the
/// whole's; the whole where ten attempts do not fit.
std::array<double, 4> random_box(Random& random, double area_low, double area_high, double aspect) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double area = random.uniform(area_low, area_high);
    const double ratio = std::exp(random.uniform(-std::log(aspect), std::log(aspect)));
    const double width = std::sqrt(area * ratio);
    const double height = std::sqrt(area / ratio);
    const double left = random.uniform();
    const double top = random.uniform();
    if (width <= 1 && height <= 1) return {left * (1 - width), top * (1 - height), width, height};
  }
  return {0, 0, 1, 1};
}

std::string view_text(const View& v) {
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", v.theta, v.shift_x,
                     v.shift_y, v.pixels_x, v.pixels_y, v.shear, v.zoom_x, v.zoom_y, v.channel,
                     v.hflip, v.vflip, v.brightness, static_cast<int>(v.fill),
                     fmt::join(v.crop, " "), fmt::join(v.erase, " "), v.jitter_brightness,
                     v.contrast, v.saturation, v.hue);
}

double symmetric(Random& random, double most) { return random.uniform(-most, most); }

}  // namespace

bool Augmentation::leaves_images() const { return flip_views() == 1; }

int Augmentation::flip_views() const {
  const bool more = rotate != 0 || shift_x != 0 || shift_y != 0 || shear != 0 || zoom.low != 1 ||
                    zoom.high != 1 || brightness.low != 1 || brightness.high != 1 || channel != 0 ||
                    crops() || jitter != 0 || hue != 0 || erase != 0;
  return more ? 0 : (hflip ? 2 : 1) * (vflip ? 2 : 1);
}

std::string View::id() const {
  static const std::string kPlain = view_text(View());
  const std::string text = view_text(*this);
  return text == kPlain ? "" : content_hash(std::as_bytes(std::span(text)));
}

View draw_view(const Augmentation& a, uint64_t seed, const std::string& image, uint64_t number) {
  // Flips come from a stream of their own: number 0 draws them, later ones alternate.
  const std::string name = fmt::format("{} {}", seed, image);
  uint64_t stream = 0;
  for (const char c : name) stream = stream * 0x100000001B3ULL + static_cast<unsigned char>(c);
  Random flips(stream, ~uint64_t{0});
  const bool first_h = flips.uniform() < 0.5;
  const bool first_v = flips.uniform() < 0.5;
  View v;
  v.hflip = a.hflip && first_h != ((number & 1U) != 0);
  v.vflip = a.vflip && first_v != (((a.hflip ? number >> 1U : number) & 1U) != 0);

  // All numbers are drawn whatever the augmentation, so that one word does not change another's.
  Random random(stream, number);
  v.theta = symmetric(random, a.rotate);
  (a.shift_y < 1 ? v.shift_y : v.pixels_y) = symmetric(random, a.shift_y);
  (a.shift_x < 1 ? v.shift_x : v.pixels_x) = symmetric(random, a.shift_x);
  v.shear = symmetric(random, a.shear);
  v.zoom_x = random.uniform(a.zoom.low, a.zoom.high);
  v.zoom_y = random.uniform(a.zoom.low, a.zoom.high);
  v.channel = symmetric(random, a.channel);
  v.brightness = random.uniform(a.brightness.low, a.brightness.high);
  v.jitter_brightness = 1 + symmetric(random, a.jitter);
  v.contrast = 1 + symmetric(random, a.jitter);
  v.saturation = 1 + symmetric(random, a.jitter);
  v.hue = symmetric(random, a.hue);
  const bool erases = random.uniform() < a.erase;
  if (a.crops()) v.crop = random_box(random, a.crop.low, a.crop.high, 4.0 / 3);
  if (erases) v.erase = random_box(random, 0.02, 1.0 / 3, 1 / 0.3);
  // What is never seen does not tell views apart.
  if (a.rotate != 0 || a.shift_x != 0 || a.shift_y != 0 || a.shear != 0 || a.zoom.high > 1)
    v.fill = a.fill;
  return v;
}

Image apply_view(Image image, const View& v) {
  if (v.theta != 0 || v.shift_x != 0 || v.shift_y != 0 || v.pixels_x != 0 || v.pixels_y != 0 ||
      v.shear != 0 || v.zoom_x != 1 || v.zoom_y != 1)
    image = warp(image, affine(v, image.width, image.height), v.fill);
  if (v.channel != 0) shift_channels(image, v.channel);
  if (v.hflip) flip_horizontally(image);
  if (v.vflip) flip_vertically(image);
  if (v.brightness != 1) scale_bytes(image, v.brightness);
  if (v.jitter_brightness != 1) scale_bytes(image, v.jitter_brightness);
  if (v.contrast != 1) change_contrast(image, v.contrast);
  if (v.saturation != 1) change_saturation(image, v.saturation);
  if (v.hue != 0) turn_hue(image, v.hue);
  if (is_box(v.erase)) erase(image, v.erase);
  return image;
}

Image make_view(const Image& image, int width, int height, const Preprocessing& preprocessing,
                const View& view) {
  if (!is_box(view.crop)) return apply_view(fit_image(image, width, height, preprocessing), view);
  const Box box = to_pixels(view.crop, image.width, image.height);
  Image part{box.width, box.height, std::vector<uint8_t>(size_t{3} * box.width * box.height)};
  for (int y = 0; y < box.height; ++y)
    std::copy_n(&image.pixels[(static_cast<size_t>(box.top + y) * image.width + box.left) * 3],
                size_t{3} * box.width, &part.pixels[size_t{3} * box.width * y]);
  return apply_view(resize(part, width, height, preprocessing.resampling), view);
}

}  // namespace graft
