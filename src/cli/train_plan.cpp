#include "cli/train_plan.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "base/file.h"
#include "base/memory.h"
#include "engine/engine.h"
#include "graft/error.h"
#include "weights/load.h"

namespace graft::cli {
namespace {

// The rest is for the system, LibTorch itself and what an estimate misses.
constexpr double kUsableShare = 0.9;

Dataset prepare_dataset(const TrainOptions& o) {
  Dataset dataset = open_dataset(o.data);
  if (dataset.classes.size() < 2)
    fail(ErrorKind::input,
         "{}: only one class ('{}'); a classifier needs at least two class folders",
         printable(o.data), dataset.classes[0]);
  if (!o.test.empty()) {
    if (dataset.has(Split::test))
      fail(ErrorKind::usage, "--test: {} has a test split already; leave one out",
           printable(o.data));
    add_split(dataset, o.test, Split::test);
  }
  if (o.test_split > 0) {
    if (dataset.has(Split::test))
      fail(ErrorKind::usage, "--test-split: {} has a test split already; leave one out",
           printable(o.data));
    // Another stream of the seed than the validation split's.
    split_off(dataset, o.test_split, ~o.seed, Split::test);
  }
  if (!o.val.empty()) {
    if (dataset.has(Split::validation))
      fail(ErrorKind::usage, "--val: {} has a validation split already; leave one out",
           printable(o.data));
    for (Sample& sample : dataset.samples)
      if (sample.split == Split::unassigned) sample.split = Split::train;
    add_split(dataset, o.val, Split::validation);
  } else if (!dataset.has(Split::validation)) {
    split_off(dataset, o.val_split, o.seed, Split::validation);
  }
  for (Sample& sample : dataset.samples)
    if (sample.split == Split::unassigned) sample.split = Split::train;
  for (size_t label = 0; label < dataset.classes.size(); ++label) {
    const auto trains = [&](const Sample& sample) {
      return sample.split == Split::train && sample.label == static_cast<int>(label);
    };
    if (std::none_of(dataset.samples.begin(), dataset.samples.end(), trains))
      fail(ErrorKind::input, "{}: class '{}' has no training picture", printable(o.data),
           dataset.classes[label]);
  }
  return dataset;
}

fs::path run_folder(const TrainOptions& o) {
  std::error_code error;
  if (!o.resume.empty()) return o.resume;
  if (o.output.empty()) {
    std::string name = fs::weakly_canonical(o.data, error).stem().string();
    if (name.empty()) name = "data";
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    ::localtime_r(&now, &local);
    std::string stamp(32, '\0');
    stamp.resize(std::strftime(stamp.data(), stamp.size(), "-%Y%m%d-%H%M%S", &local));
    fs::path folder = fs::path("runs") / (name + stamp);
    for (int i = 2; fs::exists(folder, error); ++i)
      folder = fs::path("runs") / fmt::format("{}{}-{}", name, stamp, i);
    return folder;
  }
  fs::path folder = o.output;
  if (fs::exists(folder, error) && !fs::is_directory(folder, error))
    fail(ErrorKind::io, "{}: is a file; --output names a folder", printable(folder));
  if (fs::exists(folder, error) && !fs::is_empty(folder, error) && !o.force)
    fail(ErrorKind::usage,
         "{}: this run exists already; choose another --output, or --force to "
         "replace it",
         printable(folder));
  return folder;
}

/// Fails now, and not after an hour, if the run folder cannot be made.
void check_writable(const fs::path& folder) {
  fs::path at = fs::absolute(folder).lexically_normal();
  std::error_code error;
  while (!fs::exists(at, error) && at.has_relative_path()) at = at.parent_path();
  if (::access(at.c_str(), W_OK | X_OK) != 0)
    fail(ErrorKind::io,
         "{}: cannot make this run folder: {} is not writable; choose another "
         "--output",
         printable(folder), printable(at));
}

MemoryEstimate estimate_memory(const TrainPlan& plan, const TrainOptions& o) {
  MemoryEstimate m;
  const std::vector<Shape> shapes = output_shapes(plan.network);
  uint64_t kept = 0;  // pictures kept for all epochs
  for (const Sample& sample : plan.dataset.samples)
    kept += sample.split == Split::train || sample.split == Split::validation ? 1 : 0;
  const uint64_t pixels =
      static_cast<uint64_t>(plan.network.input_height) * plan.network.input_width * 3;
  const bool has_prefix = plan.prefix_end > 1;
  const uint64_t feature_bytes = 4 * static_cast<uint64_t>(shapes[plan.prefix_end - 1].elements());
  m.features = kept * (has_prefix && plan.keep_features ? feature_bytes : pixels);
  const uint64_t copies = 2 + (o.optimizer == "sgd" ? (o.momentum > 0 ? 1 : 0) : 2);
  for (const TensorSpec& spec :
       tensor_specs(plan.network, plan.prefix_end, plan.network.layers.size()))
    m.parameters += 4 * copies * static_cast<uint64_t>(spec.elements());
  uint64_t forward = shapes[plan.prefix_end - 1].elements();
  uint64_t widest = forward;
  for (size_t i = plan.prefix_end; i < shapes.size(); ++i) {
    // A layer's output, its ReLU's, and its gradient.
    forward += 2 * shapes[i].elements();
    widest = std::max<uint64_t>(widest, shapes[i].elements());
  }
  m.activations = 4 * static_cast<uint64_t>(o.batch_size) * (forward + widest);
  if (has_prefix) {
    uint64_t most = 0;
    for (size_t i = 0; i < plan.prefix_end; ++i)
      most = std::max<uint64_t>(most, shapes[i].elements());
    // Two buffers of a batch, and the weights as read, folded and packed.
    m.prefix = 2 * 4 * static_cast<uint64_t>(EngineOptions().max_batch) * most;
    for (const TensorSpec& spec : tensor_specs(plan.network, 0, plan.prefix_end))
      m.prefix += 3 * 4 * static_cast<uint64_t>(spec.elements());
  }
  m.available = available_memory();
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
       "training needs about {} of memory and {} are available (parameters and "
       "optimiser {}, features {}, activations {}); {}",
       bytes_text(m.total()), bytes_text(m.available), bytes_text(m.parameters),
       bytes_text(m.features), bytes_text(m.activations), advice);
}

/// Seconds for `count` images through the prefix, from a short measurement.
double measure_prefix(const TrainPlan& plan, const TrainOptions& o, size_t count) {
  const Network net = cut_after(plan.network, plan.network.layers[plan.prefix_end - 1].name);
  Engine engine(net, 0, plan.prefix_end, random_tensors(net, 0, plan.prefix_end, 0),
                {o.common.thread_count(), 4});
  std::vector<float> in(static_cast<size_t>(engine.input_elements()) * 4, 0.5F);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()) * 4);
  engine.run(in.data(), 4, out.data());  // builds the plan
  const auto start = std::chrono::steady_clock::now();
  engine.run(in.data(), 4, out.data());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  return taken.count() / 4 * static_cast<double>(count);
}

}  // namespace

