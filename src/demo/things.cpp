#include "demo/things.h"

#include <cmath>
#include <numbers>
#include <vector>

#include "demo/canvas.h"

namespace graft {
namespace {

constexpr double kTurn = 2 * std::numbers::pi;

/// A thing's own coordinates, -1 to 1 each way, placed somewhere on the canvas, turned and scaled.
class Pen {
 public:
  explicit Pen(Canvas& canvas)
      : canvas_(canvas),
        x_(canvas.between(0.4, 0.6)),
        y_(canvas.between(0.4, 0.6)),
        size_(canvas.between(0.22, 0.4)),
        angle_(canvas.between(-0.45, 0.45)) {}

  Canvas& canvas() { return canvas_; }
  double between(double low, double high) { return canvas_.between(low, high); }
  Colour colour() { return {between(20, 235), between(20, 235), between(20, 235)}; }

  void polygon(std::vector<Point> corners, Colour c) {
    for (Point& p : corners) p = place(p);
    canvas_.polygon(corners, c);
  }
  /// An ellipse, or the part of it between two shares of a turn.
  void ellipse(double cx, double cy, double rx, double ry, Colour c, double from = 0,
               double to = 1) {
    constexpr int kSteps = 24;
    std::vector<Point> corners;
    for (int i = 0; i <= kSteps; ++i) {
      const double t = (from + (to - from) * i / kSteps) * kTurn;
      corners.push_back({cx + rx * std::cos(t), cy + ry * std::sin(t)});
    }
    polygon(std::move(corners), c);
  }
  void bar(double x0, double y0, double x1, double y1, double width, Colour c) {
    const double length = std::hypot(x1 - x0, y1 - y0);
    const double dx = -(y1 - y0) / length * width / 2;
    const double dy = (x1 - x0) / length * width / 2;
    polygon({{x0 + dx, y0 + dy}, {x1 + dx, y1 + dy}, {x1 - dx, y1 - dy}, {x0 - dx, y0 - dy}}, c);
  }

 private:
  [[nodiscard]] Point place(Point p) const {
    const double c = std::cos(angle_) * size_;
    const double s = std::sin(angle_) * size_;
    return {x_ + p.x * c - p.y * s, y_ + p.x * s + p.y * c};
  }

