#include "report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "report/html.h"

namespace graft {
namespace {

// In units of the drawing, which is shown some 360 to 640 pixels wide.
constexpr int kWidth = 480;
constexpr int kHeight = 300;
constexpr int kMargin = 14;
constexpr int kTop = 40;
constexpr int kBottom = 50;
constexpr int kLine = 17;         // of text
constexpr double kLetter = 7.4;   // about the width of one
constexpr size_t kMostName = 16;  // letters of a series' name
constexpr size_t kMostDots = 100;
// Okabe and Ito's palette for all kinds of colour vision, 2008, its blue and orange first; on dark
// backgrounds its lighter ones.
constexpr int kColours = 4;
constexpr std::string_view kStyle =
    "<style>.chart text{font:13px system-ui,sans-serif;fill:#333}.chart .axis{stroke:#999}"
    ".chart .grid{stroke:#999;stroke-opacity:.3}.chart .line{fill:none;stroke-width:2}"
    ".chart .mark{stroke:#777;stroke-dasharray:5 4}.chart circle{fill:currentColor}"
    ".chart .dot{opacity:0}.chart .dot:hover{opacity:1}"
    ".chart .s0{color:#0072b2}.chart .s1{color:#d55e00}.chart .s2{color:#009e73}"
    ".chart .s3{color:#cc79a7}.chart .line,.chart circle{stroke:currentColor}"
    "@media(prefers-color-scheme:dark){.chart text{fill:#ddd}.chart .s0{color:#56b4e9}"
    ".chart .s1{color:#e69f00}.chart .s2{color:#2cc59b}}</style>\n";

constexpr int kMostTicks = 20;

/// One axis: data to pixels, and where the labels go.
struct Axis {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  bool log = false;
  bool whole = false;  // ticks are whole numbers
  double from = 0;     // pixels
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
      const double half = middle != 0 ? std::abs(middle) / 2 : 0.5;
      low = middle - half;
      high = middle + half;
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
    if (whole) step = std::max(step, 1.0);
    const double first = std::ceil(low / step - 1e-9);
    for (int k = 0; k < kMostTicks; ++k) {
      const double v = (first + k) * step;
      if (!(v <= high + step * 1e-9)) break;
      out.push_back(std::abs(v) < step * 1e-6 ? 0 : v);
    }
    return out;
  }
};

std::string text(double x, double y, std::string_view anchor, std::string_view words) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\"{}>{}</text>\n", x, y,
                     anchor.empty() ? "" : fmt::format(" text-anchor=\"{}\"", anchor),
                     html::escape(words));
}

/// What the chart shows, in words.
std::string description(const Chart& chart) {
  std::string out = fmt::format("{} over {}", chart.y_label, chart.x_label);
  for (const ChartSeries& series : chart.series)
    if (!series.points.empty())
      out += fmt::format("; {}: from {:.4g} at {:.4g} to {:.4g} at {:.4g}", series.name,
                         series.points.front().second, series.points.front().first,
                         series.points.back().second, series.points.back().first);
  for (const auto& [at, label] : chart.marks) out += "; " + label;
  return out;
}

std::string line(const ChartSeries& series, int number, const Axis& x, const Axis& y) {
  std::string path;
  std::string dots;
  bool gap = true;  // a value that is not finite leaves one
  for (const auto& [px, py] : series.points) {
    if (std::isfinite(py)) {
      path += fmt::format("{}{:.1f} {:.1f}", gap ? "M" : "L", x.pixel(px), y.pixel(py));
      // A line of one point shows nothing.
      if (series.points.size() <= kMostDots)
        dots += fmt::format(
            "<circle class=\"s{} {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"><title>{}{:g}: {:.5g}"
            "</title></circle>\n",
            number, series.points.size() == 1 ? "point" : "dot", x.pixel(px), y.pixel(py),
            series.name.empty() ? "" : html::escape(series.name) + ", ", px, py);
    }
    gap = !std::isfinite(py);
  }
  return fmt::format("<path class=\"line s{}\" d=\"{}\"/>\n", number, path) + dots;
}

