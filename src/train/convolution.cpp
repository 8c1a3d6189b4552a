#include "train/convolution.h"
#include "engine/winograd_weights.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <vector>

#include "train/kernels.h"
#include "train/products.h"

namespace graft {
namespace {

using torch::Tensor;

// Below these, LibTorch's own convolution is as fast: transforms outweigh what products save.
constexpr int64_t kLeastChannels = 16;
// Multiplications of a direct convolution over those of the tiles.
constexpr double kLeastSaving = 2;
// Floats of transformed maps in a chunk of images: they are to stay in the last-level cache, unless
// the weights, which are packed anew for each chunk, are larger than that.
constexpr int64_t kChunkFloats = 3'000'000;
constexpr int64_t kChunkOfWeights = 2;  // times the transformed weights

/// G ⊗ G: (frequencies, 9), takes a 3×3 kernel to the frequencies of a tile.
template <size_t n>
Tensor kernel_transform_of(const std::array<std::array<double, 3>, n>& rows) {
  constexpr auto kSide = static_cast<int64_t>(n);
  Tensor g = torch::empty({kSide * kSide, 9});
  for (size_t f = 0; f < n * n; ++f)
    for (size_t k = 0; k < 9; ++k)
      g.data_ptr<float>()[f * 9 + k] =
          static_cast<float>(rows.at(f / n).at(k / 3) * rows.at(f % n).at(k % 3));
  return g;
}

const Tensor& kernel_transform(int tile) {
  static const Tensor kOf3 = kernel_transform_of(engine::kG3);
  static const Tensor kOf4 = kernel_transform_of(engine::kG4);
  static const Tensor kOf6 = kernel_transform_of(engine::kG6);
  return tile == 3 ? kOf3 : tile == 4 ? kOf4 : kOf6;
}

/// The tiles of a batch of maps (N, H, W, channels).
struct Grid {
  int64_t height, width;
  int tile = 0;  ///< output pixels, each way: those that need the fewest products
  int64_t down = 0, across = 0;

  Grid(int64_t h, int64_t w) : height(h), width(w) {
    for (const int size : training::kTiles) {
      Grid other = *this;
      other.tile = size;
      other.down = (h + size - 1) / size;
      other.across = (w + size - 1) / size;
      if (tile == 0 || other.products() < products()) *this = other;
    }
  }
  [[nodiscard]] int64_t tiles() const { return down * across; }
  [[nodiscard]] int64_t frequencies() const { return training::frequencies(tile); }
  /// Of each pair of an input channel and an output channel.
  [[nodiscard]] int64_t products() const { return tiles() * frequencies(); }
  [[nodiscard]] const training::TileTransforms& transforms() const {
    return training::kernels().tile(tile);
  }

  /// Pointers to the pixels of tile t and of those within `around` of it; null where there is none.
  template <class Float>
  void pixels(Float* maps, int64_t channels, int64_t t, int around, Float** out) const {
    const int64_t image = t / tiles();
    const int64_t top = t % tiles() / across * tile;
    const int64_t left = t % across * tile;
    for (int64_t y = top - around; y < top + tile + around; ++y)
      for (int64_t x = left - around; x < left + tile + around; ++x)
        *out++ = y < 0 || y >= height || x < 0 || x >= width
                     ? nullptr
                     : maps + ((image * height + y) * width + x) * channels;
  }
};

/// (frequencies, tiles, channels), the frequencies an odd number of cache lines apart: the stores
/// of a transform would all fall into one cache set otherwise.
Tensor frequencies(const Grid& grid, int64_t images, int64_t channels) {
  constexpr int64_t kLine = 16;
  const int64_t tiles = images * grid.tiles();
  int64_t lines = (tiles * channels + kLine - 1) / kLine;
  lines += (65 - lines % 64) % 64;
  return torch::empty({grid.frequencies() * lines * kLine})
      .as_strided({grid.frequencies(), tiles, channels}, {lines * kLine, channels, 1});
}

constexpr int kMostPixels = 8 * 8;  // of a tile of 6 and those around it

/// The frequencies of maps (images, H, W, channels), of each tile's pixels and those within
/// `around` of it.
Tensor transform(const Grid& grid, const float* maps, int64_t images, int64_t channels, int around,
                 decltype(training::TileTransforms::input) kernel) {
  Tensor v = frequencies(grid, images, channels);
  float* to = v.data_ptr<float>();
  std::array<const float*, kMostPixels> window{};
  for (int64_t t = 0; t < v.size(1); ++t) {
    grid.pixels(maps, channels, t, around, window.data());
    kernel(window.data(), static_cast<size_t>(channels), to + t * channels,
           static_cast<size_t>(v.stride(0)));
  }
  return v;
}

Tensor transform_input(const Grid& grid, const float* maps, int64_t images, int64_t channels) {
  return transform(grid, maps, images, channels, 1, grid.transforms().input);
}

Tensor transform_gradient(const Grid& grid, const float* maps, int64_t images, int64_t channels) {
  return transform(grid, maps, images, channels, 0, grid.transforms().gradient);
}

void transform_output(const Grid& grid, const Tensor& p, const float* bias, float* maps) {
  const int64_t channels = p.size(2);
  const float* from = p.data_ptr<float>();
  const auto step = static_cast<size_t>(p.stride(0));
  std::array<float*, kMostPixels> window{};
  for (int64_t t = 0; t < p.size(1); ++t) {
    grid.pixels(maps, channels, t, 0, window.data());
    grid.transforms().output(from + t * channels, step, static_cast<size_t>(channels), bias,
                             window.data());
  }
}

Tensor channels_last(const Tensor& maps) {
  return maps.contiguous(torch::MemoryFormat::ChannelsLast);
}

/// body(thread, first, count) for chunks of `images`, each thread having a range of them, so that
/// no thread waits for another before the end.
template <class Body>
void for_chunks(const Grid& grid, int64_t images, int64_t inputs, int64_t outputs,
                const Body& body) {
  const int64_t threads = at::get_num_threads();
  const int64_t share = (images + threads - 1) / threads;
  const int64_t floats = share * grid.products() * (inputs + outputs);
  const int64_t most =
      std::max(kChunkFloats, kChunkOfWeights * grid.frequencies() * inputs * outputs);
  const int64_t chunks = (floats + most - 1) / most;
  const int64_t chunk = (share + chunks - 1) / chunks;
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    const torch::NoGradGuard no_gradients;  // a setting of each thread
    for (int64_t t = begin; t < end; ++t)
      for (int64_t first = t * share; first < std::min(images, (t + 1) * share); first += chunk)
        body(t, first, std::min({chunk, images - first, (t + 1) * share - first}));
  });
}

