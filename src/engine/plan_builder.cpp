// From layers to steps: which kernels compute them, and where the activations are in between.
#include <cstring>
#include <optional>

#include "base/bfloat16.h"
#include "engine/engine_state.h"
#include "engine/maps.h"
#include "engine/pooling.h"

namespace graft::engine {

/// Turns layers into steps, keeping track of where the activations are.
class Engine::State::Builder {
 public:
  Builder(State& state, Plan& plan, bool single, int capacity)
      : s_(state),
        packed_(*state.packed),
        network_(packed_.network()),
        shapes_(packed_.shapes()),
        end_(packed_.end()),
        plan_(plan),
        single_(single),
        n_(capacity),
        layer_flops_(layer_flops(network_)) {
    plan_.capacity = n_;
  }

  void build() {
    for (size_t i = packed_.begin(); i < end_; ++i) i = add(i);
    finish();
  }

 private:
  /// Adds layer i, with what is fused into it; returns the last layer done.
  size_t add(size_t i) {
    const Layer& layer = network_.layers[i];
    switch (layer.kind) {
      case LayerKind::conv:
        return add_convolution(i);
      case LayerKind::dense: {
        const bool folded = add_dense(i);
        return folded ? i + 1 : i;
      }
      case LayerKind::maxpool:
        add_pooling(i);
        return i;
      case LayerKind::batchnorm:
        add_batchnorm(i);
        return i;
      case LayerKind::gap:
      case LayerKind::gmp:
      case LayerKind::stats:
        add_global_pooling(i);
        return i;
      case LayerKind::flatten:
        need_plain();
        return i;
      case LayerKind::dropout:
      case LayerKind::input:
        return i;
    }
    return i;
  }

  engine::ConvolutionPlan numeric_plan(size_t i) const {
    return s_.numeric_plan(i, single_ ? 1 : 2);  // 2: any number but one
  }

  bool image_by_image(size_t i) const { return s_.image_by_image(i); }

  [[nodiscard]] const Shape& in_shape(size_t i) const {
    return shapes_[network_.layers[i].source()];
  }

  /// Room for the output of layer i, with the border that the convolution behind it reads.
  Maps make_maps(size_t i) {
    Maps maps(shapes_[i], 0, 0);
    for (size_t k = i + 1; k < end_; ++k) {
      const LayerKind kind = network_.layers[k].kind;
      if (kind == LayerKind::conv) {
        const engine::ConvolutionPlan plan = numeric_plan(k);
        maps = Maps(shapes_[i], plan.rows.reach(), plan.columns.reach());
      }
      if (kind != LayerKind::dropout) break;
    }
    plan_.buffers.emplace_back(maps.image() * n_);
    maps.data = plan_.buffers.back().data();
    return maps;
  }

  TileMaps make_tiles(size_t i) {
    TileMaps maps(shapes_[i], s_.tiles->format, n_);
    plan_.buffers.emplace_back(floats_of(maps.elements()));
    maps.data = reinterpret_cast<uint16_t*>(plan_.buffers.back().data());
    maps.scales = make_scales();
    return maps;
  }
  /// Of halves, for each image; else null.
  ImageScale* make_scales() {
    if (s_.tiles->format == TileFormat::bf16) return nullptr;
    return reinterpret_cast<ImageScale*>(make_plain(sizeof(ImageScale) / sizeof(float)));
  }
  /// Chooses scales of plain activations of that shape.
  void measure_plain(ImageScale* scales, const Shape& shape) {
    if (scales == nullptr) return;
    step(false, [scales, size = shape.elements(), plain = plain_](Team::Member& m, const Run& r) {
      measure(m, plain == nullptr ? r.in : plain, size, scales, r.first, r.count);
    });
  }
  /// That so many 16-bit numbers take the room of.
  static size_t floats_of(size_t elements) { return (elements + 1) / 2; }

  float* make_plain(size_t elements) {
    plan_.buffers.emplace_back(elements * n_);
    return plan_.buffers.back().data();
  }

  void step(bool image_by_image, std::function<void(Team::Member&, const Run&)> run) {
    plan_.steps.push_back({std::move(run), image_by_image, {}});
  }

