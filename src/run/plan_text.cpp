#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "base/progress.h"
#include "engine/engine.h"
#include "graft/train.h"
#include "image/augment.h"
#include "recipe/option_values.h"
#include "report/run_forecast.h"
#include "weights/load.h"

namespace graft {
namespace {

// FLOP/s where there is no prefix to measure: an assumption, of the order of two cores' products.
constexpr double kUnmeasuredRate = 50e9;

std::string bytes_text(uint64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

/// Seconds for `count` images through the prefix, from a short measurement.
double measure_prefix(const TrainPlan& plan, size_t end, int threads, size_t count) {
  const Network net = cut_after(plan.network, plan.network.layers[end - 1].name);
  engine::EngineOptions options;
  options.threads = threads;
  options.max_batch = 4;
  options.precision = plan.recipe.precision;
  engine::Engine engine(net, 0, end, random_tensors(net, 0, end, 0), options);
  std::vector<float> in(static_cast<size_t>(engine.input_elements()) * 4, 0.5F);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()) * 4);
  engine.run(in.data(), 4, out.data());  // builds the plan
  const auto start = std::chrono::steady_clock::now();
  engine.run(in.data(), 4, out.data());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  return taken.count() / 4 * static_cast<double>(count);
}

std::string prefix_text(const TrainPlan& plan, const TrainPhase& phase) {
  if (plan.views == 0) return "computed in every epoch, for new views of the images";
  if (!phase.keep_features)
    return !plan.cache.use
               ? "computed in every epoch (its outputs do not fit into memory)"
               : "computed once, read from the cache (its outputs do not fit into memory)";
  if (plan.views == 1) return "computed once for each image";
  return fmt::format("computed once for each of {} views of each image", plan.views);
}

}  // namespace

std::string plan_text(const TrainPlan& plan, bool with_time, const RunContext& context) {
  const Recipe& recipe = plan.recipe;
  const Recipe::Optimization& o = recipe.optimization;
  const Augmentation augmentation = parse_augmentation(recipe.views.augment);
  const Summary summary = summarize(plan.network, plan.freeze);
  const auto& layers = plan.network.layers;
  std::string text = fmt::format("data       understood as {}\n", plan.dataset.understood);
  text += fmt::format("backbone   {} at {}x{}, cut behind {}\n", plan.network.backbone,
                      plan.network.input_height, plan.network.input_width,
                      recipe.model.until.empty() ? "its last pooling" : recipe.model.until);
  text += fmt::format("head       {}\n", plan.head);
  text += fmt::format("parameters {} total, {} trainable, {} frozen\n",
                      format_count(summary.parameters), format_count(summary.trainable),
                      format_count(summary.non_trainable()));
  const char* rounded = recipe.precision == Precision::bf16 ? "; in bfloat16" : "";
  for (const TrainPhase& phase : plan.phases) {
    if (phase.prefix_end > 1)
      text += fmt::format("prefix     input … {}, {}{}\n", layers[phase.prefix_end - 1].name,
                          prefix_text(plan, phase), rounded);
    const int patience = o.patience.value_or(0);
    text += fmt::format("training   {} epochs{}, batch {}, {} at {:g}{}{}\n", phase.epochs,
                        patience > 0 ? " at most" : "", o.batch_size, options::word(o.optimizer),
                        phase.learning_rate,
                        patience > 0 ? fmt::format(", patience {}", patience) : "", rounded);
  }
  if (!augmentation.leaves_images() || augmentation.mixup + augmentation.cutmix > 0)
    text += fmt::format("augment    {}\n", recipe.views.augment);
  const MemoryEstimate& m = plan.memory;
  text += fmt::format(
      "memory     about {} of {} available: features {}, parameters and optimiser "
      "{}, activations {}, prefix {}\n",
      bytes_text(m.total()), m.available == 0 ? "unknown" : bytes_text(m.available),
      bytes_text(m.features), bytes_text(m.parameters), bytes_text(m.activations),
      bytes_text(m.prefix));
  if (!with_time) return text;
  if (engine::names_device(recipe.device))
    return text + fmt::format("time       not told for {}: it is measured on the processor alone\n",
                              recipe.device);

  const PlannedWork work = planned_work(plan);
  for (size_t k = 0; k < plan.phases.size(); ++k) {
    const PlannedWork::Phase& phase = work.phases[k];
    double rate = kUnmeasuredRate;
    double prefix_seconds = 0;
    if (phase.prefix_flops > 0) {
      prefix_seconds = measure_prefix(plan, plan.phases[k].prefix_end, context.thread_count(),
                                      static_cast<size_t>(phase.images));
      rate = phase.prefix_flops * phase.images / prefix_seconds;
    }
    const double epoch = phase.epoch_flops / rate + phase.epoch_seconds;
    text += phase.stored
                ? fmt::format("time       {} an epoch, the prefix being in the cache by then\n",
                              format_duration(epoch))
                : fmt::format("time       about {} for the prefix, then {} an epoch\n",
                              format_duration(phase.every_epoch ? 0 : prefix_seconds),
                              format_duration(epoch));
  }
  return text;
}

}  // namespace graft
