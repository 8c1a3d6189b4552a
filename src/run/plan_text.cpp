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
#include "weights/load.h"

namespace graft {
namespace {

// FLOP/s where there is no prefix to measure: an assumption, of the order of two cores' products.
constexpr double kUnmeasuredRate = 50e9;
// Of an optimiser's pass over parameters, gradients and moments, which is bound by memory: an
// assumption likewise.
constexpr double kBytesPerSecond = 8e9;

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
  for (const TrainPhase& phase : plan.phases) {
    if (phase.prefix_end > 1)
      text += fmt::format("prefix     input … {}, {}{}\n", layers[phase.prefix_end - 1].name,
                          prefix_text(plan, phase),
                          recipe.precision == Precision::bf16 ? "; in bfloat16" : "");
    const int patience = o.patience.value_or(0);
    text += fmt::format("training   {} epochs{}, batch {}, {} at {:g}{}\n", phase.epochs,
                        patience > 0 ? " at most" : "", o.batch_size, options::word(o.optimizer),
                        phase.learning_rate,
                        patience > 0 ? fmt::format(", patience {}", patience) : "");
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

  const size_t train = plan.dataset.of(Split::train).size();
  const size_t val = plan.dataset.of(Split::validation).size();
  const std::vector<double> flops = layer_flops(plan.network);
  for (const TrainPhase& phase : plan.phases) {
    double prefix_flops = 0;
    double suffix_flops = 0;
    for (size_t i = 0; i < flops.size(); ++i)
      (i < phase.prefix_end ? prefix_flops : suffix_flops) += flops[i];
    double rate = kUnmeasuredRate;
    double prefix_seconds = 0;
    const size_t views = static_cast<size_t>(std::max(plan.views, 1));
    const bool every_epoch = plan.views == 0 || (!phase.keep_features && !plan.cache.use);
    const size_t images =
        train * (every_epoch ? 1 : views) + val * static_cast<size_t>(recipe.views.test);
    if (phase.prefix_end > 1 && prefix_flops > 0) {
      prefix_seconds = measure_prefix(plan, phase.prefix_end, context.thread_count(), images);
      rate = prefix_flops * static_cast<double>(images) / prefix_seconds;
    }
    // Forward and two backward products; Adam reads and writes each parameter about ten times.
    const double steps = static_cast<double>(train) / o.batch_size;
    const double epoch =
        (3.0 * static_cast<double>(train) + static_cast<double>(val)) * suffix_flops / rate +
        steps * static_cast<double>(m.parameters) / 4 * 10 / kBytesPerSecond +
        (every_epoch ? prefix_seconds : 0);
    // A phase stores what the next one's shorter prefix gives.
    const bool stored =
        &phase != &plan.phases.front() && phase.prefix_end > 1 && plan.cache.use && plan.views != 0;
    text += stored ? fmt::format("time       {} an epoch, the prefix being in the cache by then\n",
                                 format_duration(epoch))
                   : fmt::format("time       about {} for the prefix, then {} an epoch\n",
                                 format_duration(every_epoch ? 0 : prefix_seconds),
                                 format_duration(epoch));
  }
  return text;
}

}  // namespace graft