  /// Describes the step added last.
  void describe(size_t i, std::string how, const char* instructions = kernels().target) {
    plan_.steps.back().about = {network_.layers[i].name, std::move(how), instructions,
                                layer_flops_[i], 0};
  }

  /// Activations as maps for layer i to read.
  const Maps& need_maps(size_t i) {
    if (!maps_) {
      need_plain();
      const Maps maps = make_maps(network_.layers[i].source());
      step(false, [maps, plain = plain_](Team::Member& m, const Run& r) {
        to_maps(m, plain == nullptr ? r.in : plain, maps, r.first, r.count);
      });
      maps_ = maps;
    }
    return *maps_;
  }

  /// Activations as 16-bit numbers for layer i to read.
  const TileMaps& need_tiles(size_t i) {
    if (!tiles_) {
      need_plain();
      const TileMaps maps = make_tiles(network_.layers[i].source());
      measure_plain(maps.scales, in_shape(i));
      step(false, [maps, plain = plain_](Team::Member& m, const Run& r) {
        to_tile_maps(m, plain == nullptr ? r.in : plain, maps, r.first, r.count);
      });
      tiles_ = maps;
    }
    return *tiles_;
  }

  /// Activations as plain (N, C, H, W), at plain_; null: the caller's input.
  void need_plain() {
    if (tiles_) {
      const TileMaps maps = *tiles_;
      plain_ = make_plain(static_cast<size_t>(maps.channels) * maps.height * maps.width);
      step(false, [maps, to = plain_](Team::Member& m, const Run& r) {
        tile_maps_to_plain(m, maps, to, r.first, r.count);
      });
      tiles_.reset();
    }
    if (!maps_) return;
    const Maps maps = *maps_;
    plain_ = make_plain(static_cast<size_t>(maps.channels) * maps.height * maps.width);
    step(false, [maps, to = plain_](Team::Member& m, const Run& r) {
      to_plain(m, maps, to, r.first, r.count);
    });
    maps_.reset();
  }

  size_t add_convolution(size_t i) {
    if (s_.tiles != nullptr) return add_tile_convolution(i);
    if (in_shape(i).channels > kDirectChannels) {
      const Maps in = need_maps(i);
      round_operands(in.data, in.image());
      return add_winograd(i, in, nullptr, nullptr);
    }
    need_plain();
    const FirstConvolution* first = &packed_.first_convolution(i, s_.rounds);
    const size_t last = takes_batchnorm(network_, i, end_) ? i + 1 : i;
    float* padded = make_plain(first->padded_image());
    step(false, [first, padded, plain = plain_](Team::Member& m, const Run& r) {
      first->pad(m, plain == nullptr ? r.in : plain, padded, r.count);
    });
    round_operands(padded, first->padded_image());
    const size_t next = last + 1;
    if (!s_.rounds && next < end_ && network_.layers[next].kind == LayerKind::conv &&
        !numeric_plan(next).shared)
      return add_winograd(next, Maps(shapes_[last], 0, 0), first, padded);
    const Maps out = make_maps(last);
    step(image_by_image(i), [first, padded, out](Team::Member& m, const Run& r) {
      first->run(m, padded, out, r.first, r.count);
    });
    describe(i, "direct");
    round_operands(out.data, out.image());
    maps_ = out;
    return last;
  }

  /// What tiles would have rounded, where GRAFT_TARGET says that it be rounded without them.
  void round_operands(float* from, size_t each) {
    if (!s_.rounds) return;
    step(false, [from, each](Team::Member& m, const Run& r) {
      for (int n = m.take(); n < r.count; n = m.take())
        for (float* x = from + (r.first + n) * each; x < from + (r.first + n + 1) * each; ++x)
          *x = from_bfloat16(to_bfloat16(*x));
    });
  }

