#include "train/convolution.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "engine/kernels.h"
#include "train/products.h"
#include "train/tile_products.h"
#include "train/winograd.h"

namespace graft {
namespace {

using torch::Tensor;
using training::Place;
using training::Tile;

// Below these, LibTorch's own convolution is as fast: transforms outweigh what products save, and
// tiles of 32 channels are mostly zeros.
constexpr int64_t kLeastChannels = 16;
// Multiplications of a direct convolution over those of the tiles.
constexpr double kLeastSaving = 2;
// Tiles of one size that a thread multiplies with one panel of outputs: their products (36
// frequencies × 264 × 32 floats) take 1.2 MB. Whole groups of 12 and of 6. 132 and 528 were slower
// (bench/convolution_bench), as were 64 and 256 channels.
constexpr int64_t kTilesAtOnce = 264;
// Input channels whose weights are transformed together: 36 frequencies × 128 × 32 floats are 0.6
// MB.
constexpr int64_t kChannelsAtOnce = 128;
// While a group of tiles is multiplied, the next one's inputs are fetched: half as many floats as
// there are weights, a little more than its panel has (engine/kernels.h).
constexpr int kSpread = 2;

int64_t panels_of(int64_t count, int64_t width) { return (count + width - 1) / width; }

/// A direction of a map, cut into tiles: `count` of each size, the largest first.
struct Cut {
  struct Run {
    int size, count, begin;
  };
  std::vector<Run> runs;
  int64_t frequencies = 0;  // of all tiles

  /// The cut with the fewest frequencies; of equals the one of fewest sizes.
  explicit Cut(int64_t extent) {
    const auto length = static_cast<int>(extent);
    int best[3] = {};
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int six = 0; six <= (length + 5) / 6; ++six)
      for (int four = 0; four <= 2; ++four) {
        const int rest = length - 6 * six - 4 * four;
        const int three = rest > 0 ? (rest + 2) / 3 : 0;
        const int64_t cost = 8 * six + 6 * four + 5 * three;
        const int sizes = (six > 0 ? 1 : 0) + (four > 0 ? 1 : 0) + (three > 0 ? 1 : 0);
        if (cost * 4 + sizes >= least) continue;
        least = cost * 4 + sizes;
        frequencies = cost;
        best[0] = six, best[1] = four, best[2] = three;
      }
    int begin = 0;
    for (const auto& [size, count] : {std::pair{6, best[0]}, {4, best[1]}, {3, best[2]}}) {
      if (count > 0) runs.push_back({size, count, begin});
      begin += size * count;
    }
  }
};

/// Maps (N, H, W, channels) as tiles of several sizes.
struct Grid {
  int64_t height, width;
  Cut rows, columns;

  Grid(int64_t h, int64_t w) : height(h), width(w), rows(h), columns(w) {}
  /// Of each pair of an input channel and an output channel.
  [[nodiscard]] int64_t products() const { return rows.frequencies * columns.frequencies; }
};

/// The tiles of one size, of some images.
struct Part {
  const Grid& grid;
  Tile tile;
  Cut::Run down, across;
  int64_t images;

  [[nodiscard]] int64_t in_image() const { return int64_t{down.count} * across.count; }
  [[nodiscard]] int64_t tiles() const { return images * in_image(); }
  [[nodiscard]] int64_t frequencies() const { return tile.frequencies(); }

  /// Pointers to the pixels of tile t and of those within `around` of it; null where there is none.
  template <class Float>
  void pixels(Float* maps, int64_t channels, int64_t t, int around, Float** out) const {
    const int64_t image = t / in_image();
    const int64_t top = down.begin + t % in_image() / across.count * tile.rows;
    const int64_t left = across.begin + t % across.count * tile.columns;
    for (int64_t y = top - around; y < top + tile.rows + around; ++y)
      for (int64_t x = left - around; x < left + tile.columns + around; ++x)
        *out++ = y < 0 || y >= grid.height || x < 0 || x >= grid.width
                     ? nullptr
                     : maps + ((image * grid.height + y) * grid.width + x) * channels;
  }
};

constexpr int kMostPixels = 8 * 8;  // of a tile of 6 and those around it
using Window = std::array<float*, kMostPixels>;
using ConstWindow = std::array<const float*, kMostPixels>;

/// Tiles in panels, frequencies an odd number of cache lines apart: the stores of a transform would
/// all fall into one cache set otherwise.
struct Panels {
  Tensor memory;
  int64_t frequency;  // floats between frequencies
  int64_t group;      // floats of a group of tiles, or of a panel of channels
  [[nodiscard]] float* at(int64_t f) const { return memory.data_ptr<float>() + f * frequency; }

