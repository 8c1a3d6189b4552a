#include "graft/speed.h"

#include <algorithm>
#include <chrono>

#include "base/fail.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/tile_kernels.h"
#include "model/model_file.h"
#include "weights/load.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

std::string instruction_set() { return engine::Engine::instruction_set(); }

std::string convolution_target(Precision precision) {
  const Precision resolved = resolve_precision(precision);
  if (const engine::TileKernels* tiles = engine::tile_kernels(resolved)) return tiles->name;
  return resolved == Precision::bf16 ? engine::kRoundedTarget : instruction_set();
}

NetworkTime measure_network(std::string_view backbone_name, int size, int batch, int repeats,
                            const RunContext& context, Precision precision) {
  constexpr int kMaxBatch = 1024;
  constexpr int kMaxRepeats = 1000;
  if (batch < 1 || batch > kMaxBatch || repeats < 1 || repeats > kMaxRepeats)
    fail(ErrorKind::usage, "{} repeats of a batch of {}; expected 1 to {} of 1 to {}", repeats,
         batch, kMaxRepeats, kMaxBatch);
  const Network net = backbone(backbone_name, size, size);
  engine::EngineOptions options;
  options.threads = context.thread_count();
  options.max_batch = std::max(batch, 2);
  options.precision = precision;
  options.single_plan = true;  // of one image, the least time that it can take
  engine::Engine engine(net, 0, net.layers.size(), random_tensors(net, 0, net.layers.size(), 1),
                        options);
  const engine::EngineMemory parts = engine.prepare(batch);
  std::vector<float> in(static_cast<size_t>(engine.input_elements()) * batch);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()) * batch);
  Random random(1);
  for (float& value : in) value = static_cast<float>(random.uniform(-100, 150));
  engine.run(in.data(), batch, out.data());
  std::vector<double> totals;
  std::vector<std::vector<double>> times;
  for (int i = 0; i < repeats; ++i) {
    context.check_stop();
    const auto start = Clock::now();
    engine.run(in.data(), batch, out.data());
    totals.push_back(seconds_since(start));
    const std::vector<engine::EngineStep> steps = engine.steps(batch);
    times.resize(steps.size());
    for (size_t k = 0; k < steps.size(); ++k) times[k].push_back(steps[k].seconds);
  }
  NetworkTime result{parts.weights + parts.buffers, {}, median(totals)};
  const std::vector<engine::EngineStep> steps = engine.steps(batch);
  for (size_t k = 0; k < steps.size(); ++k)
    result.layers.push_back(
        {steps[k].layer, steps[k].how, steps[k].instructions, steps[k].flops, median(times[k])});
  return result;
}

LoadTime measure_model(const std::filesystem::path& model, const RunContext& context,
                       Precision precision) {
  const auto start = Clock::now();
  const ModelFile file = read_model(model_file(model));
  const double read = seconds_since(start);
  const Network& net = file.metadata.network;
  engine::EngineOptions options;
  options.threads = context.thread_count();
  options.max_batch = 2;
  options.precision = precision;
  engine::Engine engine(net, 0, net.layers.size(), file.tensors, options);
  engine.prepare(1);
  const double packed = seconds_since(start);
  std::vector<float> in(static_cast<size_t>(engine.input_elements()), 0.5F);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()));
  engine.run(in.data(), 1, out.data());
  return {read, packed - read, seconds_since(start) - packed};
}

}  // namespace graft
