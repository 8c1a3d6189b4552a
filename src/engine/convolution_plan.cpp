#include "engine/convolution_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/kernels.h"

namespace graft::engine {
namespace {

// Costs on a Zen 3 core, as bench/kernels_bench prints them. They are constants so that the choice
// depends on nothing else; of their ratios alone.
constexpr double kFlops = 95e9;
// A second of weights that stream through the caches, mostly hidden behind products. An estimate,
// not measured: less of it favours small tiles, which have fewer weights, where images are few.
constexpr double kWeightBytes = 40e9;

// The register block that costs were measured with, Zen 3's, whatever the target's: tiles decide
// results, which are to be the same on every target.
constexpr int kGroup = 6;

/// Seconds for the transforms of one channel in a square tile, likewise, of eight measured.
double input_seconds(int m) { return (m == 2 ? 13e-9 : m == 4 ? 32e-9 : 74e-9) / 8; }
double output_seconds(int m) { return (m == 2 ? 9e-9 : m == 4 ? 21e-9 : 50e-9) / 8; }

/// Rows of products that cost as much as a last group of `tiles` < 6. Two rows have four sums in
/// flight where two multiply-add units of a latency of four want eight: they take as long as four.
double last_group(int tiles) { return tiles == 0 ? 0 : tiles <= 4 ? 4 : 6; }

struct Layer {
  double channels, outputs;
  int images;
};

/// Estimated seconds of one core for all tiles of rows × columns pixels.
double estimate(const Layer& layer, int rows, int columns, int tiles) {
  if (tiles == 0) return 0;
  const int total = layer.images * tiles;
  const double frequencies = TileSize{rows, columns}.frequencies();
  const int in_whole_groups = total - total % kGroup;
  const double products = in_whole_groups + last_group(total % kGroup);
  const double weights = frequencies * layer.channels * layer.outputs;
  return 2 * products * weights / kFlops + 4 * weights / kWeightBytes +
         total * (layer.channels * std::sqrt(input_seconds(rows) * input_seconds(columns)) +
                  layer.outputs * std::sqrt(output_seconds(rows) * output_seconds(columns)));
}

double estimate(const Layer& layer, const TileAxis& rows, const TileAxis& columns) {
  const int last_row = rows.last > 0 ? 1 : 0;
  const int last_column = columns.last > 0 ? 1 : 0;
  return estimate(layer, rows.main, columns.main, rows.count * columns.count) +
         estimate(layer, rows.main, columns.last, rows.count * last_column) +
         estimate(layer, rows.last, columns.main, last_row * columns.count) +
         estimate(layer, rows.last, columns.last, last_row * last_column);
}

// Tiles of 4 and 6, as larger ones lose too much accuracy (docs/performance.md); 2 saves too little
// to be more than a last tile.
std::vector<TileAxis> axis_choices(int extent, int forced) {
  const auto whole = [&](int m) { return TileAxis{m, (extent + m - 1) / m, 0}; };
  const auto with_last = [&](int m, int last) -> std::vector<TileAxis> {
    const int rest = extent % m;
    if (rest == 0 || rest > last) return {};
    return {{m, extent / m, last}};
  };
  std::vector<TileAxis> choices;
  if (forced > 0) {
    const int m = forced >= 10 ? forced / 10 : forced;
    if (forced >= 10) choices = with_last(m, forced % 10);
    if (choices.empty()) choices = {whole(m)};
    return choices;
  }
  choices = {whole(4), whole(6)};
  for (const auto& [m, last] : {std::pair{4, 2}, std::pair{6, 2}, std::pair{6, 4}})
    for (const TileAxis& axis : with_last(m, last)) choices.push_back(axis);
  return choices;
}

std::string axis_name(const TileAxis& axis) {
  if (axis.last == 0) return fmt::format("{}", axis.main);
  if (axis.count == 0) return fmt::format("{}", axis.last);
  return fmt::format("{}+{}", axis.main, axis.last);
}

}  // namespace

ConvolutionPlan plan_convolution(int64_t channels, int64_t outputs, int64_t height, int64_t width,
                                 bool single, int forced) {
  // A batch is planned as one of 8 images, whatever it has, or results would depend on its size.
  // More images favour large tiles, fewer small ones, which have fewer weights. 8 was not measured.
  const Layer layer{static_cast<double>(channels), static_cast<double>(outputs), single ? 1 : 8};
  ConvolutionPlan plan;
  double least = INFINITY;
  for (const TileAxis& rows : axis_choices(static_cast<int>(height), forced))
    for (const TileAxis& columns : axis_choices(static_cast<int>(width), forced)) {
      // A tie goes to the plan with fewer weights, which comes first.
      const double cost = estimate(layer, rows, columns);
      if (cost >= least) continue;
      least = cost;
      plan.rows = rows;
      plan.columns = columns;
    }
  // A private block of transformed input is to stay in or near the second-level cache; where 12
  // tiles alone take more than 800 KB, the team shares a block in the third-level cache and divides
  // the outputs. The limit lies just above 256 channels of 64 frequencies (786 KB).
  const int frequencies = TileSize{plan.rows.main, plan.columns.main}.frequencies();
  plan.shared = channels * frequencies * 12 > 200'000;
  // Products of a chunk stay in the second-level cache (half a megabyte on Zen 3). 32 outputs read
  // the transformed input half as often as 16. But 24 tiles of 64 channels and 64 frequencies take
  // 393 KB, which leaves room for 16 outputs (98 KB). In shared blocks chunks are what members
  // divide: 66 tiles of F(4×4) and 16 outputs trade half the reuse for twice as many. Not measured
  // by a bench.
  plan.outputs = plan.shared ? (plan.rows.main == 6 ? 32 : 16) : (channels <= 64 ? 16 : 32);
  return plan;
}

int weights_per_kernel(const ConvolutionPlan& plan) {
  int floats = 0;
  for (const int rows : {plan.rows.count > 0 ? plan.rows.main : 0, plan.rows.last})
    for (const int columns : {plan.columns.count > 0 ? plan.columns.main : 0, plan.columns.last})
      if (rows > 0 && columns > 0) floats += TileSize{rows, columns}.frequencies();
  return floats;
}

std::string tile_name(const ConvolutionPlan& plan) {
  const std::string rows = axis_name(plan.rows);
  const std::string columns = axis_name(plan.columns);
  return rows.size() + columns.size() == 2 ? fmt::format("F({}x{})", rows, columns)
                                           : fmt::format("F({} x {})", rows, columns);
}

}  // namespace graft::engine