  Panels(int64_t frequencies, int64_t floats, int64_t each) : group(each) {
    constexpr int64_t kLine = 16;
    const int64_t lines = panels_of(floats, kLine) | 1;
    frequency = lines * kLine;
    memory = torch::empty({frequencies * frequency});
  }
};

class Winograd3x3 {
 public:
  /// Units of work that each panel of outputs is cut into, for all threads to have some.
  static int64_t splits(int64_t panels) {
    return panels_of(2 * int64_t{at::get_num_threads()}, panels);
  }

  /// body(part, first image) for the parts of each chunk of images.
  template <class Body>
  static void for_parts(const Grid& grid, int64_t images, int64_t splits, const Body& body) {
    int64_t most = 1;
    for (const Cut::Run& down : grid.rows.runs)
      for (const Cut::Run& across : grid.columns.runs)
        most = std::max<int64_t>(most, int64_t{down.count} * across.count);
    const int64_t chunk = std::max<int64_t>(1, kTilesAtOnce * splits / most);
    for (int64_t first = 0; first < images; first += chunk)
      for (const Cut::Run& down : grid.rows.runs)
        for (const Cut::Run& across : grid.columns.runs)
          body(Part{grid, {down.size, across.size}, down, across, std::min(chunk, images - first)},
               first);
  }

