// Line charts as SVG.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace graft {

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< x, y; must be finite
};

struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool log_x = false;  ///< all x must be positive
  std::vector<ChartSeries> series;
  /// Vertical lines with a label.
  std::vector<std::pair<double, std::string>> marks;
  /// What the x axis covers at least.
  std::optional<std::pair<double, double>> x_range{};
};

/// A self-contained SVG document, readable on light and dark backgrounds, with a title and a
/// description for screen readers. Ticks are round numbers, whole ones where all x are; several
/// series have their names beside their ends.
std::string chart_svg(const Chart& chart);

}  // namespace graft