/// Names beside the ends of their lines, none over another.
std::string names(const std::vector<ChartSeries>& all, double left, const Axis& y) {
  std::vector<std::pair<double, size_t>> ends;  // where, which
  for (size_t i = 0; i < all.size(); ++i) {
    double at = y.from;
    for (const auto& point : all[i].points)
      if (std::isfinite(point.second)) at = y.pixel(point.second);
    ends.emplace_back(at, i);
  }
  std::sort(ends.begin(), ends.end());
  for (size_t k = 1; k < ends.size(); ++k)
    ends[k].first = std::max(ends[k].first, ends[k - 1].first + kLine);
  double most = y.from;
  for (size_t k = ends.size(); k-- > 0; most = ends[k].first - kLine)
    ends[k].first = std::min(ends[k].first, most);
  std::string out;
  for (const auto& [at, i] : ends)
    out += fmt::format("<path class=\"line s{}\" d=\"M{:.1f} {:.1f}h14\"/>\n", i % kColours,
                       left + 6, at) +
           text(left + 24, at + 4, "", html::shortened(all[i].name, kMostName));
  return out;
}

}  // namespace

std::string chart_svg(const Chart& chart) {
  Axis x{.log = chart.log_x, .whole = !chart.log_x};
  Axis y{};
  size_t longest = 0;
  for (const ChartSeries& series : chart.series) {
    longest = std::max(longest, std::min(series.name.size(), kMostName));
    for (const auto& [px, py] : series.points) {
      if (!std::isfinite(py)) continue;
      x.cover(px);
      y.cover(py);
      x.whole = x.whole && px == std::floor(px);
    }
  }
  if (chart.x_range) {
    x.cover(chart.x_range->first);
    x.cover(chart.x_range->second);
  }
  x.settle();
  y.settle();
  // Room for the longest label of the y axis, and for names at the right.
  size_t label = 1;
  for (const double v : y.ticks()) label = std::max(label, fmt::format("{:g}", v).size());
  const double left = 32 + static_cast<double>(label) * kLetter;
  const bool named = chart.series.size() > 1;
  const double right =
      kWidth - (named ? 28 + static_cast<double>(longest) * kLetter : double{kMargin});
  const int height =
      std::max(kHeight, kTop + kBottom + kLine * static_cast<int>(chart.series.size()));
  const double bottom = height - kBottom;
  x.from = left;
  x.to = right;
  y.from = bottom;
  y.to = kTop;

  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {} {}\" "
      "role=\"img\" aria-label=\"{}\">\n<title>{}</title>\n<desc>{}</desc>\n",
      kWidth, height, html::escape(chart.title + ": " + description(chart)),
      html::escape(chart.title), html::escape(description(chart)));
  svg += kStyle;
  svg += fmt::format("<text x=\"{:.1f}\" y=\"22\" style=\"font-size:15px\">{}</text>\n", left,
                     html::escape(chart.title));
  double free = 0;  // where the next label of the x axis has room
  for (const double v : x.ticks()) {
    svg += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2:.1f}\"/>",
        x.pixel(v), kTop, bottom);
    const std::string words = fmt::format("{:g}", v);
    const double half = static_cast<double>(words.size()) * kLetter / 2;
    if (x.pixel(v) - half < free) continue;
    free = x.pixel(v) + half + kLetter;
    svg += text(x.pixel(v), bottom + 18, "middle", words);
  }
  for (const double v : y.ticks())
    svg += fmt::format(
               "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{1:.1f}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\"/>",
               left, right, y.pixel(v)) +
           text(left - 7, y.pixel(v) + 4, "end", fmt::format("{:g}", v));
  svg += fmt::format("<path class=\"axis\" fill=\"none\" d=\"M{:.1f} {}V{:.1f}H{:.1f}\"/>\n", left,
                     kTop, bottom, right);
  svg += text((left + right) / 2, height - 10, "middle", chart.x_label);
  svg += fmt::format(
      "<text transform=\"translate(16 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
      (kTop + bottom) / 2, html::escape(chart.y_label));
  for (const auto& [at, words] : chart.marks) {
    // A label stands where there is room for it.
    const bool before = x.pixel(at) > (left + right) / 2;
    svg += fmt::format(
               "<line class=\"mark\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2:.1f}\"/>",
               x.pixel(at), kTop, bottom) +
           text(x.pixel(at) + (before ? -5 : 5), kTop - 4, before ? "end" : "", words);
  }
  for (size_t i = 0; i < chart.series.size(); ++i)
    svg += line(chart.series[i], static_cast<int>(i % kColours), x, y);
  if (named) svg += names(chart.series, right, y);
  return svg + "</svg>\n";
}

}  // namespace graft
