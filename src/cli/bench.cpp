// graft bench: what this machine can do, and how near the engine comes to it.
#include <algorithm>
#include <chrono>

#include "base/file.h"
#include "base/random.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/signals.h"
#include "engine/engine.h"
#include "engine/machine.h"
#include "graft/classifier.h"
#include "graft/error.h"
#include "model/model_file.h"
#include "recipe/options.h"
#include "weights/load.h"

namespace graft::cli {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

struct BenchOptions {
  CommonOptions common;
  std::string backbone = "vgg16";
  std::string model;
  std::vector<int> sizes = {150, 224};
  std::vector<int> batches = {1, 16};
  int repeats = 5;
  bool json = false;
};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// One network, size and batch: medians over the repeats, layer by layer.
json bench_network(const BenchOptions& o, int size, int batch, const MachineLimits& machine) {
  const Network net = backbone(o.backbone, size, size);
  EngineOptions options;
  options.threads = o.common.thread_count();
  options.max_batch = std::max(batch, 2);
  options.single_plan = true;  // of one image, the least time that it can take
  Engine engine(net, 0, net.layers.size(), random_tensors(net, 0, net.layers.size(), 1), options);
  const EngineMemory parts = engine.prepare(batch);
  const uint64_t memory = parts.weights + parts.buffers;
  if (!o.json)
    print_result("\n{} at {}x{}, batch {}: {} of memory\n", o.backbone, size, size, batch,
                 format_bytes(static_cast<double>(memory)));
  std::vector<float> in(static_cast<size_t>(engine.input_elements()) * batch);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()) * batch);
  Random random(1);
  for (float& value : in) value = static_cast<float>(random.uniform(-100, 150));
  engine.run(in.data(), batch, out.data());
  std::vector<double> totals;
  std::vector<std::vector<double>> times;
  for (int i = 0; i < o.repeats; ++i) {
    check_interrupted();
    const auto start = Clock::now();
    engine.run(in.data(), batch, out.data());
    totals.push_back(seconds_since(start));
    const std::vector<EngineStep> steps = engine.steps(batch);
    times.resize(steps.size());
    for (size_t k = 0; k < steps.size(); ++k) times[k].push_back(steps[k].seconds);
  }
  json layers = json::array();
  const std::vector<EngineStep> steps = engine.steps(batch);
  double flops = 0;
  if (!o.json)
    print_result("{:<14} {:<24} {:>9} {:>9} {:>8}\n", "layer", "how", "ms", "GFLOP/s", "of peak");
  for (size_t k = 0; k < steps.size(); ++k) {
    const double seconds = median(times[k]);
    flops += steps[k].flops * batch;
    const double rate = steps[k].flops * batch / seconds;
    layers.push_back({{"layer", steps[k].layer},
                      {"how", steps[k].how},
                      {"ms", seconds * 1e3},
                      {"gflops", rate / 1e9},
                      {"of_peak", rate / machine.flops_all}});
    if (!o.json && steps[k].flops > 0)
      print_result("{:<14} {:<24} {:>9.2f} {:>9.1f} {:>7.2f}x\n", steps[k].layer, steps[k].how,
                   seconds * 1e3, rate / 1e9, rate / machine.flops_all);
  }
  const double total = median(totals);
  if (!o.json)
    print_result("{:<39} {:>9.2f} {:>9.1f} {:>7.2f}x   {:.1f} images/s\n", "all", total * 1e3,
                 flops / total / 1e9, flops / total / machine.flops_all, batch / total);
  return {{"backbone", o.backbone},
          {"size", size},
          {"batch", batch},
          {"memory_bytes", memory},
          {"layers", layers},
          {"ms", total * 1e3},
          {"gflops", flops / total / 1e9},
          {"of_peak", flops / total / machine.flops_all},
          {"images_per_second", batch / total}};
}

/// From a model file to the first logits, in its parts.
json bench_model(const BenchOptions& o) {
  const auto start = Clock::now();
  const ModelFile file = read_model(resolve_model(o.model));
  const double read = seconds_since(start);
  const Network& net = file.metadata.network;
  Engine engine(net, 0, net.layers.size(), file.tensors, {o.common.thread_count(), 2});
  engine.prepare(1);
  const double packed = seconds_since(start);
  std::vector<float> in(static_cast<size_t>(engine.input_elements()), 0.5F);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()));
  engine.run(in.data(), 1, out.data());
  const double first = seconds_since(start);
  if (!o.json)
    print_result(
        "\n{}: read and checked {:.1f} ms, weights packed {:.1f} ms, first logits {:.1f} ms, "
        "together {:.1f} ms\n",
        printable(o.model), read * 1e3, (packed - read) * 1e3, (first - packed) * 1e3, first * 1e3);
  return {{"model", o.model},
          {"read_ms", read * 1e3},
          {"pack_ms", (packed - read) * 1e3},
          {"run_ms", (first - packed) * 1e3},
          {"first_logits_ms", first * 1e3}};
}

int run(const BenchOptions& o) {
  const int threads = o.common.thread_count();
  const MachineLimits machine = measure_machine(threads);
  json document = {{"instruction_set", Engine::instruction_set()},
                   {"threads", threads},
                   {"fma_lanes", machine.lanes},
                   {"fma_gflops_one_thread", machine.flops_one / 1e9},
                   {"fma_gflops", machine.flops_all / 1e9},
                   {"memory_gb_per_second", machine.bytes_all / 1e9},
                   {"networks", json::array()}};
  if (!o.json)
    print_result(
        "{}, {} threads: FMA peak {:.0f} GFLOP/s ({:.0f} one thread) with vectors of {} floats, "
        "memory "
        "{:.1f} GB/s\n"
        "(a layer above 1.00x of peak does fewer multiplications than direct convolution)\n",
        Engine::instruction_set(), threads, machine.flops_all / 1e9, machine.flops_one / 1e9,
        machine.lanes, machine.bytes_all / 1e9);
  for (const int size : o.sizes)
    for (const int batch : o.batches)
      document["networks"].push_back(bench_network(o, size, batch, machine));
  if (!o.model.empty()) document["model"] = bench_model(o);
  if (o.json) print_json(document);
  return 0;
}

}  // namespace

int run_bench(int argc, char** argv) {
  BenchOptions o;
  CLI::App app("This machine's limits, and the engine's speed on it, layer by layer.",
               "graft bench");
  app.add_option("--backbone", o.backbone, "Backbone to time, with random weights")
      ->transform(options::backbone_name)
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--model", o.model, "Also time a saved model from file to first logits")
      ->type_name("MODEL");
  app.add_option("--size", o.sizes, "Input sizes")->check(whole_number(32, 4096))->type_name("N…");
  app.add_option("--batch", o.batches, "Batch sizes")
      ->check(whole_number(1, 1024))
      ->type_name("N…");
  app.add_option("--repeats", o.repeats, "Runs of each; medians are shown")
      ->check(whole_number(1, 1000))
      ->capture_default_str()
      ->type_name("N");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft bench\n"
      "  graft bench --backbone vgg19 --size 224 --batch 8 --json\n"
      "  graft bench --size 32 --batch 1 --model runs/scenes");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
