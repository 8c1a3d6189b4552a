// The engine: a network's layers as steps that a team of threads takes together.
#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/threads.h"
#include "engine/buffer.h"
#include "engine/maps.h"
#include "engine/packed_network.h"
#include "engine/pooling.h"
#include "engine/team.h"

namespace graft::engine {
namespace {

// Up to so many channels a convolution is computed directly. Winograd pads them to 8, so half of
// its products or more would be zeros, in sums of one step of the kernel. Where direct convolution
// ceases to pay was not measured: VGG has 3 channels, then 64.
constexpr int64_t kDirectChannels = 4;
// Activations of one image above this many floats (2 MB) are computed image by image, so that they
// stay in the third-level cache between layers; smaller ones for the whole batch, for fuller
// blocks: inputs and outputs of 8 images at the limit are 32 MB. Not measured by a bench.
constexpr int64_t kImageByImageFloats = 500'000;

using Clock = std::chrono::steady_clock;

/// What steps share while a batch runs.
struct Run {
  const float* in = nullptr;
  float* out = nullptr;
  int first = 0;  ///< images [first, first + count) of the batch
  int count = 0;
};

}  // namespace

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
        team(opts.team ? opts.team
                       : std::make_shared<Team>(opts.threads > 0 ? opts.threads
                                                                 : available_processors())),
        private_scratch(static_cast<size_t>(team->size())) {}

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

  float* make_plain(size_t elements) {
    plan_.buffers.emplace_back(elements * n_);
    return plan_.buffers.back().data();
  }

  void step(bool image_by_image, std::function<void(Team::Member&, const Run&)> run) {
    plan_.steps.push_back({std::move(run), image_by_image, {}});
  }

  /// Describes the step added last.
  void describe(size_t i, std::string how) {
    plan_.steps.back().about = {network_.layers[i].name, std::move(how), layer_flops_[i], 0};
  }

  /// Activations as maps for layer i to read.
  const Maps& need_maps(size_t i) {
    if (!maps_) {
      const Maps maps = make_maps(network_.layers[i].source());
      step(false, [maps, plain = plain_](Team::Member& m, const Run& r) {
        to_maps(m, plain == nullptr ? r.in : plain, maps, r.first, r.count);
      });
      maps_ = maps;
    }
    return *maps_;
  }

  /// Activations as plain (N, C, H, W), at plain_; null: the caller's input.
  void need_plain() {
    if (!maps_) return;
    const Maps maps = *maps_;
    plain_ = make_plain(static_cast<size_t>(maps.channels) * maps.height * maps.width);
    step(false, [maps, to = plain_](Team::Member& m, const Run& r) {
      to_plain(m, maps, to, r.first, r.count);
    });
    maps_.reset();
  }

  size_t add_convolution(size_t i) {
    if (in_shape(i).channels > kDirectChannels) {
      const Maps in = need_maps(i);
      return add_winograd(i, in, nullptr, nullptr);
    }
    need_plain();
    const FirstConvolution* first = &packed_.first_convolution(i);
    const size_t last = takes_batchnorm(network_, i, end_) ? i + 1 : i;
    float* padded = make_plain(first->padded_image());
    step(false, [first, padded, plain = plain_](Team::Member& m, const Run& r) {
      first->pad(m, plain == nullptr ? r.in : plain, padded, r.count);
    });
    const size_t next = last + 1;
    if (next < end_ && network_.layers[next].kind == LayerKind::conv && !numeric_plan(next).shared)
      return add_winograd(next, Maps(shapes_[last], 0, 0), first, padded);
    const Maps out = make_maps(last);
    step(image_by_image(i), [first, padded, out](Team::Member& m, const Run& r) {
      first->run(m, padded, out, r.first, r.count);
    });
    describe(i, "direct");
    maps_ = out;
    return last;
  }

