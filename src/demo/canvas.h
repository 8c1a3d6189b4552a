// A surface for procedural images.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/random.h"
#include "graft/image.h"

namespace graft {

struct Colour {
  double r, g, b;
};

inline Colour mix(Colour a, Colour b, double t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

struct Point {
  double x, y;
};

/// An image under construction; coordinates run from 0 to 1, y downwards.
class Canvas {
 public:
  Canvas(int size, Random& random)
      : size_(size), random_(random), pixels_(static_cast<size_t>(size) * size, {0, 0, 0}) {}

  Random& random() { return random_; }
  double between(double low, double high) { return random_.uniform(low, high); }
  /// The colour, a little off.
  Colour around(Colour c, double spread = 18) {
    const double shade = between(-spread, spread);
    return {c.r + shade + between(-6, 6), c.g + shade + between(-6, 6),
            c.b + shade + between(-6, 6)};
  }

  void gradient(double top, double bottom, Colour from, Colour to) {
    for (int y = at(top); y < at(bottom); ++y) {
      const double t = (static_cast<double>(y) / size_ - top) / std::max(bottom - top, 1e-6);
      for (int x = 0; x < size_; ++x) pixel(x, y) = mix(from, to, t);
    }
  }

  void rectangle(double x0, double y0, double x1, double y1, Colour c) {
    polygon({{x0, y0}, {x1, y0}, {x1, y1}, {x0, y1}}, c);
  }

  /// Even-odd fill by scan lines.
  void polygon(const std::vector<Point>& corners, Colour c) {
    for (int y = 0; y < size_; ++y) {
      const double line = (y + 0.5) / size_;
      std::vector<double> crossings;
      for (size_t i = 0; i < corners.size(); ++i) {
        const Point& a = corners[i];
        const Point& b = corners[(i + 1) % corners.size()];
        if ((a.y <= line) != (b.y <= line))
          crossings.push_back(a.x + (line - a.y) / (b.y - a.y) * (b.x - a.x));
      }
      std::sort(crossings.begin(), crossings.end());
      for (size_t k = 0; k + 1 < crossings.size(); k += 2)
        for (int x = std::max(at(crossings[k]), 0); x < std::min(at(crossings[k + 1]), size_); ++x)
          pixel(x, y) = c;
    }
  }

  void disc(double cx, double cy, double radius, Colour c) {
    for (int y = 0; y < size_; ++y)
      for (int x = 0; x < size_; ++x)
        if (std::hypot((x + 0.5) / size_ - cx, (y + 0.5) / size_ - cy) < radius) pixel(x, y) = c;
  }

  /// Framing, light, haze, grain and mirroring that differ from image to image. At least the
  /// share `least` of the canvas is shown, each way.
  Image finish(double least) {
    const double window = between(least, 1);
    const double left = between(0, 1 - window);
    const double top = between(0, 1 - window);
    const double gain = between(0.6, 1.25);
    const Colour cast = {between(-25, 25), between(-25, 25), between(-25, 25)};
    const Colour haze = {between(90, 210), between(90, 210), between(90, 210)};
    const double density = std::pow(between(0, 0.9), 2);
    const double grain = between(4, 26);
    const bool mirrored = random_.below(2) == 1;
    Image image{size_, size_, {}};
    image.pixels.reserve(pixels_.size() * 3);
    for (int y = 0; y < size_; ++y)
      for (int x = 0; x < size_; ++x) {
        const int column = static_cast<int>(left * size_ + (mirrored ? size_ - 1 - x : x) * window);
        const Colour c =
            mix(pixel(column, static_cast<int>(top * size_ + y * window)), haze, density);
        const double noise = random_.normal() * grain;
        for (const double v : {c.r * gain + cast.r, c.g * gain + cast.g, c.b * gain + cast.b})
          image.pixels.push_back(static_cast<uint8_t>(std::clamp(v + noise, 0.0, 255.0)));
      }
    return image;
  }

 private:
  [[nodiscard]] int at(double v) const {
    return static_cast<int>(std::lround(std::clamp(v, -1.0, 2.0) * size_));
  }
  Colour& pixel(int x, int y) {
    return pixels_[static_cast<size_t>(std::clamp(y, 0, size_ - 1)) * size_ +
                   std::clamp(x, 0, size_ - 1)];
  }

  int size_;
  Random& random_;
  std::vector<Colour> pixels_;
};

}  // namespace graft
