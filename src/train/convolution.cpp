#include "train/convolution.h"
#include "engine/winograd_weights.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "train/kernels.h"
#include "train/products.h"

namespace graft {
namespace {

using torch::Tensor;
using training::kFrequencies;
using training::kTile;
using training::kTileInput;

// Below these, LibTorch's own convolution is as fast: transforms outweigh what products save.
constexpr int64_t kLeastChannels = 16;
constexpr double kMostWaste = 2;  // pixels of the tiles over pixels of the map
// Floats of transformed maps in a chunk of images: they are to stay in the last-level cache.
constexpr int64_t kChunkFloats = 3'000'000;

/// G ⊗ G: (36, 9), takes a 3×3 kernel to its frequencies.
const Tensor& kernel_transform() {
  static const Tensor kMade = [] {
    Tensor g = torch::empty({kFrequencies, 9});
    for (int f = 0; f < kFrequencies; ++f)
      for (int k = 0; k < 9; ++k)
        g.data_ptr<float>()[f * 9 + k] = static_cast<float>(engine::kG4[f / kTileInput][k / 3] *
                                                            engine::kG4[f % kTileInput][k % 3]);
    return g;
  }();
  return kMade;
}

/// The tiles of a batch of maps (N, H, W, channels).
struct Grid {
  int64_t height, width;
  int64_t down, across;

  Grid(int64_t h, int64_t w)
      : height(h), width(w), down((h + kTile - 1) / kTile), across((w + kTile - 1) / kTile) {}
  [[nodiscard]] int64_t tiles() const { return down * across; }

  /// Pointers to the pixels of an n×n window of tile t, which begins `before` pixels up and left of
  /// the tile; null where there is none.
  template <int n, class Float>
  void pixels(Float* maps, int64_t channels, int64_t t, int before, Float** out) const {
    const int64_t image = t / tiles();
    const int64_t top = t % tiles() / across * kTile - before;
    const int64_t left = t % across * kTile - before;
    for (int64_t y = top; y < top + n; ++y)
      for (int64_t x = left; x < left + n; ++x)
        *out++ = y < 0 || y >= height || x < 0 || x >= width
                     ? nullptr
                     : maps + ((image * height + y) * width + x) * channels;
  }
};

/// (36, tiles, channels), the frequencies an odd number of cache lines apart: the stores of a
/// transform would all fall into one cache set otherwise.
Tensor frequencies(int64_t tiles, int64_t channels) {
  constexpr int64_t kLine = 16;
  int64_t lines = (tiles * channels + kLine - 1) / kLine;
  lines += (65 - lines % 64) % 64;
  return torch::empty({kFrequencies * lines * kLine})
      .as_strided({kFrequencies, tiles, channels}, {lines * kLine, channels, 1});
}

/// The frequencies of maps (images, H, W, channels), from windows of n×n pixels that begin `before`
/// pixels up and left of their tiles.
template <int n>
Tensor transform(const Grid& grid, const float* maps, int64_t images, int64_t channels, int before,
                 decltype(training::Kernels::input_tile) kernel) {
  Tensor v = frequencies(images * grid.tiles(), channels);
  float* to = v.data_ptr<float>();
  const float* window[n * n];
  for (int64_t t = 0; t < v.size(1); ++t) {
    grid.pixels<n>(maps, channels, t, before, window);
    kernel(window, static_cast<size_t>(channels), to + t * channels,
           static_cast<size_t>(v.stride(0)));
  }
  return v;
}

Tensor transform_input(const Grid& grid, const float* maps, int64_t images, int64_t channels) {
  return transform<kTileInput>(grid, maps, images, channels, 1, training::kernels().input_tile);
}

Tensor transform_gradient(const Grid& grid, const float* maps, int64_t images, int64_t channels) {
  return transform<kTile>(grid, maps, images, channels, 0, training::kernels().gradient_tile);
}

void transform_output(const Grid& grid, const Tensor& p, const float* bias, float* maps) {
  const int64_t channels = p.size(2);
  const float* from = p.data_ptr<float>();
  const auto step = static_cast<size_t>(p.stride(0));
  float* window[kTile * kTile];
  for (int64_t t = 0; t < p.size(1); ++t) {
    grid.pixels<kTile>(maps, channels, t, 0, window);
    training::kernels().output_tile(from + t * channels, step, static_cast<size_t>(channels), bias,
                                    window);
  }
}

Tensor channels_last(const Tensor& maps) {
  return maps.contiguous(torch::MemoryFormat::ChannelsLast);
}

/// body(thread, first, count) for chunks of `images`, each thread having a range of them, so that
/// no thread waits for another before the end.
template <class Body>
void for_chunks(const Grid& grid, int64_t images, int64_t channels, const Body& body) {
  const int64_t threads = at::get_num_threads();
  const int64_t share = (images + threads - 1) / threads;
  const int64_t floats = kFrequencies * grid.tiles() * channels;
  const int64_t chunks = (share * floats + kChunkFloats - 1) / kChunkFloats;
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
  const Tensor u = shared_product(kernel_transform(), taps.reshape({9, -1}))
                       .view({kFrequencies, inputs, outputs});
  Tensor out =
      torch::empty({in.size(0), outputs, grid.height, grid.width},
                   torch::TensorOptions().memory_format(torch::MemoryFormat::ChannelsLast));
  for_chunks(grid, in.size(0), inputs + outputs, [&](int64_t, int64_t first, int64_t count) {
    const Tensor v =
        transform_input(grid, in.data_ptr<float>() + first * pixels * inputs, count, inputs);
    Tensor products = frequencies(count * grid.tiles(), outputs);
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
  for_chunks(grid, in.size(0), inputs + outputs, [&](int64_t thread, int64_t first, int64_t count) {
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
  return shared_product(kernel_transform().t(), sums[0].view({kFrequencies, -1}))
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
  const auto covered = static_cast<double>(grid.tiles() * kTile * kTile);
  const bool pays = x.device().is_cpu() && x.size(1) >= kLeastChannels &&
                    weight.size(0) >= kLeastChannels &&
                    covered <= kMostWaste * static_cast<double>(grid.height * grid.width);
  return pays ? Winograd::apply(x, weight, bias)
              : torch::conv2d(x, weight, bias, /*stride=*/1, /*padding=*/1);
}

}  // namespace graft