  Canvas& canvas_;
  double x_, y_, size_, angle_;
};

void ground(Canvas& c) {
  const auto any = [&] {
    return Colour{c.between(20, 235), c.between(20, 235), c.between(20, 235)};
  };
  c.gradient(0, 1, any(), any());
  const int clutter = 4 + static_cast<int>(c.random().below(10));
  for (int i = 0; i < clutter; ++i) {
    const double x = c.between(0, 1);
    const double y = c.between(0, 1);
    const double r = c.between(0.03, 0.14);
    if (c.random().below(2) == 0)
      c.disc(x, y, r, any());
    else
      c.polygon({{x - r, y + r * c.between(-1, 1)}, {x, y - r}, {x + r, y + r * c.between(-1, 1)}},
                any());
  }
}

void butterfly(Pen& p) {
  const Colour wing = p.colour();
  const Colour spot = p.colour();
  const double upper = p.between(0.4, 0.6);
  for (const double side : {-1.0, 1.0}) {
    p.polygon({{0, 0.05}, {side * 0.35, -upper - 0.35}, {side, -upper - 0.2}, {side * 0.9, 0.05}},
              wing);
    p.ellipse(side * 0.45, 0.42, 0.42, 0.36, wing);
    p.ellipse(side * 0.62, -0.38, 0.17, 0.17, spot);
    p.ellipse(side * 0.45, 0.42, 0.14, 0.14, spot);
    p.bar(0, -0.55, side * 0.25, -0.95, 0.05, p.canvas().around({40, 35, 30}));
  }
  p.ellipse(0, 0, 0.09, 0.65, p.canvas().around({45, 38, 32}));
}

void car(Pen& p) {
  const Colour paint = p.colour();
  const Colour glass = p.canvas().around({170, 195, 210}, 30);
  const double front = p.between(-0.75, -0.5);
  p.polygon({{front, -0.05}, {front + 0.3, -0.5}, {0.45, -0.5}, {0.75, -0.05}}, paint);
  p.polygon({{front + 0.15, -0.08}, {front + 0.36, -0.42}, {0, -0.42}, {0, -0.08}}, glass);
  p.polygon({{0.07, -0.08}, {0.07, -0.42}, {0.4, -0.42}, {0.6, -0.08}}, glass);
  p.polygon({{-1, 0.4}, {-1, 0.05}, {-0.9, -0.07}, {0.95, -0.07}, {1, 0.4}}, paint);
  for (const double x : {-0.58, 0.58}) {
    p.ellipse(x, 0.4, 0.24, 0.24, p.canvas().around({30, 30, 32}));
    p.ellipse(x, 0.4, 0.11, 0.11, p.canvas().around({175, 175, 180}));
  }
}

void cup(Pen& p) {
  const Colour clay = p.colour();
  const double side = p.between(0, 1) < 0.5 ? -1 : 1;
  const double foot = p.between(0.35, 0.5);
  p.ellipse(side * 0.62, 0, 0.36, 0.4, clay);
  p.ellipse(side * 0.62, 0, 0.2, 0.24, p.colour());
  p.polygon({{-0.62, -0.6}, {0.62, -0.6}, {foot, 0.7}, {-foot, 0.7}}, clay);
  p.ellipse(0, -0.6, 0.62, 0.16, p.canvas().around(clay, 40));
  p.ellipse(0, -0.58, 0.5, 0.11, p.canvas().around({80, 50, 30}, 30));
}

void fish(Pen& p) {
  const Colour skin = p.colour();
  const Colour fin = p.colour();
  p.polygon({{0.5, 0}, {1, -0.45}, {0.88, 0}, {1, 0.45}}, fin);
  p.polygon({{-0.25, -0.3}, {0.2, -0.68}, {0.3, -0.25}}, fin);
  p.polygon({{-0.05, 0.3}, {0.2, 0.6}, {0.28, 0.25}}, fin);
  p.ellipse(-0.15, 0, 0.78, p.between(0.34, 0.46), skin);
  for (double x = -0.15; x < 0.4; x += 0.18) p.bar(x, -0.2, x - 0.06, 0.2, 0.04, fin);
  p.ellipse(-0.62, -0.1, 0.1, 0.1, {240, 240, 235});
  p.ellipse(-0.64, -0.1, 0.05, 0.05, {20, 20, 25});
}

void flower(Pen& p) {
  const Colour petal = p.colour();
  const Colour green = p.canvas().around({70, 125, 60}, 40);
  p.bar(0, -0.2, p.between(-0.2, 0.2), 1, 0.09, green);
  p.polygon({{0, 0.75}, {0.3, 0.35}, {0.6, 0.4}, {0.35, 0.62}}, green);
  const int petals = 5 + static_cast<int>(p.between(0, 4));
  for (int i = 0; i < petals; ++i) {
    const double t = kTurn * i / petals;
    p.ellipse(0.4 * std::cos(t), -0.35 + 0.4 * std::sin(t), 0.22, 0.22, petal);
  }
  p.ellipse(0, -0.35, 0.24, 0.24, p.colour());
}

void umbrella(Pen& p) {
  const Colour cloth = p.colour();
  const Colour other = p.colour();
  const Colour stick = p.canvas().around({60, 50, 45}, 25);
  p.bar(0, -0.7, 0, 0.8, 0.07, stick);
  p.ellipse(0.14, 0.78, 0.17, 0.17, stick, 0, 0.5);
  p.ellipse(0, 0, 1, 0.78, cloth, 0.5, 1);
  constexpr int kParts = 4;
  for (int i = 0; i < kParts; i += 2) {
    const double from = -1 + 2.0 * i / kParts;
    p.polygon({{0, -0.78}, {from, 0}, {from + 2.0 / kParts, 0}}, other);
  }
}

}  // namespace

Image draw_thing(size_t kind, uint64_t seed, int size) {
  Random random(seed, kind + 101);
  Canvas canvas(size, random);
  ground(canvas);
  Pen pen(canvas);
  constexpr std::array<void (*)(Pen&), kThingNames.size()> kDraw = {butterfly, car,    cup,
                                                                    fish,      flower, umbrella};
  kDraw.at(kind)(pen);
  return canvas.finish(0.8);
}

}  // namespace graft
