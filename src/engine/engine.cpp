// The engine: a network's layers as steps that a team of threads takes together.
#include "engine/engine.h"

#include <fmt/format.h>

#include <chrono>

#include "engine/engine_state.h"

namespace graft::engine {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

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

std::unique_ptr<Executor> Engine::beside(const EngineOptions& options) const {
  return std::make_unique<Engine>(with_same_weights(options));
}

int64_t Engine::input_elements() const { return state_->in_shape.elements(); }
int64_t Engine::output_elements() const { return state_->out_shape.elements(); }
int Engine::max_batch() const { return state_->options.max_batch; }
int Engine::threads() const { return state_->team->size(); }
std::string Engine::instruction_set() { return engine::kernels().target; }
std::string Engine::numerics(Precision precision) {
  const std::string plain = instruction_set() == "avx512" ? "avx2" : instruction_set();
  const Precision resolved = resolve_precision(precision);
  if (const TileKernels* tiles = tile_kernels(resolved))
    return fmt::format("{} {}", plain, tiles->numerics);
  return resolved == Precision::bf16 ? fmt::format("{} {}", plain, kRoundedTarget) : plain;
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
           (s.tiles == nullptr && !s.rounds && next == LayerKind::conv &&
            input(i).channels <= kDirectChannels);
  };
  // Maps are kept in whole blocks of channels; what reads them one by one gets a copy.
  const int64_t block = kernels().block;
  const auto stored = [&](size_t i) {
    const Shape& shape = shapes[i];
    if (s.tiles != nullptr && !shape.flat)
      return TileMaps(shape, s.tiles->format, 1).elements() / 2;
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
    if (spec.shape.size() == 4 && s.tiles != nullptr)
      each_weight =
          TileConvolution::packed(input(spec.layer).channels, spec.shape[0], s.tiles->format);
    else if (spec.shape.size() == 4 && input(spec.layer).channels > kDirectChannels)
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
