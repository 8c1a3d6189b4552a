#include "report/figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace graft {
namespace {

/// Share of the true class's images, 0–1.
double share(const Metrics& metrics, size_t row, size_t column) {
  int64_t total = 0;
  for (const int64_t count : metrics.confusion[row]) total += count;
  return total > 0
             ? static_cast<double>(metrics.confusion[row][column]) / static_cast<double>(total)
             : 0;
}

}  // namespace

Image confusion_image(const Metrics& metrics, int cell) {
  const auto n = static_cast<int>(metrics.confusion.size());
  Image image{n * cell, n * cell, std::vector<uint8_t>(size_t{3} * n * cell * n * cell, 255)};
  for (int y = 0; y < image.height; ++y)
    for (int x = 0; x < image.width; ++x) {
      if (x % cell == cell - 1 || y % cell == cell - 1) continue;  // white lines between cells
      const auto left = static_cast<float>(1 - share(metrics, y / cell, x / cell));
      uint8_t* pixel = &image.pixels[(static_cast<size_t>(y) * image.width + x) * 3];
      // From white to #08306b.
      pixel[0] = static_cast<uint8_t>(8 + left * 240);
      pixel[1] = static_cast<uint8_t>(48 + left * 200);
      pixel[2] = static_cast<uint8_t>(107 + left * 143);
    }
  return image;
}

std::string reliability_svg(const Metrics& metrics) {
  constexpr int kSize = 300;
  constexpr int kLeft = 48;
  constexpr int kTop = 14;
  const auto x = [&](double v) { return kLeft + v * kSize; };
  const auto y = [&](double v) { return kTop + (1 - v) * kSize; };
  std::string svg = fmt::format(
      "<svg viewBox=\"0 0 {} {}\" width=\"{}\" role=\"img\" aria-label=\"Reliability "
      "diagram\"><title>Reliability diagram</title><desc>Accuracy over confidence; expected "
      "calibration error {:.4f}.</desc>\n<g font-family=\"system-ui,sans-serif\" "
      "font-size=\"13\" fill=\"currentColor\">\n",
      kLeft + kSize + 16, kTop + kSize + 52, kLeft + kSize + 16, metrics.ece);
  for (int tick = 0; tick <= 5; ++tick) {
    const double v = tick / 5.0;
    svg += fmt::format(
        "<path d=\"M{0:.1f} {1}V{2}M{3} {4:.1f}H{5}\" stroke=\"currentColor\" "
        "stroke-opacity=\".15\"/><text x=\"{0:.1f}\" y=\"{6}\" text-anchor=\"middle\">{7}</text>"
        "<text x=\"{8}\" y=\"{9:.1f}\" text-anchor=\"end\">{7}</text>\n",
        x(v), kTop, kTop + kSize, kLeft, y(v), kLeft + kSize, kTop + kSize + 18, v, kLeft - 6,
        y(v) + 4);
  }
  const double width = 1.0 / static_cast<double>(metrics.reliability.size());
  int64_t most = 1;
  for (const ReliabilityBin& bin : metrics.reliability) most = std::max(most, bin.count);
  for (size_t i = 0; i < metrics.reliability.size(); ++i) {
    const ReliabilityBin& bin = metrics.reliability[i];
    if (bin.count == 0) continue;
    svg += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"var(--accent)\" "
        "fill-opacity=\"{:.2f}\"><title>{} images, confidence {:.3f}, accuracy {:.3f}</title>"
        "</rect>\n",
        x(static_cast<double>(i) * width) + 1, y(bin.accuracy), width * kSize - 2,
        bin.accuracy * kSize,
        0.3 + 0.7 * std::sqrt(static_cast<double>(bin.count) / static_cast<double>(most)),
        bin.count, bin.confidence, bin.accuracy);
  }
  svg += fmt::format(
      "<path d=\"M{} {}L{} {}\" stroke=\"#d55e00\" stroke-dasharray=\"5 4\" fill=\"none\"/>\n"
      "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">confidence</text>\n"
      "<text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">accuracy</text>\n",
      x(0), y(0), x(1), y(1), x(0.5), kTop + kSize + 40, y(0.5));
  return svg + "</g></svg>\n";
}

}  // namespace graft
