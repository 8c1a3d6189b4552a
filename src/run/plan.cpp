#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "base/fail.h"
#include "base/limits.h"
#include "base/progress.h"
#include "dataset/dataset.h"
#include "engine/engine.h"
#include "graft/train.h"
#include "image/augment.h"
#include "run/changes.h"
#include "run/keep_head.h"
#include "run/prepare.h"
#include "run/training_limits.h"
#include "weights/load.h"

namespace graft {
namespace {

// What no training does with: the limit is at fault, whatever the recipe.
constexpr uint64_t kLeastSensible = 20'000'000;

uint64_t parameter_bytes(const Network& network, size_t begin) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : tensor_specs(network, begin, network.layers.size()))
    bytes += sizeof(float) * static_cast<uint64_t>(spec.elements());
  return bytes;
}

/// Copies of the trained parameters that the training state holds: themselves, the optimiser's
/// moments, and their average.
uint64_t state_copies(const Recipe::Optimization& o) {
  return 1 + (o.ema > 0 ? 1 : 0) +
         (o.optimizer == OptimizerKind::sgd ? (o.momentum > 0 ? 1 : 0) : 2);
}

/// Fails now, and not after the first epoch, where a limit forbids files as large as this run's.
void check_file_sizes(const TrainPlan& plan) {
  const std::optional<uint64_t> limit = file_size_limit();
  if (!limit) return;
  uint64_t largest = parameter_bytes(plan.network, 0);
  for (const TrainPhase& phase : plan.phases)
    largest = std::max(largest, state_copies(plan.recipe.optimization) *
                                    parameter_bytes(plan.network, phase.prefix_end));
  if (largest > *limit)
    fail(
        ErrorKind::io,
        "the limit on file sizes (ulimit -f) is {}, and this run's largest file takes {}; raise it",
        format_bytes(static_cast<double>(*limit)), format_bytes(static_cast<double>(largest)));
}

MemoryEstimate estimate_memory(const TrainPlan& plan, const TrainPhase& phase) {
  MemoryEstimate m;
  const std::vector<Shape> shapes = output_shapes(plan.network);
  const uint64_t train = plan.dataset.of(Split::train).size();
  const uint64_t val = plan.dataset.of(Split::validation).size();
  const uint64_t pixels =
      static_cast<uint64_t>(plan.network.input_height) * plan.network.input_width * 3;
  const bool has_prefix = phase.prefix_end > 1;
  // Features from the cache are halves, and kept as such.
  const bool halves =
      plan.feature_type == FeatureType::fp16 && !plan.network.layers[phase.prefix_end - 1].in_head;
  const uint64_t feature_bytes =
      (halves ? 2 : 4) * static_cast<uint64_t>(shapes[phase.prefix_end - 1].elements());
  const auto views = static_cast<uint64_t>(plan.views);
  const bool keep = has_prefix && phase.keep_features;
  m.features = train * (keep && views > 0 ? views * feature_bytes : pixels) +
               val * (keep ? feature_bytes : pixels);
  // With their gradients.
  m.parameters = (state_copies(plan.recipe.optimization) + 1) *
                 parameter_bytes(plan.network, phase.prefix_end);
  // Two batches are prepared ahead.
  uint64_t forward = 3 * shapes[phase.prefix_end - 1].elements();
  uint64_t widest = shapes[phase.prefix_end - 1].elements();
  for (size_t i = phase.prefix_end; i < shapes.size(); ++i) {
    // A layer's output, its ReLU's, and its gradient.
    forward += 2 * shapes[i].elements();
    widest = std::max<uint64_t>(widest, shapes[i].elements());
  }
  m.activations =
      4 * static_cast<uint64_t>(plan.recipe.optimization.batch_size) * (forward + widest);
  if (has_prefix) {
    uint64_t most = 0;
    for (size_t i = 0; i < phase.prefix_end; ++i)
      most = std::max<uint64_t>(most, shapes[i].elements());
    // Two buffers of a batch, and the weights as read, as Winograd's algorithm has
    // them, and of the model that is read in the end.
    m.prefix = 2 * 4 * static_cast<uint64_t>(engine::EngineOptions().max_batch) * most;
    for (const TensorSpec& spec : tensor_specs(plan.network, 0, phase.prefix_end))
      m.prefix += 7 * 4 * static_cast<uint64_t>(spec.elements());
  }
  const MemoryLeft left = memory_for_training();
  m.available = left.bytes;
  m.limit = left.limit;
  m.others = left.others;
  return m;
}

bool fits(const MemoryEstimate& m) { return m.available == 0 || m.required() <= m.available; }

