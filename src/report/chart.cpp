#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "report/html.h"

namespace graft {
namespace {

constexpr int kWidth = 540;
constexpr int kHeight = 340;
constexpr int kLeft = 80;
constexpr int kRight = 20;
constexpr int kTop = 50;
constexpr int kBottom = 55;
// Okabe and Ito's palette for all kinds of colour vision, 2008; its blue and orange first.
constexpr std::array<const char*, 4> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"};

constexpr int kMostTicks = 20;

/// One axis: data to pixels, and where the labels go.
struct Axis {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  bool log = false;
  double from = 0;  // pixels
  double to = 1;

  void cover(double v) {
    low = std::min(low, scaled(v));
    high = std::max(high, scaled(v));
  }
  void settle() {
    if (!(low <= high)) low = 0, high = 1;
    // A range that rounding would swallow has no ticks.
    const double least = 1e-9 * std::max(std::abs(low), std::abs(high));
    if (high - low <= least) {
      const double middle = (low + high) / 2;
      low = middle - std::max(0.5, least);
      high = middle + std::max(0.5, least);
    }
  }
  [[nodiscard]] double scaled(double v) const { return log ? std::log10(v) : v; }
  [[nodiscard]] double pixel(double v) const {
    return from + (scaled(v) - low) / (high - low) * (to - from);
  }
  /// Round numbers: whole powers of ten on a logarithmic axis, else 1, 2 or 5 times one.
  [[nodiscard]] std::vector<double> ticks() const {
    std::vector<double> out;
    if (log) {
      for (double e = std::ceil(low - 1e-9); e <= high + 1e-9; ++e) out.push_back(std::pow(10, e));
      return out;
    }
    const double rough = (high - low) / 5;
    const double power = std::pow(10, std::floor(std::log10(rough)));
    double step = power * 10;
    for (const double factor : {5.0, 2.0, 1.0})
      if (power * factor >= rough) step = power * factor;
    const double first = std::ceil(low / step - 1e-9);
    for (int k = 0; k < kMostTicks; ++k) {
      const double v = (first + k) * step;
      if (!(v <= high + step * 1e-9)) break;
      out.push_back(std::abs(v) < step * 1e-6 ? 0 : v);
    }
    return out;
  }
};

}  // namespace

std::string chart_svg(const Chart& chart) {
  Axis x{.log = chart.log_x, .from = kLeft, .to = kWidth - kRight};
  Axis y{.from = kHeight - kBottom, .to = kTop};
  for (const ChartSeries& series : chart.series) {
    for (const auto& [px, py] : series.points) {
      if (!std::isfinite(py)) continue;
      x.cover(px);
      y.cover(py);
    }
  }
  x.settle();
  y.settle();
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {0} {1}\" "
      "role=\"img\" "
      "aria-label=\"{2}\">\n<title>{2}</title>\n<desc>{3} over {4}",
      kWidth, kHeight, html::escape(chart.title), html::escape(chart.y_label),
      html::escape(chart.x_label));
  for (const ChartSeries& series : chart.series)
    if (!series.points.empty())
      svg +=
          fmt::format("; {}: from {:.4g} at {:.4g} to {:.4g} at {:.4g}", html::escape(series.name),
                      series.points.front().second, series.points.front().first,
                      series.points.back().second, series.points.back().first);
  for (const auto& [at, label] : chart.marks) svg += fmt::format("; {}", html::escape(label));
  svg +=
      "</desc>\n<style>.chart text{font:14px sans-serif;fill:#333}.chart .axis{stroke:#999}"
      ".chart .grid{stroke:#999;stroke-opacity:.3}.chart .line{fill:none;stroke-width:2}"
      ".chart .mark{stroke:#777;stroke-dasharray:5 4}"
      "@media(prefers-color-scheme:dark){.chart text{fill:#ddd}}</style>\n";
  svg += fmt::format("<text x=\"{}\" y=\"22\" style=\"font-size:16px\">{}</text>\n", kLeft,
                     html::escape(chart.title));
  for (const double v : x.ticks())
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4:g}</text>\n",
        x.pixel(v), kTop, kHeight - kBottom, kHeight - kBottom + 18, v);
  for (const double v : y.ticks())
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:g}</text>\n",
        kLeft, kWidth - kRight, y.pixel(v), kLeft - 8, y.pixel(v) + 4, v);
  svg += fmt::format(
      "<path class=\"axis\" fill=\"none\" d=\"M{0} {1}V{2}H{3}\"/>\n"
      "<text x=\"{4}\" y=\"{5}\" text-anchor=\"middle\">{6}</text>\n"
      "<text transform=\"translate(18 {7}) rotate(-90)\" text-anchor=\"middle\">{8}</text>\n",
      kLeft, kTop, kHeight - kBottom, kWidth - kRight, (kLeft + kWidth - kRight) / 2, kHeight - 12,
      html::escape(chart.x_label), (kTop + kHeight - kBottom) / 2, html::escape(chart.y_label));
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const ChartSeries& series = chart.series[i];
    const char* colour = kColours.at(i % kColours.size());
    std::string path;
    bool gap = true;  // a value that is not finite leaves one
    for (const auto& [px, py] : series.points) {
      if (std::isfinite(py))
        path += fmt::format("{}{:.1f} {:.1f}", gap ? "M" : "L", x.pixel(px), y.pixel(py));
      gap = !std::isfinite(py);
    }
    svg += fmt::format("<path class=\"line\" stroke=\"{}\" d=\"{}\"/>\n", colour, path);
    if (series.points.size() == 1 && !gap)  // a line of one point shows nothing
      svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"{}\"/>\n",
                         x.pixel(series.points[0].first), y.pixel(series.points[0].second), colour);
    if (chart.series.size() > 1)
      svg += fmt::format("<text x=\"{}\" y=\"40\" style=\"fill:{}\">{}</text>\n",
                         kLeft + static_cast<int>(i) * 110, colour, html::escape(series.name));
  }
  for (const auto& [at, label] : chart.marks) {
    // A label stands where there is room for it.
    const bool before = x.pixel(at) > kWidth * 0.75;
    svg += fmt::format(
        "<line class=\"mark\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
        "<text x=\"{3:.1f}\" y=\"{4}\"{5}>{6}</text>\n",
        x.pixel(at), kTop, kHeight - kBottom, x.pixel(at) + (before ? -5 : 5), kTop + 14,
        before ? " text-anchor=\"end\"" : "", html::escape(label));
  }
  return svg + "</svg>\n";
}

}  // namespace graft
