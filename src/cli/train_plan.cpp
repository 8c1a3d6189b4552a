#include "cli/train_plan.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/file.h"
#include "base/limits.h"
#include "base/words.h"
#include "cli/run_claim.h"
#include "cli/train_limits.h"
#include "dataset/inspect.h"
#include "dataset/labels.h"
#include "dataset/layout.h"
#include "dataset/skipped.h"
#include "engine/engine.h"
#include "graft/error.h"
#include "weights/load.h"

namespace graft::cli {
namespace {

// The rest is for the system, LibTorch itself and what an estimate misses.
constexpr double kUsableShare = 0.9;

/// A class of which --exclude leaves nothing is an error that says why.
void require_what_is_left(const Dataset& dataset, const Inspection& found,
                          const std::vector<size_t>& out, const TrainOptions& o) {
  std::vector<size_t> left(dataset.classes.size());
  for (const Sample& sample : dataset.samples) ++left[static_cast<size_t>(sample.label)];
  for (const size_t i : out) --left[static_cast<size_t>(dataset.samples[i].label)];
  for (const size_t i : out) {
    const auto label = static_cast<size_t>(dataset.samples[i].label);
    if (left[label] > 0) continue;
    const auto damaged = std::find_if(found.corrupt.begin(), found.corrupt.end(),
                                      [&](const Finding& finding) { return finding.sample == i; });
    fail(ErrorKind::input,
         "{}: class '{}': --exclude {} leaves none of its images, the first: {}{}",
         printable(o.data), dataset.classes[label], clipped(o.exclude),
         printable(dataset.samples[i].path),
         damaged == found.corrupt.end() ? "" : " (" + damaged->why + ")");
  }
}

/// Leaves out what --exclude names, and notes what else looks wrong, as `graft check` finds it.
void inspect_dataset(Dataset& dataset, const TrainOptions& o) {
  const std::vector<std::string> words = split_words(o.exclude);
  auto depth = InspectionDepth::copies;
  for (const std::string& word : words) depth = std::max(depth, depth_of(word));
  const Inspection found = inspect(dataset, depth, o.common.thread_count(), o.common.verbosity());
  const std::vector<size_t> out = excluded_samples(dataset, found, words);
  const auto note = [&](const std::vector<SampleGroup>& groups, std::string_view word,
                        std::string_view what) {
    if (!groups.empty() && std::find(words.begin(), words.end(), word) == words.end())
      dataset.notes.push_back(fmt::format("{} {} of identical files {}; --exclude {} leaves {} out",
                                          groups.size(), groups.size() == 1 ? "group" : "groups",
                                          what, word,
                                          word == "leaks"       ? "the training copies"
                                          : word == "conflicts" ? "them"
                                                                : "the copies"));
  };
  note(found.conflicting_labels, "conflicts", "with conflicting labels");
  note(found.train_test_leaks, "leaks", "are in training and test data");
  note(found.train_val_leaks, "leaks", "are in training and validation data");
  if (found.conflicting_labels.empty() && found.train_test_leaks.empty() &&
      found.train_val_leaks.empty())
    note(found.duplicates, "duplicates", "in one class");
  if (!out.empty()) {
    require_what_is_left(dataset, found, out, o);
    dataset.notes.push_back(
        fmt::format("--exclude: {} of {} pictures left out", out.size(), dataset.samples.size()));
    std::vector<Sample> kept;
    for (size_t i = 0, next = 0; i < dataset.samples.size(); ++i) {
      if (next < out.size() && out[next] == i)
        ++next;
      else
        kept.push_back(std::move(dataset.samples[i]));
    }
    dataset.samples = std::move(kept);
  }
}

/// Notes classes that a split cannot measure.
void note_classes_without(Dataset& dataset, Split split) {
  if (!dataset.has(split)) return;
  const std::vector<std::string> without = classes_without(dataset, split, {});
  if (!without.empty())
    dataset.notes.push_back(fmt::format("no {} image of {} {}", to_string(split),
                                        without.size() == 1 ? "class" : "the classes",
                                        label_list(without)));
}

/// Leaves out files that are not there or of formats that are not read: better now, in one line,
/// than one by one later.
void check_missing(Dataset& dataset, const TrainOptions& o) {
  const std::vector<std::string> words = split_words(o.exclude);
  if (std::find(words.begin(), words.end(), "corrupt") != words.end())
    dataset.skipped.clear();  // of other formats: asked to be left out, and noted
  leave_out_missing(dataset);
  const size_t images = dataset.samples.size() + dataset.skipped.size();
  std::string advice = "mend or remove them ('graft check' lists them, and damaged ones beside)";
  if (!fs::is_directory(o.data)) {
    advice = "paths of a manifest are relative to its folder; mend or remove them";
    for (const SkippedImage& image : dataset.skipped) {
      const fs::path typed = image.path.lexically_relative(fs::path(o.data).parent_path());
      std::error_code error;
      if (typed.empty() || !fs::exists(typed, error)) continue;
      advice = fmt::format(
          "paths of a manifest are relative to its folder, not to the current one, where {} is: "
          "write them so, or move the manifest here",
          printable(typed));
      break;
    }
  }
  require_few_skipped(dataset.skipped, images, o.max_skipped, printable(o.data), advice);
}

/// Every class must be trained on; one that stands in another split alone is most often misspelt.
void require_training_images(const Dataset& dataset, const TrainOptions& o) {
  const std::vector<std::string> without = classes_without(dataset, Split::train, {});
  if (without.empty()) return;
  std::string why = o.exclude.empty() ? "" : "; --exclude may have left them all out";
  for (const Sample& sample : dataset.samples) {
    if (dataset.classes[static_cast<size_t>(sample.label)] != without[0]) continue;
    std::vector<std::string> trained;
    for (const std::string& label : dataset.classes)
      if (std::find(without.begin(), without.end(), label) == without.end())
        trained.push_back(label);
    why = fmt::format("; its {} images are the only ones, such as {} (the training classes are {})",
                      to_string(sample.split), printable(sample.path), label_list(trained));
    break;
  }
  fail(ErrorKind::input, "{}: class '{}' has no training image{}{}", printable(o.data), without[0],
       without.size() > 1 ? fmt::format(", nor have {} others", without.size() - 1) : "", why);
}

Dataset prepare_dataset(const TrainOptions& o) {
  Dataset dataset = open_dataset(o.data);
  if (!dataset.has(Split::train) && !dataset.has(Split::unassigned))
    fail(ErrorKind::input, "{}: there are no training images ({}); {}", printable(o.data),
         dataset.understood, kExpectedLayout);
  if (dataset.classes.size() < 2) {
    std::string hidden;  // most likely the other one, as in a folder ".net"
    for (const std::string& note : dataset.notes)
      if (note.find("hidden folder") != std::string::npos) hidden += "; " + note;
    fail(ErrorKind::input,
         "{}: only one class ('{}'); a classifier needs at least two class folders{}; {}",
         printable(o.data), dataset.classes[0], hidden, kExpectedLayout);
  }
  if (!o.test.empty()) {
    if (dataset.has(Split::test))
      fail(ErrorKind::usage, "--test: {} has a test split already; leave one out",
           printable(o.data));
    add_split(dataset, o.test, Split::test, "--test");
  }
  if (!o.val.empty()) {
    if (dataset.has(Split::validation))
      fail(ErrorKind::usage, "--val: {} has a validation split already; leave one out",
           printable(o.data));
    add_split(dataset, o.val, Split::validation, "--val");
  }
  const bool has_val = dataset.has(Split::validation);
  check_missing(dataset, o);
  if (has_val && !dataset.has(Split::validation))
    fail(ErrorKind::input, "{}: none of the validation images is there", printable(o.data));
  inspect_dataset(dataset, o);
  if (o.test_split > 0) {
    if (dataset.has(Split::test))
      fail(ErrorKind::usage, "--test-split: {} has a test split already; leave one out",
           printable(o.data));
    // Another stream of the seed than the validation split's.
    split_off(dataset, o.test_split, ~o.seed, Split::test);
  }
  const double default_share = TrainOptions{}.val_split;
  if (!dataset.has(Split::validation))
    split_off(dataset, o.val_split, o.seed, Split::validation);
  else if (o.val.empty() && o.val_split != default_share)
    dataset.notes.push_back("--val-split: not used, the data has a validation split");
  for (Sample& sample : dataset.samples)
    if (sample.split == Split::unassigned) sample.split = Split::train;
  require_training_images(dataset, o);
  note_classes_without(dataset, Split::validation);
  note_classes_without(dataset, Split::test);
  return dataset;
}

uint64_t parameter_bytes(const Network& network, size_t begin) {
  uint64_t bytes = 0;
  for (const TensorSpec& spec : tensor_specs(network, begin, network.layers.size()))
    bytes += sizeof(float) * static_cast<uint64_t>(spec.elements());
  return bytes;
}

/// Copies of the trained parameters that the training state holds: themselves, the optimiser's
/// moments, and their average.
uint64_t state_copies(const TrainOptions& o) {
  return 1 + (o.ema > 0 ? 1 : 0) + (o.optimizer == "sgd" ? (o.momentum > 0 ? 1 : 0) : 2);
}

/// Fails now, and not after the first epoch, where a limit forbids files as large as this run's.
void check_file_sizes(const TrainPlan& plan, const TrainOptions& o) {
  const std::optional<uint64_t> limit = file_size_limit();
  if (!limit) return;
  uint64_t largest = parameter_bytes(plan.network, 0);
  for (const TrainPhase& phase : plan.phases)
    largest = std::max(largest, state_copies(o) * parameter_bytes(plan.network, phase.prefix_end));
  if (largest > *limit)
    fail(
        ErrorKind::io,
        "the limit on file sizes (ulimit -f) is {}, and this run's largest file takes {}; raise it",
        format_bytes(static_cast<double>(*limit)), format_bytes(static_cast<double>(largest)));
}

MemoryEstimate estimate_memory(const TrainPlan& plan, const TrainPhase& phase,
                               const TrainOptions& o) {
  MemoryEstimate m;
  const std::vector<Shape> shapes = output_shapes(plan.network);
  const uint64_t train = plan.dataset.of(Split::train).size();
  const uint64_t val = plan.dataset.of(Split::validation).size();
  const uint64_t pixels =
      static_cast<uint64_t>(plan.network.input_height) * plan.network.input_width * 3;
  const bool has_prefix = phase.prefix_end > 1;
  // Features from the cache are halves, and kept as such.
  const bool halves =
      !o.no_cache && o.cache_dtype == "fp16" && !plan.network.layers[phase.prefix_end - 1].in_head;
  const uint64_t feature_bytes =
      (halves ? 2 : 4) * static_cast<uint64_t>(shapes[phase.prefix_end - 1].elements());
  const auto views = static_cast<uint64_t>(plan.views);
  const bool keep = has_prefix && phase.keep_features;
  m.features = train * (keep && views > 0 ? views * feature_bytes : pixels) +
               val * (keep ? feature_bytes : pixels);
  // With their gradients.
  m.parameters = (state_copies(o) + 1) * parameter_bytes(plan.network, phase.prefix_end);
  // Two batches are prepared ahead.
  uint64_t forward = 3 * shapes[phase.prefix_end - 1].elements();
  uint64_t widest = shapes[phase.prefix_end - 1].elements();
  for (size_t i = phase.prefix_end; i < shapes.size(); ++i) {
    // A layer's output, its ReLU's, and its gradient.
    forward += 2 * shapes[i].elements();
    widest = std::max<uint64_t>(widest, shapes[i].elements());
  }
  m.activations = 4 * static_cast<uint64_t>(o.batch_size) * (forward + widest);
  if (has_prefix) {
    uint64_t most = 0;
    for (size_t i = 0; i < phase.prefix_end; ++i)
      most = std::max<uint64_t>(most, shapes[i].elements());
    // Two buffers of a batch, and the weights as read, folded and packed.
    m.prefix = 2 * 4 * static_cast<uint64_t>(EngineOptions().max_batch) * most;
    for (const TensorSpec& spec : tensor_specs(plan.network, 0, phase.prefix_end))
      m.prefix += 3 * 4 * static_cast<uint64_t>(spec.elements());
  }
  const MemoryLeft left = memory_for_training(o.common.thread_count(), !o.dry_run);
  m.available = left.bytes;
  m.limit = left.limit;
  return m;
}

bool fits(const MemoryEstimate& m) {
  return m.available == 0 ||
         static_cast<double>(m.total()) <= kUsableShare * static_cast<double>(m.available);
}

std::string bytes_text(uint64_t bytes) { return format_bytes(static_cast<double>(bytes)); }

[[noreturn]] void refuse_memory(const MemoryEstimate& m) {
  const char* advice = "use a smaller --batch-size or --input-size";
  if (m.parameters >= m.features && m.parameters >= m.activations)
    advice = "use a smaller --head (for instance gap or stats in place of flatten)";
  else if (m.features >= m.activations)
    advice = "use a smaller --input-size or fewer pictures";
  fail(ErrorKind::memory,
       "training needs about {} of memory and {} are available{} (parameters and "
       "optimiser {}, features {}, activations {}); {}",
       bytes_text(m.total()), bytes_text(m.available),
       m.limit.empty() ? "" : fmt::format(" under {}", m.limit), bytes_text(m.parameters),
       bytes_text(m.features), bytes_text(m.activations), advice);
}

/// Seconds for `count` images through the prefix, from a short measurement.
double measure_prefix(const TrainPlan& plan, size_t end, const TrainOptions& o, size_t count) {
  const Network net = cut_after(plan.network, plan.network.layers[end - 1].name);
  Engine engine(net, 0, end, random_tensors(net, 0, end, 0), {o.common.thread_count(), 4});
  std::vector<float> in(static_cast<size_t>(engine.input_elements()) * 4, 0.5F);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()) * 4);
  engine.run(in.data(), 4, out.data());  // builds the plan
  const auto start = std::chrono::steady_clock::now();
  engine.run(in.data(), 4, out.data());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  return taken.count() / 4 * static_cast<double>(count);
}

