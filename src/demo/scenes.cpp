#include "demo/scenes.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "demo/canvas.h"

namespace graft {
namespace {

void sky(Canvas& c, double horizon) {
  c.gradient(0, 1, c.around({120, 120, 115}), c.around({120, 120, 115}));
  const bool grey = c.random().below(3) == 0;
  const Colour top = grey ? Colour{165, 170, 180} : Colour{80, 140, 215};
  const Colour low = grey ? Colour{205, 208, 212} : Colour{190, 215, 240};
  c.gradient(0, horizon + 0.02, c.around(top), c.around(low));
}

void house(Canvas& c, double x0, double x1, double roof, double ground) {
  c.rectangle(x0, roof, x1, ground, c.around({135, 122, 115}, 40));
  const Colour glass = c.around({70, 85, 110}, 30);
  const double cell = c.between(0.045, 0.075);
  for (double y = roof + cell / 2; y + cell / 2 < ground; y += cell)
    for (double x = x0 + cell / 2; x + cell / 2 < x1; x += cell)
      if (c.random().below(6) != 0) c.rectangle(x, y, x + cell * 0.55, y + cell * 0.6, glass);
}

void draw_buildings(Canvas& c) {
  sky(c, 1);
  double x = c.between(-0.1, 0.05);
  while (x < 1) {
    const double width = c.between(0.16, 0.34);
    house(c, x, x + width, c.between(0.08, 0.5), 1);
    x += width + c.between(-0.03, 0.05);
  }
}

void draw_forest(Canvas& c) {
  c.gradient(0, 1, c.around({150, 175, 130}, 30), c.around({45, 70, 35}));
  const int trees = 14 + static_cast<int>(c.random().below(12));
  for (int i = 0; i < trees; ++i) {
    const double x = c.between(0, 1);
    const double base = c.between(0.6, 1.05);
    const double height = c.between(0.4, 0.8);
    const double width = height * c.between(0.12, 0.22);
    c.rectangle(x - 0.012, base - height * 0.3, x + 0.012, base, c.around({75, 55, 40}));
    const Colour leaves = c.around({40, 85, 40}, 28);
    if (c.random().below(3) != 0) {
      for (int k = 0; k < 3; ++k) {
        const double y = base - height * (0.15 + 0.25 * k);
        const double w = width * (1.2 - 0.28 * k);
        c.polygon({{x - w, y}, {x, y - height * 0.38}, {x + w, y}}, leaves);
      }
    } else {
      c.disc(x, base - height * 0.6, width * 1.1, leaves);
    }
  }
}

/// A jagged ridge from the left edge to the right, filled to `bottom`.
std::vector<Point> ridge(Canvas& c, double level, double rough, double bottom) {
  std::vector<Point> line = {{-0.05, bottom}, {-0.05, level}};
  for (double x = 0; x < 1.05; x += c.between(0.05, 0.14))
    line.push_back({x, level + c.between(-rough, rough)});
  line.push_back({1.05, level});
  line.push_back({1.05, bottom});
  return line;
}

void draw_glacier(Canvas& c) {
  const double horizon = c.between(0.25, 0.45);
  sky(c, 1);
  c.polygon(ridge(c, horizon, 0.08, 1), c.around({95, 100, 110}));
  c.polygon(ridge(c, horizon + 0.12, 0.06, 1), c.around({215, 228, 240}));
  const int cracks = 10 + static_cast<int>(c.random().below(12));
  for (int i = 0; i < cracks; ++i) {
    const double x = c.between(0, 1);
    const double y = c.between(horizon + 0.2, 1);
    const double length = c.between(0.08, 0.3);
    const double tilt = c.between(-0.06, 0.06);
    c.polygon({{x, y}, {x + length, y + tilt}, {x + length, y + tilt + 0.02}, {x, y + 0.035}},
              c.around({120, 170, 205}, 25));
  }
  if (c.random().below(2) == 0)
    c.gradient(c.between(0.86, 0.92), 1, c.around({90, 140, 165}), c.around({70, 110, 135}));
}

void draw_mountain(Canvas& c) {
  sky(c, 1);
  const int peaks = 2 + static_cast<int>(c.random().below(3));
  for (int i = 0; i < peaks; ++i) {
    const double x = c.between(0.1, 0.9);
    const double top = c.between(0.12, 0.4);
    const double half = c.between(0.3, 0.55);
    c.polygon({{x - half, 0.95}, {x, top}, {x + half, 0.95}}, c.around({112, 98, 88}, 25));
    c.polygon({{x, top}, {x + half, 0.95}, {x + half * 0.15, 0.95}}, c.around({82, 72, 68}));
    const double snow = c.between(0.15, 0.35);
    const double y = top + (0.95 - top) * snow;
    c.polygon({{x - half * snow, y},
               {x, top},
               {x + half * snow, y},
               {x + half * snow * 0.3, y - 0.03},
               {x, y + 0.03},
               {x - half * snow * 0.4, y - 0.02}},
              c.around({236, 238, 242}, 8));
  }
  // Meadow, scree, or a snow field that could be a glacier's.
  constexpr std::array<Colour, 3> kForeground = {{{70, 95, 55}, {120, 112, 104}, {215, 226, 236}}};
  c.polygon(ridge(c, c.between(0.7, 0.88), 0.04, 1),
            c.around(kForeground.at(c.random().below(3)), 25));
}

void draw_sea(Canvas& c) {
  const double horizon = c.between(0.3, 0.55);
  sky(c, horizon);
  if (c.random().below(2) == 0)
    c.disc(c.between(0.1, 0.9), horizon - c.between(0.05, 0.2), c.between(0.04, 0.08),
           c.around({250, 235, 190}, 8));
  if (c.random().below(3) == 0)  // a far coast
    c.polygon(ridge(c, horizon - 0.06, 0.05, horizon + 0.02), c.around({110, 110, 115}, 30));
  c.gradient(horizon, 1, c.around({60, 115, 165}), c.around({25, 70, 110}));
  const int waves = 18 + static_cast<int>(c.random().below(16));
  for (int i = 0; i < waves; ++i) {
    const double y = horizon + (1 - horizon) * std::pow(c.between(0.02, 1), 1.3);
    const double length = c.between(0.05, 0.3) * (0.3 + y);
    const double x = c.between(-0.1, 1);
    c.polygon({{x, y}, {x + length / 2, y - 0.012}, {x + length, y}, {x + length / 2, y + 0.006}},
              c.around({175, 205, 220}, 30));
  }
  if (c.random().below(3) == 0)
    c.polygon(ridge(c, c.between(0.85, 0.93), 0.015, 1), c.around({205, 185, 145}));
}

void draw_street(Canvas& c) {
  const double horizon = c.between(0.35, 0.5);
  const double middle = c.between(0.4, 0.6);
  sky(c, horizon);
  for (const double side : {-1.0, 1.0}) {
    double near = side < 0 ? 0.0 : 1.0;
    for (int i = 0; i < 3; ++i) {
      const double far = near + (middle - near) * c.between(0.35, 0.55);
      house(c, std::min(near, far), std::max(near, far), horizon * c.between(0.1, 0.7),
            horizon + (1 - horizon) * 0.55 * (1 - static_cast<double>(i) / 3));
      near = far;
    }
  }
  c.polygon(
      {{middle - 0.04, horizon + 0.04}, {middle + 0.04, horizon + 0.04}, {1.25, 1}, {-0.25, 1}},
      c.around({150, 146, 140}));
  c.polygon(
      {{middle - 0.03, horizon + 0.04}, {middle + 0.03, horizon + 0.04}, {1.02, 1}, {-0.02, 1}},
      c.around({84, 84, 88}));
  for (double t = 0.08; t < 1; t += 0.24) {
    const double y0 = horizon + (1 - horizon) * t * t;
    const double y1 = horizon + (1 - horizon) * std::pow(t + 0.11, 2);
    c.polygon({{middle - 0.004 - 0.012 * t, y0},
               {middle + 0.004 + 0.012 * t, y0},
               {middle + 0.006 + 0.018 * t, y1},
               {middle - 0.006 - 0.018 * t, y1}},
              c.around({230, 225, 205}, 10));
  }
  const int cars = static_cast<int>(c.random().below(4));
  for (int i = 0; i < cars; ++i) {
    const double y = c.between(horizon + 0.15, 0.85);
    const double scale = (y - horizon) * 0.5;
    const double x = middle + (c.random().below(2) == 0 ? -1 : 1) * scale * c.between(0.5, 0.9);
    const Colour paint = {c.between(30, 220), c.between(30, 120), c.between(30, 160)};
    c.rectangle(x - scale * 0.35, y - scale * 0.4, x + scale * 0.35, y, paint);
    c.rectangle(x - scale * 0.28, y - scale * 0.36, x + scale * 0.28, y - scale * 0.2,
                {60, 70, 85});
  }
}

}  // namespace

Image draw_scene(size_t kind, uint64_t seed, int size) {
  Random random(seed, kind + 1);
  Canvas canvas(size, random);
  constexpr std::array<void (*)(Canvas&), kSceneNames.size()> kDraw = {
      draw_buildings, draw_forest, draw_glacier, draw_mountain, draw_sea, draw_street};
  kDraw.at(kind)(canvas);
  return canvas.finish(0.45);
}

}  // namespace graft