  /// Convolution i with the pooling behind it; `first`: with the convolution before it, which reads
  /// `padded`, else reading `in`.
  size_t add_winograd(size_t i, const Maps& in, const FirstConvolution* first,
                      const float* padded) {
    size_t last = takes_batchnorm(network_, i, end_) ? i + 1 : i;
    const bool pool = last + 1 < end_ && network_.layers[last + 1].kind == LayerKind::maxpool;
    if (pool) ++last;
    const engine::ConvolutionPlan plan = numeric_plan(i);
    const Convolution* convolution = &packed_.convolution(i, plan, pool, first, *s_.team);
    s_.need_scratch(convolution->private_scratch(), convolution->shared_scratch());
    const Maps out = make_maps(last);
    step(image_by_image(i), [convolution, in, padded, out, s = &s_](Team::Member& m, const Run& r) {
      convolution->run(m, in, padded, out, r.first, r.count, s->private_scratch[m.index()].data(),
                       s->shared_scratch.data());
    });
    describe(i, convolution->description());
    if (first != nullptr) plan_.steps.back().about.flops += first_flops(i);
    maps_ = out;
    return last;
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
  std::optional<Maps> maps_;  // where the activations are …
  float* plain_ = nullptr;    // … or here; neither: the caller's input
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

void Engine::State::run(const float* in, int count, float* out) {
  const std::lock_guard lock(mutex);
  for (int done = 0; done < count;) {
    // A remainder of one image within a larger batch is still part of that batch.
    Plan& p = plan_for(count);
    const int batch = std::min(p.capacity, count - done);
    const float* from = in + done * in_shape.elements();
    float* to = out + done * out_shape.elements();
    for (Step& step : p.steps) step.about.seconds = 0;
    team->run([&](Team::Member& member) {
      // Member 0 keeps the time; a step ends when all members have ended it.
      auto before = Clock::now();
      const auto end_step = [&](Step& step) {
        member.next_region();
        if (member.index() != 0) return;
        const auto now = Clock::now();
        step.about.seconds += std::chrono::duration<double>(now - before).count();
        before = now;
      };
      for (size_t i = 0; i < p.steps.size();) {
        size_t last = i;
        while (last < p.steps.size() && p.steps[last].image_by_image) ++last;
        if (last == i) {
          p.steps[i].run(member, {from, to, 0, batch});
          end_step(p.steps[i]);
          ++i;
          continue;
        }
        // Depth first: each image through all the layers whose activations are large.
        for (int n = 0; n < batch; ++n)
          for (size_t k = i; k < last; ++k) {
            p.steps[k].run(member, {from, to, n, 1});
            end_step(p.steps[k]);
          }
        i = last;
      }
    });
    done += batch;
  }
}

Engine::Engine(const Network& network, size_t begin, size_t end, const TensorMap& tensors,
               const EngineOptions& options)
    : state_(std::make_unique<State>(std::make_shared<PackedNetwork>(network, begin, end, tensors),
                                     options)) {}
Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Engine Engine::with_same_weights(const EngineOptions& options) const {
  return Engine(std::make_unique<State>(state_->packed, options));
}

int64_t Engine::input_elements() const { return state_->in_shape.elements(); }
int64_t Engine::output_elements() const { return state_->out_shape.elements(); }
int Engine::max_batch() const { return state_->options.max_batch; }
int Engine::threads() const { return state_->team->size(); }
std::string Engine::instruction_set() { return engine::kernels().target; }
std::string Engine::numerics() {
  return instruction_set() == "avx512" ? "avx2" : instruction_set();
}

uint64_t Engine::estimate(int count) const {
  const State& s = *state_;
  const PackedNetwork& packed = *s.packed;
  const std::vector<Shape>& shapes = packed.shapes();
  const auto kind = [&](size_t i) {
    return i < packed.end() ? packed.network().layers[i].kind : LayerKind::input;
  };
  const auto input = [&](size_t i) -> const Shape& {
    return shapes[packed.network().layers[i].source()];
  };
  // What Builder fuses leaves no output of its own.
  const auto fused = [&](size_t i) {
    const LayerKind next = kind(i + 1);
    if (kind(i) == LayerKind::dropout) return true;
    if (kind(i) == LayerKind::batchnorm) return next == LayerKind::maxpool;
    if (kind(i) != LayerKind::conv) return false;
    return (next == LayerKind::batchnorm && !packed.network().layers[i].relu) ||
           next == LayerKind::maxpool ||
           (next == LayerKind::conv && input(i).channels <= kDirectChannels);
  };
  // Maps are kept in whole blocks of channels; what reads them one by one gets a copy.
  const int64_t block = kernels().block;
  const auto stored = [&](size_t i) {
    const Shape& shape = shapes[i];
    const int64_t channels =
        shape.flat ? shape.channels : (shape.channels + block - 1) / block * block;
    return static_cast<uint64_t>(shape.elements() / shape.channels * channels);
  };
  uint64_t each = static_cast<uint64_t>(s.in_shape.elements());  // with its border
  for (size_t i = packed.begin(); i < packed.end(); ++i) {
    if (!fused(i)) each += stored(i);
    const LayerKind k = kind(i);
    if (k == LayerKind::gap || k == LayerKind::gmp || k == LayerKind::stats)
      each += static_cast<uint64_t>(input(i).elements());
  }
  uint64_t floats = each * static_cast<uint64_t>(std::clamp(count, 1, s.options.max_batch));
  for (const TensorSpec& spec : tensor_specs(packed.network(), packed.begin(), packed.end())) {
    auto each_weight = static_cast<double>(spec.elements());
    if (spec.shape.size() == 4 && input(spec.layer).channels > kDirectChannels)
      each_weight *= weights_per_kernel(s.numeric_plan(spec.layer, count)) / 9.0;
    floats += static_cast<uint64_t>(each_weight);
  }
  return floats * sizeof(float);
}

EngineMemory Engine::prepare(int count) {
  const std::lock_guard lock(state_->mutex);
  const State::Plan& plan = state_->plan_for(count);
  uint64_t floats = state_->shared_scratch.size();
  for (const Buffer& buffer : plan.buffers) floats += buffer.size();
  for (const Buffer& buffer : state_->private_scratch) floats += buffer.size();
  return {state_->packed->packed() * sizeof(float), floats * sizeof(float)};
}

std::vector<EngineStep> Engine::steps(int count) {
  const std::lock_guard lock(state_->mutex);
  std::vector<EngineStep> steps;
  for (const State::Step& step : state_->plan_for(count).steps) steps.push_back(step.about);
  return steps;
}

void Engine::run(const float* in, int count, float* out) { state_->run(in, count, out); }

}  // namespace graft::engine