std::string bytes_text(uint64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

[[noreturn]] void refuse_memory(const MemoryEstimate& m) {
  const char* advice = "use a smaller `batch-size` or `input-size`";
  if (m.parameters >= m.features && m.parameters >= m.activations)
    advice = "use a smaller `head` (for instance gap or stats in place of flatten)";
  else if (m.features >= m.activations)
    advice = "use a smaller `input-size` or fewer images";
  const std::string parts =
      fmt::format("(parameters and optimiser {}, features {}, activations {})",
                  bytes_text(m.parameters), bytes_text(m.features), bytes_text(m.activations));
  if (m.limit.empty())
    fail(ErrorKind::memory, "training needs about {} of memory and {} are available {}; {}",
         bytes_text(m.total()), bytes_text(m.available), parts, advice);
  // A limit is more easily raised than a network changed.
  constexpr uint64_t kMegabyte = 1'000'000;
  fail(ErrorKind::memory,
       "training needs about {} of memory {} and {} for its libraries: raise {} to {} "
       "MB{}",
       bytes_text(m.total()), parts, bytes_text(m.others), m.limit,
       (m.others + m.required()) / kMegabyte + 1,
       m.available < kLeastSensible ? "" : fmt::format(", or {}", advice));
}

/// Decides what is kept in memory. Where neither fits, what needs less.
MemoryEstimate fit_phase(const TrainPlan& plan, TrainPhase& phase) {
  const MemoryEstimate with = estimate_memory(plan, phase);
  if (fits(with) || phase.prefix_end <= 1 || plan.views == 0) return with;
  phase.keep_features = false;
  const MemoryEstimate without = estimate_memory(plan, phase);
  return fits(without) || without.total() < with.total() ? without : with;
}

/// Cached views of each image in effect, where a prefix is frozen or not; 0: new ones in every
/// epoch.
int view_count(const Recipe& recipe, bool has_prefix) {
  const Augmentation a = parse_augmentation(recipe.views.augment);
  if (a.leaves_images()) return 1;
  if (recipe.views.count) return *recipe.views.count;
  if (!has_prefix) return 0;
  constexpr int kViews = 4;
  return a.flip_views() > 0 ? a.flip_views() : kViews;
}

/// Rates of what this run does not train.
void note_idle_options(TrainPlan& plan, const Recipe& given) {
  const Recipe::Optimization& o = given.optimization;
  Recipe usual;  // as it is where nobody says it, and as a run with such a head records it
  usual.model.head = given.model.head;
  if (o.head_learning_rate != usual.optimization.head_learning_rate &&
      o.head_learning_rate != usual.resolved().optimization.head_learning_rate &&
      plan.recipe.optimization.freeze_epochs.value() == 0)
    plan.dataset.notes.push_back(
        "`head-lr` without `freeze-epochs`: not used, the head trains at `lr`");
  Recipe without = given;
  without.optimization.learning_rate.reset();
  if (given.model.fine_tune.empty() && o.learning_rate && plan.recipe.model.fine_tune == "0" &&
      without.resolved().model.fine_tune != "0")
    plan.dataset.notes.push_back(fmt::format(
        "`lr` is the head's here, and the backbone stays as it is; `fine-tune {}` trains its last "
        "block too",
        without.resolved().model.fine_tune));
  if (o.lr_decay_per_block != 1 && plan.recipe.model.fine_tune == "0")
    plan.dataset.notes.push_back(
        "`lr-decay-per-block` with a frozen backbone: not used; add `fine-tune N`");
}

}  // namespace