/// The convolution of `in`, channels last, with kernels (9, inputs, outputs), taps in the order of
/// rows.
Tensor convolve(const Tensor& in, const Tensor& taps, const float* bias) {
  const Grid grid(in.size(2), in.size(3));
  const int64_t inputs = taps.size(1);
  const int64_t outputs = taps.size(2);
  const int64_t pixels = grid.height * grid.width;
  const Tensor u = shared_product(kernel_transform(grid.tile), taps.reshape({9, -1}))
                       .view({grid.frequencies(), inputs, outputs});
  Tensor out =
      torch::empty({in.size(0), outputs, grid.height, grid.width},
                   torch::TensorOptions().memory_format(torch::MemoryFormat::ChannelsLast));
  for_chunks(grid, in.size(0), inputs, outputs, [&](int64_t, int64_t first, int64_t count) {
    const Tensor v =
        transform_input(grid, in.data_ptr<float>() + first * pixels * inputs, count, inputs);
    Tensor products = frequencies(grid, count, outputs);
    torch::bmm_out(products, v, u);
    transform_output(grid, products, bias, out.data_ptr<float>() + first * pixels * outputs);
  });
  return out;
}

/// The gradient of the weights, (O, C, 3, 3); both maps are channels last.
Tensor weight_gradient(const Tensor& in, const Tensor& gradient) {
  const Grid grid(in.size(2), in.size(3));
  const int64_t inputs = in.size(1);
  const int64_t outputs = gradient.size(1);
  const int64_t pixels = grid.height * grid.width;
  std::vector<Tensor> sums(static_cast<size_t>(at::get_num_threads()));
  for_chunks(grid, in.size(0), inputs, outputs, [&](int64_t thread, int64_t first, int64_t count) {
    const Tensor v =
        transform_input(grid, in.data_ptr<float>() + first * pixels * inputs, count, inputs);
    const Tensor g = transform_gradient(grid, gradient.data_ptr<float>() + first * pixels * outputs,
                                        count, outputs);
    Tensor& sum = sums[static_cast<size_t>(thread)];
    if (sum.defined())
      sum.baddbmm_(v.transpose(1, 2), g);
    else
      sum = torch::bmm(v.transpose(1, 2), g);
  });
  for (size_t t = 1; t < sums.size(); ++t)
    if (sums[t].defined()) sums[0] += sums[t];
  return shared_product(kernel_transform(grid.tile).t(), sums[0].view({grid.frequencies(), -1}))
      .view({3, 3, inputs, outputs})
      .permute({3, 2, 0, 1})
      .contiguous();
}

struct Winograd : torch::autograd::Function<Winograd> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x,
                        const Tensor& weight, const Tensor& bias) {
    const Tensor in = channels_last(x);
    context->save_for_backward({in, weight});
    const Tensor shift = bias.contiguous();
    const Tensor taps = weight.permute({2, 3, 1, 0}).reshape({9, weight.size(1), weight.size(0)});
    return convolve(in, taps, shift.data_ptr<float>());
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& in = saved[0];
    const Tensor& weight = saved[1];
    const Tensor gradient = channels_last(gradients[0]);
    Tensor of_x;
    if (context->needs_input_grad(0)) {
      // The same convolution with the kernels turned by half a turn.
      const Tensor taps =
          weight.flip({2, 3}).permute({2, 3, 0, 1}).reshape({9, weight.size(0), weight.size(1)});
      of_x = convolve(gradient, taps, nullptr);
    }
    return {of_x, weight_gradient(in, gradient), gradient.sum({0, 2, 3})};
  }
};

}  // namespace

torch::Tensor convolution(const torch::Tensor& x, const torch::Tensor& weight,
                          const torch::Tensor& bias) {
  const Grid grid(x.size(2), x.size(3));
  const double direct = 9.0 * static_cast<double>(grid.height * grid.width);
  const bool pays = x.device().is_cpu() && x.size(1) >= kLeastChannels &&
                    weight.size(0) >= kLeastChannels &&
                    direct >= kLeastSaving * static_cast<double>(grid.products());
  return pays ? Winograd::apply(x, weight, bias)
              : torch::conv2d(x, weight, bias, /*stride=*/1, /*padding=*/1);
}

}  // namespace graft