/// Decides what is kept in memory. Throws Error(memory) if the phase does not fit either way.
MemoryEstimate fit_phase(const TrainPlan& plan, TrainPhase& phase, const TrainOptions& o) {
  const MemoryEstimate with = estimate_memory(plan, phase, o);
  if (fits(with)) return with;
  if (phase.prefix_end <= 1 || plan.views == 0) refuse_memory(with);
  phase.keep_features = false;
  const MemoryEstimate without = estimate_memory(plan, phase, o);
  if (!fits(without)) refuse_memory(with.total() < without.total() ? with : without);
  return without;
}

std::string prefix_text(const TrainPhase& phase, int views, const TrainOptions& o) {
  if (views == 0) return "computed in every epoch, for new views of the pictures";
  if (!phase.keep_features)
    return o.no_cache ? "computed in every epoch (its outputs do not fit into memory)"
                      : "computed once, read from the cache (its outputs do not fit into memory)";
  if (views == 1) return "computed once for each picture";
  return fmt::format("computed once for each of {} views of each picture", views);
}

}  // namespace

TrainPlan make_train_plan(const TrainOptions& o) {
  TrainPlan plan;
  Network base = make_backbone(o.network, /*include_top=*/false);
  plan.dataset = prepare_dataset(o);
  plan.head = o.network.head == "default" ? std::string(default_head(base)) : o.network.head;
  plan.network =
      with_head(std::move(base), plan.head, static_cast<int>(plan.dataset.classes.size()));
  plan.freeze = freeze_plan(plan.network, o.network.fine_tune);
  if (std::string note = fine_tune_note(plan.network, o.network.fine_tune); !note.empty())
    plan.dataset.notes.push_back(std::move(note));
  if (o.network.weight_source() == "none" && plan.freeze.first_trainable > 1 && !o.common.quiet)
    plan.dataset.notes.push_back(
        "--weights none with a frozen backbone: its random features carry little; add "
        "--fine-tune all");
  const size_t end = frozen_prefix_end(plan.network, plan.freeze);
  const auto& layers = plan.network.layers;
  if (o.batch_size == 1 &&
      std::any_of(layers.begin() + static_cast<long>(end), layers.end(),
                  [](const Layer& layer) { return layer.kind == LayerKind::batchnorm; }))
    fail(ErrorKind::usage,
         "--batch-size: BatchNorm needs at least 2 pictures a step; use a larger one, or a --head "
         "without batchnorm");
  plan.views = o.view_count(end > 1);
  if (o.views > 1 && plan.views == 1)
    plan.dataset.notes.push_back("--views without --augment: all views would be the same picture");
  if (o.freeze_epochs > 0) {
    if (o.freeze_epochs >= o.epochs)
      fail(ErrorKind::usage, "--freeze-epochs: {} of {} --epochs leave none for fine-tuning",
           o.freeze_epochs, o.epochs);
    const size_t head = frozen_prefix_end(plan.network, freeze_plan(plan.network, "0"));
    if (head == end)
      fail(ErrorKind::usage,
           "--freeze-epochs: nothing is unfrozen afterwards; add --fine-tune N, or leave it out");
    plan.phases.push_back({o.freeze_epochs, head, true, o.head_lr});
  }
  plan.phases.push_back({o.epochs - o.freeze_epochs, end, true, o.learning_rate()});
  plan.run = choose_run_folder(o);
  check_file_sizes(plan, o);
  for (TrainPhase& phase : plan.phases) {
    const MemoryEstimate memory = fit_phase(plan, phase, o);
    if (memory.total() > plan.memory.total()) plan.memory = memory;
  }
  return plan;
}