TrainPlan plan(Dataset data, const Recipe& asked, const CacheOptions& cache,
               const RunContext& context) {
  asked.check();
  Recipe given = asked;
  // Once, for all that is keyed and recorded.
  given.precision = resolve_precision(asked.precision, asked.device);
  check_dataset(data);
  TrainPlan plan;
  plan.cache = cache;
  // As the cache stores them, even where it cannot be had: a run gives the model that it would
  // have given.
  plan.feature_type = cache.use ? given.feature_type : FeatureType::fp32;
  const Recipe& recipe = plan.recipe;
  const Recipe::Optimization& o = recipe.optimization;
  std::optional<Network> kept;
  std::vector<std::string> kept_notes;
  if (!keeps_head(given) && !given.model.classes.empty())
    fail(ErrorKind::usage, "`classes` is for `head` keep; leave it out");
  if (keeps_head(given)) kept = keep_head(given, data.classes, kept_notes, context);
  plan.recipe = given.resolved();
  Network base = make_backbone(recipe.model);
  require_weights(recipe.model.weights, recipe.model.backbone);
  plan.dataset = std::move(data);
  prepare_dataset(plan.dataset, recipe, context);
  plan.recipe = given.resolved(plan.dataset.of(Split::train).size());
  plan.head = recipe.model.head == "default" ? std::string(default_head(base)) : recipe.model.head;
  plan.network =
      kept ? *std::move(kept)
           : with_head(std::move(base), plan.head, static_cast<int>(plan.dataset.classes.size()));
  plan.dataset.notes.insert(plan.dataset.notes.end(), kept_notes.begin(), kept_notes.end());
  if (const std::optional<std::filesystem::path> run = earlier_run(recipe))
    plan.dataset.notes.push_back(changes_text(changes_since(*run, plan.dataset)));
  plan.freeze = freeze_plan(plan.network, recipe.model.fine_tune);
  if (std::string note = fine_tune_note(plan.network, recipe.model.fine_tune); !note.empty())
    plan.dataset.notes.push_back(std::move(note));
  if (recipe.model.weights == "none" && plan.freeze.first_trainable > 1)
    plan.dataset.notes.push_back(
        "`weights none` with a frozen backbone: its random features carry little; add "
        "`fine-tune all`");
  const size_t end = frozen_prefix_end(plan.network, plan.freeze);
  const auto& layers = plan.network.layers;
  if (o.batch_size == 1 &&
      std::any_of(layers.begin() + static_cast<long>(end), layers.end(),
                  [](const Layer& layer) { return layer.kind == LayerKind::batchnorm; }))
    fail(ErrorKind::usage,
         "`batch-size`: BatchNorm needs at least 2 images a step; use a larger one, or a `head` "
         "without batchnorm");
  plan.views = view_count(recipe, end > 1);
  if (recipe.views.count.value_or(0) > 1 && plan.views == 1)
    plan.dataset.notes.push_back(
        "`views` without `augment`: all views would be the same image (`test-views 2` is of what "
        "the finished model looks at)");
  note_idle_options(plan, given);
  const int epochs = o.epochs.value();
  const int freeze_epochs = o.freeze_epochs.value();
  if (freeze_epochs > 0) {
    if (freeze_epochs >= epochs)
      fail(ErrorKind::usage, "`freeze-epochs`: {} of {} `epochs` leave none for fine-tuning",
           freeze_epochs, epochs);
    const size_t head = frozen_prefix_end(plan.network, freeze_plan(plan.network, "0"));
    if (head == end)
      fail(ErrorKind::usage,
           "`freeze-epochs`: nothing is unfrozen afterwards; add `fine-tune N`, or leave it out");
    plan.phases.push_back({freeze_epochs, head, true, o.head_learning_rate});
  }
  plan.phases.push_back({epochs - freeze_epochs, end, true, o.learning_rate.value()});
  check_file_sizes(plan);
  for (TrainPhase& phase : plan.phases) {
    const MemoryEstimate memory = fit_phase(plan, phase);
    if (memory.total() > plan.memory.total()) plan.memory = memory;
  }
  if (!fits(plan.memory)) refuse_memory(plan.memory);
  return plan;
}

void check_plan(const TrainPlan& plan) {
  plan.recipe.check();
  check_dataset(plan.dataset);
  validate(plan.network);
  const auto refuse = [](const char* why) {
    fail(ErrorKind::usage, "this plan {}; change the recipe, and plan again", why);
  };
  if (plan.network.layers.empty() || plan.phases.empty()) refuse("has no network or no phases");
  if (output_shapes(plan.network).back().channels !=
      static_cast<int64_t>(plan.dataset.classes.size()))
    refuse("has a network for another number of classes");
  if (plan.views < 0) refuse("has a negative number of views");
  if (resolve_precision(plan.recipe.precision, plan.recipe.device) != plan.recipe.precision)
    refuse("leaves its `precision` open");
  const Recipe::Optimization o = plan.recipe.resolved().optimization;
  int epochs = 0;
  for (const TrainPhase& phase : plan.phases) {
    if (phase.prefix_end < 1 || phase.prefix_end > plan.network.layers.size())
      refuse("has a phase whose prefix does not end in its network");
    if (phase.epochs < 1) refuse("has a phase without epochs");
    const double rate = &phase == &plan.phases.back() ? *o.learning_rate : o.head_learning_rate;
    if (phase.learning_rate != rate) refuse("has a learning rate that its recipe does not have");
    epochs += phase.epochs;
  }
  if (epochs != o.epochs) refuse("has another number of epochs than its recipe");
}

}  // namespace graft