  /// The frequencies of the tiles' inputs, as the product kernel takes them: [frequency][tile / mr]
  /// [channel / block][mr][block].
  Panels inputs(const Part& part, const float* maps, int64_t channels) const {
    const int64_t padded = panels_of(channels, k_.block) * k_.block;
    const int64_t groups = panels_of(part.tiles(), k_.mr);
    Panels v(part.frequencies(), groups * padded * k_.mr, padded * k_.mr);
    at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
      ConstWindow window{};
      const Place place{static_cast<size_t>(v.frequency), static_cast<size_t>(k_.block),
                        static_cast<size_t>(k_.mr * k_.block)};
      for (int64_t g = begin; g < end; ++g) {
        if (padded != channels || (g + 1) * k_.mr > part.tiles())
          for (int64_t f = 0; f < part.frequencies(); ++f)
            std::fill_n(v.at(f) + g * v.group, v.group, 0.0F);
        for (int64_t t = g * k_.mr; t < std::min((g + 1) * k_.mr, part.tiles()); ++t) {
          part.pixels(maps, channels, t, 1, window.data());
          w_.input(part.tile, window.data(), static_cast<size_t>(channels),
                   v.at(0) + g * v.group + t % k_.mr * k_.block, place);
        }
      }
    });
    return v;
  }

  /// The frequencies of the gradients of the tiles' outputs: [frequency][channel / nr][tile][nr],
  /// tiles up to a whole group, those that do not exist zero.
  Panels gradients(const Part& part, const float* maps, int64_t channels) const {
    const int64_t panels = panels_of(channels, k_.nr);
    const int64_t groups = panels_of(part.tiles(), k_.mr);
    Panels out(part.frequencies(), panels * groups * k_.mr * k_.nr, groups * k_.mr * k_.nr);
    at::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
      ConstWindow window{};
      const Place place{static_cast<size_t>(out.frequency), static_cast<size_t>(k_.nr),
                        static_cast<size_t>(out.group)};
      for (int64_t g = begin; g < end; ++g) {
        if (panels * k_.nr != channels || (g + 1) * k_.mr > part.tiles())
          for (int64_t f = 0; f < part.frequencies(); ++f)
            for (int64_t p = 0; p < panels; ++p)
              std::fill_n(out.at(f) + p * out.group + g * k_.mr * k_.nr, k_.mr * k_.nr, 0.0F);
        for (int64_t t = g * k_.mr; t < std::min((g + 1) * k_.mr, part.tiles()); ++t) {
          part.pixels(maps, channels, t, 0, window.data());
          w_.gradient(part.tile, window.data(), static_cast<size_t>(channels),
                      out.at(0) + t * k_.nr, place);
        }
      }
    });
    return out;
  }

  /// The convolution of `in`, channels last, with kernels (9, inputs, outputs), taps in the order
  /// of rows.
  Tensor convolve(const Tensor& in, const Tensor& taps, const float* bias) const {
    const Grid grid(in.size(2), in.size(3));
    const int64_t channels = taps.size(1);
    const int64_t outputs = taps.size(2);
    const int64_t pixels = grid.height * grid.width;
    Tensor out =
        torch::empty({in.size(0), outputs, grid.height, grid.width},
                     torch::TensorOptions().memory_format(torch::MemoryFormat::ChannelsLast));
    const int64_t panels = panels_of(outputs, k_.nr);
    for_parts(grid, in.size(0), splits(panels), [&](const Part& part, int64_t first) {
      const Panels v = inputs(part, in.data_ptr<float>() + first * pixels * channels, channels);
      const int64_t groups = panels_of(part.tiles(), k_.mr);
      const int64_t parts = std::min(groups, splits(panels));
      at::parallel_for(0, panels * parts, 1, [&](int64_t begin, int64_t end) {
        const int64_t most = panels_of(groups, parts);
        const Panels u(part.frequencies(), kChannelsAtOnce * k_.nr, 0);
        const Panels m(part.frequencies(), most * k_.mr * k_.nr, k_.mr * k_.nr);
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t panel = unit / parts;
          const int64_t from = unit % parts * most;
          const int64_t to = std::min(from + most, groups);
          multiply(part, v, taps, panel, from, to, u, m);
          put(part, m, panel, from, to, outputs, bias,
              out.data_ptr<float>() + first * pixels * outputs);
        }
      });
    });
    return out;
  }

  /// The gradient of the weights, (O, C, 3, 3); both maps are channels last. The sums over images
  /// have one order, whatever the number of threads.
  Tensor weight_gradient(const Tensor& in, const Tensor& gradient) const {
    const Grid grid(in.size(2), in.size(3));
    const int64_t channels = in.size(1);
    const int64_t outputs = gradient.size(1);
    const int64_t pixels = grid.height * grid.width;
    Tensor taps = torch::zeros({9, channels, outputs});
    for_parts(grid, in.size(0), 1, [&](const Part& part, int64_t first) {
      const Panels v = inputs(part, in.data_ptr<float>() + first * pixels * channels, channels);
      const Panels g =
          gradients(part, gradient.data_ptr<float>() + first * pixels * outputs, outputs);
      const int64_t groups = panels_of(part.tiles(), k_.mr);
      // A unit is a panel of outputs for some input channels.
      const int64_t share = panels_of(channels, splits(panels_of(outputs, k_.nr)));
      const int64_t span =
          std::min(kChannelsAtOnce, panels_of(share, w_.outer_rows) * w_.outer_rows);
      const int64_t spans = panels_of(channels, span);
      at::parallel_for(0, panels_of(outputs, k_.nr) * spans, 1, [&](int64_t begin, int64_t end) {
        const Panels u(part.frequencies(), kChannelsAtOnce * k_.nr, 0);
        for (int64_t unit = begin; unit < end; ++unit) {
          const int64_t panel = unit / spans;
          const int64_t from = unit % spans * span;
          const int64_t to = std::min(from + span, channels);
          for (int64_t f = 0; f < part.frequencies(); ++f)
            for (int64_t c = from; c < to; c += w_.outer_rows)
              w_.outer(v.at(f) + c / k_.block * k_.mr * k_.block + c % k_.block,
                       static_cast<size_t>(v.group), static_cast<size_t>(groups),
                       g.at(f) + panel * g.group, u.at(f) + (c - from) * k_.nr);
          for (int64_t c = from; c < to; ++c)
            w_.taps(part.tile, u.at(0) + (c - from) * k_.nr, static_cast<size_t>(u.frequency),
                    static_cast<size_t>(std::min<int64_t>(k_.nr, outputs - panel * k_.nr)),
                    taps.data_ptr<float>() + c * outputs + panel * k_.nr,
                    static_cast<size_t>(channels * outputs));
        }
      });
    });
    return taps.view({3, 3, channels, outputs}).permute({3, 2, 0, 1}).contiguous();
  }

 private:
  /// Products of groups [from, to) with a panel of outputs, some input channels at a time.
  void multiply(const Part& part, const Panels& v, const Tensor& taps, int64_t panel, int64_t from,
                int64_t to, const Panels& u, const Panels& m) const {
    const int64_t channels = taps.size(1);
    const int64_t outputs = taps.size(2);
    const int64_t real = std::min<int64_t>(k_.nr, outputs - panel * k_.nr);
    for (int64_t first = 0; first < channels; first += kChannelsAtOnce) {
      const int64_t count = std::min(kChannelsAtOnce, channels - first);
      const int64_t padded = panels_of(count, k_.block) * k_.block;
      if (real < k_.nr || padded != count) std::fill_n(u.at(0), u.memory.numel(), 0.0F);
      for (int64_t c = 0; c < count; ++c)
        w_.weights(part.tile, taps.data_ptr<float>() + (first + c) * outputs + panel * k_.nr,
                   static_cast<size_t>(channels * outputs), static_cast<size_t>(real),
                   u.at(0) + c * k_.nr, static_cast<size_t>(u.frequency));
      for (int64_t f = 0; f < part.frequencies(); ++f)
        for (int64_t g = from; g < to; ++g)
          k_.multiply(v.at(f) + g * v.group + first * k_.mr, u.at(f),
                      m.at(f) + (g - from) * m.group,
                      static_cast<int>(std::min<int64_t>(k_.mr, part.tiles() - g * k_.mr)), k_.nr,
                      static_cast<size_t>(padded / k_.block), first > 0,
                      v.at(f) + (g + 1) * v.group + first * k_.mr, kSpread);
    }
  }

  /// Products back to the pixels of a panel of outputs.
  void put(const Part& part, const Panels& m, int64_t panel, int64_t from, int64_t to,
           int64_t outputs, const float* bias, float* maps) const {
    Window window{};
    const auto real = static_cast<size_t>(std::min<int64_t>(k_.nr, outputs - panel * k_.nr));
    for (int64_t t = from * k_.mr; t < std::min(to * k_.mr, part.tiles()); ++t) {
      part.pixels(maps, outputs, t, 0, window.data());
      for (float*& pixel : window)
        if (pixel != nullptr) pixel += panel * k_.nr;
      w_.output(part.tile, m.at(0) + (t - from * k_.mr) * k_.nr, static_cast<size_t>(m.frequency),
                real, bias == nullptr ? nullptr : bias + panel * k_.nr, window.data());
    }
  }

  const engine::Kernels& k_ = engine::kernels();
  const training::WinogradKernels& w_ = training::winograd_kernels();
};