  /// Convolution i with the pooling behind it; `first`: with the convolution before it, which reads
  /// `padded`, else reading `in`.
  size_t add_winograd(size_t i, const Maps& in, const FirstConvolution* first,
                      const float* padded) {
    size_t last = takes_batchnorm(network_, i, end_) ? i + 1 : i;
    const bool pool = last + 1 < end_ && network_.layers[last + 1].kind == LayerKind::maxpool;
    if (pool) ++last;
    const engine::ConvolutionPlan plan = numeric_plan(i);
    const Convolution* convolution =
        &packed_.convolution(i, plan, pool, first, s_.rounds, *s_.team);
    s_.need_scratch(convolution->private_scratch(), convolution->shared_scratch());
    const Maps out = make_maps(last);
    step(image_by_image(i), [convolution, in, padded, out, s = &s_](Team::Member& m, const Run& r) {
      convolution->run(m, in, padded, out, r.first, r.count, s->private_scratch[m.index()].data(),
                       s->shared_scratch.data());
    });
    describe(i, convolution->description());
    if (first != nullptr) plan_.steps.back().about.flops += first_flops(i);
    round_operands(out.data, out.image());
    maps_ = out;
    return last;
  }

  /// Convolution i on tiles, with the pooling behind it.
  size_t add_tile_convolution(size_t i) {
    if (in_shape(i).channels <= TileFirstConvolution::kMostChannels)
      return add_tile_first_convolution(i);
    size_t last = takes_batchnorm(network_, i, end_) ? i + 1 : i;
    const TileMaps in = need_tiles(i);
    const bool pool = last + 1 < end_ && network_.layers[last + 1].kind == LayerKind::maxpool;
    if (pool) ++last;
    const TileKernels& k = *s_.tiles;
    const TileConvolution* convolution = &packed_.tile_convolution(i, pool, k.format, *s_.team);
    s_.need_scratch(convolution->private_scratch(), 0);
    const TileMaps out = make_tiles(last);
    if (out.scales != nullptr)
      step(image_by_image(i), [convolution, in, out](Team::Member& m, const Run& r) {
        convolution->choose_scales(m, in, out, r.first, r.count);
      });
    step(image_by_image(i), [convolution, &k, in, out, s = &s_](Team::Member& m, const Run& r) {
      convolution->run(m, k, in, out, r.first, r.count, s->private_scratch[m.index()].data());
    });
    describe(i, tile_format() + " " + convolution->description(), k.name);
    tiles_ = out;
    return last;
  }

  size_t add_tile_first_convolution(size_t i) {
    const size_t last = takes_batchnorm(network_, i, end_) ? i + 1 : i;
    const TileKernels& k = *s_.tiles;
    need_plain();
    const TileFirstConvolution* first = &packed_.tile_first_convolution(i, k.format);
    s_.need_scratch(first->private_scratch(), 0);
    ImageScale* scales = make_scales();
    measure_plain(scales, in_shape(i));
    float* padded = make_plain(first->padded_image());
    step(false, [first, scales, padded, plain = plain_](Team::Member& m, const Run& r) {
      first->pad(m, plain == nullptr ? r.in : plain, scales, padded, r.count);
    });
    const TileMaps out = make_tiles(last);
    if (out.scales != nullptr)
      step(image_by_image(i), [first, scales, out](Team::Member& m, const Run& r) {
        first->choose_scales(m, scales, out, r.first, r.count);
      });
    step(image_by_image(i), [first, &k, padded, scales, out, s = &s_](Team::Member& m,
                                                                      const Run& r) {
      first->run(m, k, padded, scales, out, r.first, r.count, s->private_scratch[m.index()].data());
    });
    describe(i, tile_format(), k.name);
    tiles_ = out;
    return last;
  }

  /// As `graft bench` shows it.
  [[nodiscard]] std::string tile_format() const {
    return s_.tiles->format == TileFormat::bf16 ? "bf16" : "fp16x3";
  }

  /// Of the convolution before convolution i, whatever lies between.
  double first_flops(size_t i) const {
    while (network_.layers[--i].kind != LayerKind::conv) {
    }
    return layer_flops_[i];
  }

  bool add_dense(size_t i) {
    need_plain();
    const Dense* dense = &packed_.dense(i, *s_.team);
    s_.need_scratch(Dense::private_scratch(n_), 0);
    float* packed = make_plain((dense->packed_inputs(n_) + n_ - 1) / n_);
    float* out = make_plain(static_cast<size_t>(shapes_[i].channels));
    step(false, [dense, packed, out, plain = plain_, s = &s_](Team::Member& m, const Run& r) {
      dense->run(m, plain == nullptr ? r.in : plain, out, r.count, packed,
                 s->private_scratch[m.index()].data());
    });
    describe(i, "dense");
    plain_ = out;
    return takes_batchnorm(network_, i, end_);
  }

