// What an engine consists of: packed layers, steps that run them, and the memory between.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "engine/buffer.h"
#include "engine/engine.h"
#include "engine/packed_network.h"
#include "engine/team.h"
#include "engine/tile_kernels.h"

namespace graft::engine {

// Up to so many channels a convolution is computed directly. Winograd pads them to 8, so half of
// its products or more would be zeros, in sums of one step of the kernel. Where direct convolution
// ceases to pay was not measured: VGG has 3 channels, then 64.
inline constexpr int64_t kDirectChannels = 4;
// Activations of one image above this many floats (2 MB) are computed image by image, so that they
// stay in the third-level cache between layers; smaller ones for the whole batch, for fuller
// blocks: inputs and outputs of 8 images at the limit are 32 MB. Not measured by a bench.
inline constexpr int64_t kImageByImageFloats = 500'000;

/// What steps share while a batch runs.
struct Run {
  const float* in = nullptr;
  float* out = nullptr;
  int first = 0;  ///< images [first, first + count) of the batch
  int count = 0;
};

struct Engine::State {
  /// One step of a plan. Steps of one group run image by image.
  struct Step {
    std::function<void(Team::Member&, const Run&)> run;
    bool image_by_image = false;
    EngineStep about;
  };

  /// Steps and activations for batches of one image, or of up to `capacity`.
  struct Plan {
    int capacity = 0;
    std::vector<Step> steps;
    std::vector<Buffer> buffers;
  };

  std::shared_ptr<PackedNetwork> packed;
  EngineOptions options;
  Shape in_shape;
  Shape out_shape;
  const TileKernels* tiles;  // of convolutions on tiles; null: by Winograd's way …
  bool rounds;               // … with operands that are rounded to bfloat16
  std::shared_ptr<Team> team;
  std::unique_ptr<Plan> plans[2];  // [0]: one image, [1]: more
  std::vector<Buffer> private_scratch;
  Buffer shared_scratch;
  std::mutex mutex;

  State(std::shared_ptr<PackedNetwork> network, const EngineOptions& opts)
      : packed(std::move(network)),
        options(opts),
        in_shape(packed->shapes()[packed->begin() - 1]),
        out_shape(packed->shapes()[packed->end() - 1]),
        tiles(choose_tiles(opts)),
        rounds(tiles == nullptr && resolve_precision(opts.precision) == Precision::bf16),
        team(opts.team ? opts.team
                       : std::make_shared<Team>(opts.threads > 0 ? opts.threads
                                                                 : available_processors())),
        private_scratch(static_cast<size_t>(team->size())) {}

  /// A forced tile of Winograd's is for its tests.
  static const TileKernels* choose_tiles(const EngineOptions& options) {
    const Precision precision = resolve_precision(options.precision);
    if (options.tiles != nullptr) return options.tiles;
    return options.winograd_tile != 0 && precision == Precision::fp32 ? nullptr
                                                                      : tile_kernels(precision);
  }
  [[nodiscard]] bool image_by_image(size_t i) const {
    return packed->shapes()[i].elements() > kImageByImageFloats;
  }
  /// Of convolution i, for batches of `count` images.
  [[nodiscard]] engine::ConvolutionPlan numeric_plan(size_t i, int count) const {
    const Shape& in = packed->shapes()[packed->network().layers[i].source()];
    const bool single = (count == 1 && options.single_plan) || image_by_image(i);
    return engine::plan_convolution(in.channels, packed->shapes()[i].channels, in.height, in.width,
                                    single, options.winograd_tile);
  }

  class Builder;
  /// Built for as many images as were ever at hand, up to max_batch.
  Plan& plan_for(int count);
  void run(const float* in, int count, float* out);
  void need_scratch(size_t for_each, size_t for_all) {
    for (Buffer& buffer : private_scratch)
      if (buffer.size() < for_each) buffer = Buffer(for_each);
    if (shared_scratch.size() < for_all) shared_scratch = Buffer(for_all);
  }
};

}  // namespace graft::engine