Tensor channels_last(const Tensor& maps) {
  return maps.contiguous(torch::MemoryFormat::ChannelsLast);
}

/// Convolutions with gradients, from products that are computed by `Products`.
template <class Products>
struct Convolution3x3 : torch::autograd::Function<Convolution3x3<Products>> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                        const Tensor& weight, const Tensor& bias) {
    const Products products;
    const Tensor in = products.operand(channels_last(x));
    const Tensor kernels = products.operand(weight);
    context->save_for_backward({in, kernels});
    const Tensor shift = bias.contiguous();
    const Tensor taps =
        kernels.permute({2, 3, 1, 0}).reshape({9, kernels.size(1), kernels.size(0)});
    return products.convolve(in, taps.contiguous(), shift.data_ptr<float>());
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    const Products products;
    const auto saved = context->get_saved_variables();
    const Tensor& in = saved[0];
    const Tensor& weight = saved[1];
    const Tensor exact = channels_last(gradients[0]);
    const Tensor gradient = products.operand(exact);
    Tensor of_x;
    if (context->needs_input_grad(0)) {
      // The same convolution with the kernels turned by half a turn.
      const Tensor taps =
          weight.flip({2, 3}).permute({2, 3, 0, 1}).reshape({9, weight.size(0), weight.size(1)});
      of_x = products.convolve(gradient, taps.contiguous(), nullptr);
    }
    return {of_x, products.weight_gradient(in, gradient), exact.sum({0, 2, 3})};
  }
};

struct Winograd : Winograd3x3 {
  static const Tensor& operand(const Tensor& x) { return x; }
};

/// What the tiles below multiply, in float32.
struct RoundedWinograd : Winograd3x3 {
  static Tensor operand(const Tensor& x) { return rounded_to_bfloat16(x); }
};

struct Tiles : TileProducts3x3 {
  Tiles() : TileProducts3x3(*engine::tile_kernels(Precision::bf16)) {}
  static const Tensor& operand(const Tensor& x) { return x; }  // rounded where it is packed
};

}  // namespace

torch::Tensor convolution(const torch::Tensor& x, const torch::Tensor& weight,
                          const torch::Tensor& bias, Precision precision) {
  const bool wide = x.size(1) >= kLeastChannels && weight.size(0) >= kLeastChannels;
  if (precision == Precision::bf16 && wide) {
    switch (rounded_products(x)) {
      case RoundedProducts::tiles:
        return Convolution3x3<Tiles>::apply(x, weight, bias);
      case RoundedProducts::operands:
        return Convolution3x3<RoundedWinograd>::apply(x, weight, bias);
      case RoundedProducts::torch:
        return torch_rounded_convolution(x, weight, bias);
    }
  }
  const Grid grid(x.size(2), x.size(3));
  const double direct = 9.0 * static_cast<double>(grid.height * grid.width);
  const bool pays =
      x.device().is_cpu() && wide && direct >= kLeastSaving * static_cast<double>(grid.products());
  return pays ? Convolution3x3<Winograd>::apply(x, weight, bias)
              : torch::conv2d(x, weight, bias, /*stride=*/1, /*padding=*/1);
}

}  // namespace graft