  void add_pooling(size_t i) {
    if (tiles_) {
      const TileMaps in = *tiles_;
      const TileMaps out = make_tiles(i);
      step(image_by_image(network_.layers[i].source()),
           [in, out](Team::Member& m, const Run& r) { pool(m, in, out, r.first, r.count); });
      tiles_ = out;
      return;
    }
    const Maps in = need_maps(i);
    const Maps out = make_maps(i);
    step(image_by_image(network_.layers[i].source()),
         [in, out](Team::Member& m, const Run& r) { pool(m, in, out, r.first, r.count); });
    maps_ = out;
  }

  void add_batchnorm(size_t i) {
    const Affine* affine = &packed_.affine(i);
    const bool relu = network_.layers[i].relu;
    const Shape& shape = shapes_[i];
    if (!shape.flat) {
      const Maps in = need_maps(i);
      const Maps out = make_maps(i);
      step(false, [affine, relu, in, out](Team::Member& m, const Run& r) {
        normalise(m, *affine, relu, in, out, r.first, r.count);
      });
      maps_ = out;
      return;
    }
    need_plain();
    float* out = make_plain(static_cast<size_t>(shape.channels));
    step(false,
         [affine, relu, out, plain = plain_, size = shape.channels](Team::Member& m, const Run& r) {
           const float* in = plain == nullptr ? r.in : plain;
           for (int n = m.take(); n < r.count; n = m.take()) {
             std::copy_n(in + n * size, size, out + n * size);
             apply_affine(*affine, relu, out + n * size, 1);
           }
         });
    plain_ = out;
  }

  void add_global_pooling(size_t i) {
    need_plain();
    const Shape in = in_shape(i);
    const int64_t size = shapes_[i].channels;
    float* out = make_plain(static_cast<size_t>(size));
    step(false, [kind = network_.layers[i].kind, in, size, out, plain = plain_](Team::Member& m,
                                                                                const Run& r) {
      const float* from = plain == nullptr ? r.in : plain;
      for (int n = m.take(); n < r.count; n = m.take())
        global_pool(kind, from + n * in.elements(), in.channels, in.height * in.width,
                    out + n * size);
    });
    plain_ = out;
  }

  /// The last step writes to the caller's memory.
  void finish() {
    if (tiles_) {
      step(false, [maps = *tiles_](Team::Member& m, const Run& r) {
        tile_maps_to_plain(m, maps, r.out, r.first, r.count);
      });
      return;
    }
    if (maps_) {
      step(false, [maps = *maps_](Team::Member& m, const Run& r) {
        to_plain(m, maps, r.out, r.first, r.count);
      });
      return;
    }
    step(false, [plain = plain_, size = s_.out_shape.elements()](Team::Member& m, const Run& r) {
      if (m.index() == 0)
        std::memcpy(r.out, plain == nullptr ? r.in : plain,
                    sizeof(float) * static_cast<size_t>(size) * r.count);
    });
  }

  State& s_;
  PackedNetwork& packed_;
  const Network& network_;
  const std::vector<Shape>& shapes_;
  size_t end_;
  Plan& plan_;
  bool single_;
  int n_;
  std::vector<double> layer_flops_;
  std::optional<Maps> maps_;       // where the activations are …
  std::optional<TileMaps> tiles_;  // … or here …
  float* plain_ = nullptr;         // … or here; none of them: the caller's input
};

Engine::State::Plan& Engine::State::plan_for(int count) {
  const bool single = count == 1 && options.single_plan;
  const int capacity = std::clamp(count, 1, options.max_batch);
  std::unique_ptr<Plan>& slot = plans[single ? 0 : 1];
  if (!slot || slot->capacity < capacity) {
    slot.reset();  // before the larger one is made
    auto plan = std::make_unique<Plan>();
    Builder(*this, *plan, single, capacity).build();
    slot = std::move(plan);
  }
  return *slot;
}

}  // namespace graft::engine
