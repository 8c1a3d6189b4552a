// Line charts as SVG.
#pragma once

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
};

/// A self-contained SVG document, readable on light and dark backgrounds, with a title and a
/// description for screen readers.
std::string chart_svg(const Chart& chart);

}  // namespace graft