TrainPlan make_train_plan(const TrainOptions& o) {
  TrainPlan plan;
  Network base = make_backbone(o.network, /*include_top=*/false);
  plan.dataset = prepare_dataset(o);
  plan.network =
      with_head(std::move(base), o.network.head, static_cast<int>(plan.dataset.classes.size()));
  plan.freeze = freeze_plan(plan.network, o.network.fine_tune);
  if (o.network.weights == "none" && plan.freeze.first_trainable > 1 && !o.common.quiet)
    plan.dataset.notes.push_back(
        "--weights none with a frozen backbone: its random features carry little; add "
        "--fine-tune all");
  plan.prefix_end = frozen_prefix_end(plan.network, plan.freeze);
  plan.run = run_folder(o);
  check_writable(plan.run);
  plan.memory = estimate_memory(plan, o);
  if (!fits(plan.memory) && plan.prefix_end > 1) {
    plan.keep_features = false;
    const MemoryEstimate without = estimate_memory(plan, o);
    if (!fits(without))
      refuse_memory(plan.memory.total() < without.total() ? plan.memory : without);
    plan.memory = without;
  }
  if (!fits(plan.memory)) refuse_memory(plan.memory);
  return plan;
}

std::string plan_text(const TrainPlan& plan, const TrainOptions& o) {
  const Summary summary = summarize(plan.network, plan.freeze);
  const auto& layers = plan.network.layers;
  std::string text;
  text += fmt::format("backbone   {} at {}x{}, cut behind {}\n", plan.network.backbone,
                      plan.network.input_height, plan.network.input_width,
                      o.network.until.empty() ? "its last pooling" : o.network.until);
  text += fmt::format("head       {}\n", o.network.head);
  text += fmt::format("parameters {} total, {} trainable, {} frozen\n",
                      format_count(summary.parameters), format_count(summary.trainable),
                      format_count(summary.non_trainable()));
  if (plan.prefix_end > 1)
    text += fmt::format("prefix     input … {}, {}\n", layers[plan.prefix_end - 1].name,
                        plan.keep_features ? "computed once for each picture"
                                           : "computed in every epoch (its outputs do not fit "
                                             "into memory)");
  text += fmt::format("training   {} epochs at most, batch {}, {} at {:g}, patience {}\n", o.epochs,
                      o.batch_size, o.optimizer, o.learning_rate(), o.patience);
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
  double prefix_flops = 0;
  double suffix_flops = 0;
  const std::vector<double> flops = layer_flops(plan.network);
  for (size_t i = 0; i < flops.size(); ++i)
    (i < plan.prefix_end ? prefix_flops : suffix_flops) += flops[i];
  double rate = 50e9;  // FLOP/s where there is no prefix to measure
  double prefix_seconds = 0;
  if (plan.prefix_end > 1 && prefix_flops > 0) {
    prefix_seconds = measure_prefix(plan, o, train + val);
    rate = prefix_flops * static_cast<double>(train + val) / prefix_seconds;
  }
  // Forward and two backward products; Adam reads and writes each parameter about ten times.
  constexpr double kBytesPerSecond = 8e9;
  const double steps = static_cast<double>(train) / o.batch_size;
  const double epoch =
      (3.0 * static_cast<double>(train) + static_cast<double>(val)) * suffix_flops / rate +
      steps * static_cast<double>(m.parameters) / 4 * 10 / kBytesPerSecond +
      (plan.keep_features ? 0 : prefix_seconds);
  text +=
      fmt::format("time       about {} for the prefix, then {} an epoch\n",
                  format_duration(plan.keep_features ? prefix_seconds : 0), format_duration(epoch));
  text += fmt::format("run        {}\n", printable(plan.run));
  return text;
}

}  // namespace graft::cli