std::string plan_text(const TrainPlan& plan, const TrainOptions& o) {
  const Summary summary = summarize(plan.network, plan.freeze);
  const auto& layers = plan.network.layers;
  std::string text = fmt::format("data       understood as {}\n", plan.dataset.understood);
  text += fmt::format("backbone   {} at {}x{}, cut behind {}\n", plan.network.backbone,
                      plan.network.input_height, plan.network.input_width,
                      o.network.until.empty() ? "its last pooling" : o.network.until);
  text += fmt::format("head       {}\n", plan.head);
  text += fmt::format("parameters {} total, {} trainable, {} frozen\n",
                      format_count(summary.parameters), format_count(summary.trainable),
                      format_count(summary.non_trainable()));
  for (const TrainPhase& phase : plan.phases) {
    if (phase.prefix_end > 1)
      text += fmt::format("prefix     input … {}, {}\n", layers[phase.prefix_end - 1].name,
                          prefix_text(phase, plan.views, o));
    text += fmt::format("training   {} epochs at most, batch {}, {} at {:g}, patience {}\n",
                        phase.epochs, o.batch_size, o.optimizer, phase.learning_rate,
                        o.patience_in_effect());
  }
  if (!o.augmentation().leaves_pictures() || o.augmentation().mixup + o.augmentation().cutmix > 0)
    text += fmt::format("augment    {}\n", o.augment);
  const MemoryEstimate& m = plan.memory;
  text += fmt::format(
      "memory     about {} of {} available: features {}, parameters and optimiser "
      "{}, activations {}, prefix {}\n",
      bytes_text(m.total()), m.available == 0 ? "unknown" : bytes_text(m.available),
      bytes_text(m.features), bytes_text(m.parameters), bytes_text(m.activations),
      bytes_text(m.prefix));
  if (!o.dry_run) return text;

  const size_t train = plan.dataset.of(Split::train).size();
  const size_t val = plan.dataset.of(Split::validation).size();
  const std::vector<double> flops = layer_flops(plan.network);
  for (const TrainPhase& phase : plan.phases) {
    double prefix_flops = 0;
    double suffix_flops = 0;
    for (size_t i = 0; i < flops.size(); ++i)
      (i < phase.prefix_end ? prefix_flops : suffix_flops) += flops[i];
    double rate = 50e9;  // FLOP/s where there is no prefix to measure
    double prefix_seconds = 0;
    const size_t views = static_cast<size_t>(std::max(plan.views, 1));
    const bool every_epoch = plan.views == 0 || (!phase.keep_features && o.no_cache);
    const size_t images = train * (every_epoch ? 1 : views) + val;
    if (phase.prefix_end > 1 && prefix_flops > 0) {
      prefix_seconds = measure_prefix(plan, phase.prefix_end, o, images);
      rate = prefix_flops * static_cast<double>(images) / prefix_seconds;
    }
    // Forward and two backward products; Adam reads and writes each parameter about ten times.
    constexpr double kBytesPerSecond = 8e9;
    const double steps = static_cast<double>(train) / o.batch_size;
    const double epoch =
        (3.0 * static_cast<double>(train) + static_cast<double>(val)) * suffix_flops / rate +
        steps * static_cast<double>(m.parameters) / 4 * 10 / kBytesPerSecond +
        (every_epoch ? prefix_seconds : 0);
    text += fmt::format("time       about {} for the prefix, then {} an epoch\n",
                        format_duration(every_epoch ? 0 : prefix_seconds), format_duration(epoch));
  }
  text += fmt::format("run        {}\n", printable(plan.run));
  return text;
}

}  // namespace graft::cli
