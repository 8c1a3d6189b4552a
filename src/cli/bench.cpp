// graft bench: what this machine can do, and how near the engine comes to it.
#include <algorithm>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "graft/speed.h"
#include "recipe/options.h"

namespace graft::cli {
namespace {

using nlohmann::json;

struct BenchOptions {
  CommonOptions common;
  std::string backbone = "vgg16";
  std::string model;
  std::vector<int> sizes = {150, 224};
  std::vector<int> batches = {1, 16};
  int repeats = 5;
  Precision precision = Precision::fp32;
  bool json = false;
};

/// What a layer's time is measured by: of the instructions that it uses, if there is a peak of
/// theirs.
const Peak& peak_of(const LayerTime& layer, const MachineLimits& machine) {
  const Peak* peak = machine.peak(layer.instructions);
  return peak != nullptr ? *peak : *machine.peak(instruction_set());
}

/// One network, size and batch: medians over the repeats, layer by layer.
json bench_network(const BenchOptions& o, int size, int batch, const MachineLimits& machine) {
  const NetworkTime time =
      measure_network(o.backbone, size, batch, o.repeats, o.common.context(), o.precision);
  size_t how = 3;  // characters
  for (const LayerTime& layer : time.layers)
    if (layer.flops > 0) how = std::max(how, layer.how.size());
  if (!o.json) {
    print_result("\n{} at {}x{}, batch {}: {} of memory\n", o.backbone, size, size, batch,
                 format_bytes(static_cast<double>(time.memory)));
    print_result("{:<14} {:<{}} {:>8} {:>6} {:>8} {:>8}\n", "layer", "how", how, "ms", "share",
                 "GFLOP/s", "of peak");
  }
  json layers = json::array();
  double flops = 0;
  double least = 0;  // seconds, if all layers ran at their peaks
  for (const LayerTime& layer : time.layers) {
    const double peak = peak_of(layer, machine).flops_all;
    flops += layer.flops * batch;
    least += layer.flops * batch / peak;
    const double rate = layer.flops * batch / layer.seconds;
    layers.push_back({{"layer", layer.layer},
                      {"how", layer.how},
                      {"instructions", layer.instructions},
                      {"ms", layer.seconds * 1e3},
                      {"share", layer.seconds / time.seconds},
                      {"gflops", rate / 1e9},
                      {"of_peak", rate / peak}});
    if (!o.json && layer.flops > 0)
      print_result("{:<14} {:<{}} {:>8.2f} {:>5.1f}% {:>8.1f} {:>7.2f}x\n", layer.layer, layer.how,
                   how, layer.seconds * 1e3, 100 * layer.seconds / time.seconds, rate / 1e9,
                   rate / peak);
  }
  const double rate = flops / time.seconds;
  if (!o.json)
    print_result("{:<{}} {:>8.2f} {:>6} {:>8.1f} {:>7.2f}x  {:.1f} images/s\n", "all", how + 15,
                 time.seconds * 1e3, "", rate / 1e9, least / time.seconds, batch / time.seconds);
  return {{"backbone", o.backbone},
          {"size", size},
          {"batch", batch},
          {"memory_bytes", time.memory},
          {"layers", layers},
          {"ms", time.seconds * 1e3},
          {"gflops", rate / 1e9},
          {"of_peak", least / time.seconds},
          {"images_per_second", batch / time.seconds}};
}

/// From a model file to the first logits, in its parts.
json bench_model(const BenchOptions& o) {
  const LoadTime time = measure_model(o.model, o.common.context(), o.precision);
  const double all = time.read + time.pack + time.run;
  if (!o.json)
    print_result(
        "\n{}: read and checked {:.1f} ms, weights packed {:.1f} ms, first logits {:.1f} ms, "
        "together {:.1f} ms\n",
        printable(o.model), time.read * 1e3, time.pack * 1e3, time.run * 1e3, all * 1e3);
  return {{"model", o.model},
          {"read_ms", time.read * 1e3},
          {"pack_ms", time.pack * 1e3},
          {"run_ms", time.run * 1e3},
          {"first_logits_ms", all * 1e3}};
}

int run(const BenchOptions& given) {
  BenchOptions o = given;
  o.precision = resolve_precision(given.precision);  // before anything is measured
  const int threads = o.common.thread_count();
  const MachineLimits machine = measure_machine(threads);
  json peaks = json::array();
  for (const Peak& peak : machine.peaks)
    peaks.push_back({{"instructions", peak.instructions},
                     {"precision", options::word(peak.precision)},
                     {"lanes", peak.lanes},
                     {"gflops_one_thread", peak.flops_one / 1e9},
                     {"gflops", peak.flops_all / 1e9}});
  const std::string target = convolution_target(o.precision);
  json document = {{"instruction_set", instruction_set()},
                   {"precision", options::word(o.precision)},
                   {"target", target},
                   {"threads", threads},
                   {"peaks", peaks},
                   {"memory_gb_per_second", machine.bytes_all / 1e9},
                   {"networks", json::array()}};
  // A second thread that brings nothing: another program has the processor.
  constexpr double kAlone = 1.3;
  if (threads > 1 && std::any_of(machine.peaks.begin(), machine.peaks.end(), [](const Peak& peak) {
        return peak.flops_all < kAlone * peak.flops_one;
      }))
    o.common.context().tell(
        Severity::warning,
        "several threads get through hardly more than one: the machine is busy, or its processors "
        "share a core; these figures then say little, above all those of single layers");
  if (!o.json) {
    print_result("target {}, {}; memory {:.1f} GB/s; most multiply-adds, in GFLOP/s:\n", target,
                 threads == 1 ? "1 thread" : fmt::format("{} threads", threads),
                 machine.bytes_all / 1e9);
    for (const Peak& peak : machine.peaks)
      print_result("  {:<12} {} {:>8.0f}  ({:.0f} with one thread)\n", peak.instructions,
                   options::word(peak.precision), peak.flops_all / 1e9, peak.flops_one / 1e9);
    print_result(
        "(a layer above 1.00x of peak does fewer multiplications than direct convolution)\n");
  }
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
  add_precision_option(app, o.precision);
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
