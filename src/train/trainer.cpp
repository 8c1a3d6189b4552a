#include "train/trainer.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "base/diagnostics.h"
#include "base/file.h"
#include "base/random.h"
#include "base/signals.h"
#include "graft/error.h"
#include "train/batches.h"
#include "train/mix.h"
#include "train/optimizer.h"
#include "train/run_files.h"
#include "train/run_record.h"
#include "train/schedule.h"
#include "train/state.h"
#include "train/suffix.h"
#include "weights/load.h"

namespace graft {
namespace {

torch::Device choose_device(const std::string& name) {
  if (name == "cpu" || (name == "auto" && !torch::cuda::is_available())) return torch::kCPU;
  if (!torch::cuda::is_available())
    fail(ErrorKind::input,
         "--device cuda: this LibTorch or this machine has no CUDA; use --device "
         "cpu");
  return torch::kCUDA;
}

/// Sums over batches.
struct Tally {
  double loss = 0;
  int64_t correct = 0;
  int64_t seen = 0;

  void add(const torch::Tensor& mean_loss, const torch::Tensor& logits,
           const torch::Tensor& labels) {
    const int64_t n = labels.size(0);
    loss += mean_loss.item<double>() * static_cast<double>(n);
    correct += logits.argmax(1).eq(labels).sum().item<int64_t>();
    seen += n;
  }
  [[nodiscard]] double mean_loss() const { return seen > 0 ? loss / static_cast<double>(seen) : 0; }
  [[nodiscard]] double accuracy() const {
    return seen > 0 ? static_cast<double>(correct) / static_cast<double>(seen) : 0;
  }
};

class Trainer {
 public:
  Trainer(const TrainJob& job, const TrainConfig& config)
      : job_(job),
        config_(config),
        device_(choose_device(config.device)),
        files_(job.run),
        record_(job, config) {
    check_config(config, job.phases);
    set_training_threads(config.threads);
    keep_freed_memory();
    for (const TrainPhase& phase : job.phases) epochs_ += phase.epochs;
  }

  TrainResult run() {
    const TrainingState state(job_.run);
    std::optional<TrainingState::Loaded> loaded = config_.resume ? state.load() : std::nullopt;
    TensorMap tensors = first_tensors();
    if (loaded) {
      progress_ = record_.read(loaded->record);
      if (progress_.best_epoch > 0) files_.require_checkpoint("best");
      if (config_.verbosity != Verbosity::quiet)
        print_diagnostic("going on after epoch {}\n", progress_.history.size());
      tell([&](TrainObserver& o) {
        for (const EpochRecord& record : progress_.history)
          o.past_epoch(record, record.epoch == progress_.best_epoch);
      });
      for (const auto& [name, tensor] : loaded->tensors)
        if (tensors.contains(name)) tensors.insert_or_assign(name, tensor);
    }
    int done = 0;  // epochs of the phases before
    for (size_t k = 0; k < job_.phases.size(); ++k) {
      phase_ = &job_.phases[k];
      phase_start_ = done;
      done += phase_->epochs;
      const auto made = static_cast<int>(progress_.history.size());
      // The last one is begun even if it is over: the files that follow it may be missing.
      if (made >= done && k + 1 < job_.phases.size()) continue;
      begin_phase(tensors);
      if (loaded && made > phase_start_) {
        TrainingState::restore(*loaded, *optimizer_, average_);
        optimizer_->set_steps(loaded->record.at("steps").get<int64_t>());
      }
      loaded.reset();
      train_phase(state);
      for (const auto& [name, tensor] : suffix_->snapshot()) tensors.insert_or_assign(name, tensor);
    }
    result_.stopped_early = static_cast<int>(progress_.history.size()) < epochs_;
    files_.link_checkpoint("best", "model.safetensors");
    result_.history = progress_.history;
    result_.best_epoch = progress_.best_epoch;
    return std::move(result_);
  }

  std::vector<RatePoint> find_rate() {
    constexpr double kFirst = 1e-7;
    constexpr double kLast = 10;
    constexpr int kSteps = 120;
    constexpr double kSmoothing = 0.9;
    constexpr double kTooHigh = 4;
    phase_ = &job_.phases.back();
    begin_phase(first_tensors(), /*validates=*/false);
    std::vector<RatePoint> points;
    double average = 0;
    double least = std::numeric_limits<double>::infinity();
    Progress progress("learning-rate range test", kSteps, "steps", config_.verbosity);
    for (int epoch = 1; static_cast<int>(points.size()) < kSteps; ++epoch) {
      torch::manual_seed(config_.seed * 1'000'003 + static_cast<uint64_t>(epoch));
      start_epoch(epoch);
      while (auto batch = train_->next()) {
        note_lost(*batch, *train_, epoch);
        if (skips(*batch)) continue;
        const auto step = static_cast<int>(points.size());
        const double rate = kFirst * std::pow(kLast / kFirst, step / (kSteps - 1.0));
        Tally tally;
        train_step(*batch, rate, tally);
        check_interrupted();
        if (!std::isfinite(tally.loss)) return points;
        average = kSmoothing * average + (1 - kSmoothing) * tally.mean_loss();
        const double smooth = average / (1 - std::pow(kSmoothing, step + 1));
        points.push_back({rate, smooth});
        progress.update(points.size(), fmt::format("rate {:.2g}  loss {:.4f}", rate, smooth));
        least = std::min(least, smooth);
        if (static_cast<int>(points.size()) == kSteps || smooth > kTooHigh * least) return points;
      }
    }
    return points;
  }

 private:
  /// The backbone's weights and the head's random ones.
  [[nodiscard]] TensorMap first_tensors() const {
    const Network& net = job_.metadata.network;
    TensorMap tensors = job_.backbone;
    size_t head = 0;
    while (!net.layers[head].in_head) ++head;
    tensors.merge(random_tensors(net, head, net.layers.size(), config_.seed, config_.initializer));
    return tensors;
  }

  void begin_phase(const TensorMap& tensors, bool validates = true) {
    train_.reset();  // memory first
    val_.reset();
    optimizer_.reset();
    suffix_.emplace(job_.metadata.network, phase_->prefix_end, tensors, device_);
    load(validates);
    optimizer_.emplace(OptimizerOptions{config_.optimizer, config_.weight_decay, config_.momentum},
                       suffix_->parameters(), suffix_->rate_factors(config_.lr_decay_per_block));
    average_ = config_.average > 0 ? suffix_->copies() : std::vector<torch::Tensor>();
    weigh_classes();
  }

  /// Calls `what` with each observer.
  template <typename F>
  void tell(F what) {
    for (TrainObserver* observer : config_.observers) what(*observer);
  }

  void train_phase(const TrainingState& state) {
    tell([&](TrainObserver& o) { o.begin(epochs_); });
    while (static_cast<int>(progress_.history.size()) < phase_start_ + phase_->epochs &&
           !out_of_patience()) {
      const int epoch = static_cast<int>(progress_.history.size()) + 1;
      const EpochRecord record = run_epoch(epoch);
      const bool better = progress_.add(record);
      tell([&](TrainObserver& o) { o.epoch(record, better); });
      files_.write_history(progress_.history);
      save("last", record);
      if (better) files_.link_checkpoint("last", "checkpoints/best.safetensors");
      // Last: whatever a kill leaves behind before it is made again, the same, after a resume.
      state.save(*suffix_, *optimizer_, average_, record_.write(progress_, optimizer_->steps()));
    }
  }

  /// Decodes all pictures and computes what stays the same in all epochs.
  void load(bool validates) {
    const Network& net = job_.metadata.network;
    const bool has_prefix = phase_->prefix_end > 1;
    const PrefixJob prefix{net, phase_->prefix_end, job_.backbone, job_.cache, job_.cache_dtype};
    SourceJob source{.network = net, .preprocessing = job_.metadata.preprocessing};
    source.prefix = has_prefix ? &prefix : nullptr;
    source.keep_features = phase_->keep_features;
    source.seed = config_.seed;
    source.threads = config_.threads;
    source.verbosity = config_.verbosity;
    SourceJob train_source = source;
    train_source.augmentation = config_.augmentation;
    train_source.views = config_.views;
    load(train_source, Split::train, train_);
    if (validates) load(source, Split::validation, val_);
    if (!told_ && config_.on_read) config_.on_read(result_.excluded, result_.errors);
    told_ = true;
  }

  void load(SourceJob source, Split split, std::optional<Batches>& batches) {
    const std::vector<size_t> indices = job_.dataset.of(split);
    std::vector<fs::path> paths;
    paths.reserve(indices.size());
    for (const size_t i : indices) paths.push_back(job_.dataset.samples[i].path);
    source.paths = paths;
    source.label =
        fmt::format("{}, {}",
                    source.prefix != nullptr && source.views > 0 ? "features of the frozen prefix"
                                                                 : "reading pictures",
                    to_string(split));
    const size_t known = result_.excluded.size();
    std::unique_ptr<SampleSource> rows =
        make_sample_source(source, [&](size_t i, const std::string& message) {
          // A second phase reads them again.
          const auto& seen = result_.excluded;
          if (std::find(seen.begin(), seen.end(), indices[i]) != seen.end()) return;
          result_.excluded.push_back(indices[i]);
          result_.errors.push_back(message);
        });
    if (rows->usable().empty())
      fail(ErrorKind::input, "none of the {} {} pictures could be read{}", paths.size(),
           to_string(split),
           result_.errors.size() <= known ? "" : "; the first: " + result_.errors[known]);
    std::vector<int64_t> labels;
    std::vector<size_t> samples;
    for (const size_t i : rows->usable()) {
      samples.push_back(indices[i]);
      labels.push_back(job_.dataset.samples[indices[i]].label);
    }
    const Shape shape = output_shapes(job_.metadata.network)[phase_->prefix_end - 1];
    batches.emplace(std::move(rows), std::move(labels), std::move(samples),
                    shape.flat ? std::vector<int64_t>{shape.channels}
                               : std::vector<int64_t>{shape.channels, shape.height, shape.width});
  }

  [[nodiscard]] bool out_of_patience() const {
    // Only the last phase stops early; epochs before it do not count against it.
    return config_.patience > 0 && phase_ == &job_.phases.back() && !progress_.history.empty() &&
           static_cast<int>(progress_.history.size()) -
                   std::max(progress_.best_epoch, phase_start_) >=
               config_.patience;
  }

  EpochRecord run_epoch(int epoch) {
    // Dropout of an epoch depends on nothing that came before it.
    torch::manual_seed(config_.seed * 1'000'003 + static_cast<uint64_t>(epoch));
    const auto start = std::chrono::steady_clock::now();
    Tally tally;
    size_t seen = 0;
    start_epoch(epoch);
    while (auto batch = train_->next()) {
      note_lost(*batch, *train_, epoch);
      if (skips(*batch)) continue;
      rate_ = phase_->learning_rate *
              schedule_factor(config_.schedule,
                              config_.warmup_epochs * static_cast<double>(steps_in_epoch()),
                              optimizer_->steps(), phase_->epochs * steps_in_epoch());
      train_step(*batch, rate_, tally);
      if (!std::isfinite(tally.loss))
        fail(ErrorKind::input, "the loss became {} in epoch {}; try a smaller --lr than {:g}{}",
             tally.loss, epoch, phase_->learning_rate, best_so_far());
      seen += static_cast<size_t>(batch->labels.size(0));
      const EpochProgress now{epoch,          epochs_,           seen,
                              train_->size(), tally.mean_loss(), tally.accuracy()};
      tell([&](TrainObserver& o) { o.step(now); });
      if (interrupting_signal() != 0) stop(epoch, tally);
    }
    const Tally val = validate(epoch);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    return {epoch, tally.mean_loss(), tally.accuracy(), val.mean_loss(), val.accuracy(),
            rate_, taken.count()};
  }

  void start_epoch(int epoch) {
    std::vector<int64_t> order(train_->size());
    std::iota(order.begin(), order.end(), 0);
    Random(config_.seed, static_cast<uint64_t>(epoch)).shuffle(order);
    mixing_.emplace(~config_.seed, static_cast<uint64_t>(epoch));
    train_->start(std::move(order), config_.batch_size, epoch);
  }

  /// Images that can no longer be read: a few are done without, but not without most of them (their
  /// disk has gone), nor without a class.
  void note_lost(const Batches::Batch& batch, const Batches& batches, int epoch) {
    constexpr size_t kShown = 5;
    const size_t before = lost_.size();
    for (const int64_t row : batch.lost) {
      const size_t sample = batches.samples()[static_cast<size_t>(row)];
      if (!lost_.insert(sample).second) continue;
      result_.excluded.push_back(sample);
      result_.errors.push_back(fmt::format("{}: could be read at first, but no longer in epoch {}",
                                           printable(job_.dataset.samples[sample].path), epoch));
      if (config_.verbosity != Verbosity::quiet && lost_.size() <= kShown)
        print_diagnostic("graft: going on without {}\n", result_.errors.back());
    }
    if (lost_.size() == before) return;
    const std::vector<size_t>& all = batches.samples();
    std::vector<size_t> left(job_.metadata.classes.size());
    std::vector<size_t> gone(left.size());
    for (const size_t sample : all)
      ++(lost_.contains(sample) ? gone : left)[job_.dataset.samples[sample].label];
    const size_t total = std::accumulate(gone.begin(), gone.end(), size_t{0});
    bool class_is_gone = false;
    for (size_t c = 0; c < left.size(); ++c) class_is_gone |= left[c] == 0 && gone[c] > 0;
    if (2 * total > all.size() || class_is_gone)
      fail(ErrorKind::io,
           "{} of {} images can no longer be read in epoch {}, the last: {}; bring them back, then "
           "go on with --resume {}",
           total, all.size(), epoch, result_.errors.back(), printable(job_.run));
  }

  /// Batch statistics of one sample do not exist.
  [[nodiscard]] bool skips(const Batches::Batch& batch) const {
    if (batch.labels.size(0) == 0) return true;
    return batch.labels.size(0) == 1 && train_->size() > 1 && suffix_->has_batchnorm();
  }

  [[nodiscard]] torch::Tensor loss(const torch::Tensor& logits, const torch::Tensor& labels) const {
    return torch::nn::functional::cross_entropy(logits, labels,
                                                torch::nn::functional::CrossEntropyFuncOptions()
                                                    .weight(class_weights_)
                                                    .label_smoothing(config_.label_smoothing));
  }

  void train_step(const Batches::Batch& batch, double rate, Tally& tally) {
    torch::Tensor inputs = batch.inputs;
    Mix mix;
    if (config_.augmentation.mixup > 0)
      mix = mixup(inputs, config_.augmentation.mixup, *mixing_);
    else if (config_.augmentation.cutmix > 0)
      mix = cutmix(inputs, config_.augmentation.cutmix, *mixing_);
    const torch::Tensor labels = batch.labels.to(device_);
    optimizer_->zero_grad();
    postponed_.clear();
    // A common norm needs all gradients at once.
    PostponedGradients* postponed = config_.clip_gradients > 0 ? nullptr : &postponed_;
    const torch::Tensor logits = suffix_->forward(inputs.to(device_), /*training=*/true, postponed);
    torch::Tensor total = loss(logits, labels);
    if (mix.partner.defined())
      total = total * mix.share +
              loss(logits, batch.labels.index_select(0, mix.partner).to(device_)) * (1 - mix.share);
    tally.add(total, logits, labels);
    if (!std::isfinite(tally.loss)) return;
    total.backward();
    if (config_.clip_gradients > 0) optimizer_->clip_gradients(config_.clip_gradients);
    optimizer_->step(rate, postponed);
    if (!average_.empty()) {
      // Short averages first: the random start is forgotten (as TensorFlow's
      // ExponentialMovingAverage with num_updates).
      const auto t = static_cast<double>(optimizer_->steps());
      suffix_->average_into(average_, std::min(config_.average, (1 + t) / (10 + t)));
    }
  }

  [[nodiscard]] int64_t steps_in_epoch() const {
    const auto count = static_cast<int64_t>(train_->size());
    return (count + config_.batch_size - 1) / config_.batch_size;
  }

  /// "balanced": n / (classes · n of the class), so that classes weigh alike and the mean is 1.
  void weigh_classes() {
    if (config_.class_weights != "balanced") return;
    const auto classes = static_cast<int64_t>(job_.metadata.classes.size());
    const torch::Tensor counts =
        torch::bincount(torch::tensor(train_->labels(), torch::kLong), {}, classes)
            .to(torch::kFloat);
    class_weights_ =
        (static_cast<double>(train_->size()) / (static_cast<double>(classes) * counts.clamp_min(1)))
            .to(device_);
  }

  Tally validate(int epoch) {
    const torch::NoGradGuard no_gradients;
    Tally tally;
    std::vector<int64_t> order(val_->size());
    std::iota(order.begin(), order.end(), 0);
    val_->start(std::move(order), config_.batch_size, epoch);
    {
      const Averaged averaged(*this);
      while (auto batch = val_->next()) {
        note_lost(*batch, *val_, epoch);
        if (batch->labels.size(0) == 0) continue;
        const torch::Tensor labels = batch->labels.to(device_);
        const torch::Tensor logits =
            suffix_->forward(batch->inputs.to(device_), /*training=*/false);
        tally.add(torch::nn::functional::cross_entropy(logits, labels), logits, labels);
        // An infinite logit of a wrong class leaves the loss finite.
        if (!std::isfinite(tally.loss) || !logits.isfinite().all().item<bool>())
          fail(ErrorKind::input, "the validation {} after epoch {}; try a smaller --lr than {:g}{}",
               std::isfinite(tally.loss) ? "logits became infinite"
                                         : fmt::format("loss became {}", tally.loss),
               epoch, phase_->learning_rate, best_so_far());
        if (interrupting_signal() != 0) break;
      }
    }
    if (interrupting_signal() != 0) stop(epoch, tally);
    return tally;
  }

  /// While it lives, the suffix holds the averaged weights, if there are any.
  class Averaged {
   public:
    explicit Averaged(Trainer& trainer) : trainer_(trainer) { swap(); }
    ~Averaged() { swap(); }
    Averaged(const Averaged&) = delete;
    Averaged& operator=(const Averaged&) = delete;

   private:
    void swap() {
      if (!trainer_.average_.empty()) trainer_.suffix_->swap(trainer_.average_);
    }
    Trainer& trainer_;
  };

  /// After a signal: saves the state of the unfinished epoch and leaves.
  [[noreturn]] void stop(int epoch, const Tally& tally) {
    EpochRecord record;
    record.epoch = epoch;
    record.loss = tally.mean_loss();
    record.accuracy = tally.accuracy();
    record.learning_rate = rate_;
    const fs::path saved = save("last", record);
    fail(ErrorKind::interrupted,
         "interrupted in epoch {}; state saved in {}{}; 'graft train DATA --resume {}' goes on",
         epoch, printable(saved), best_so_far(), printable(job_.run));
  }

  /// What a run that ends early leaves, as the end of its message.
  [[nodiscard]] std::string best_so_far() const {
    if (progress_.best_epoch == 0) return "; no epoch was complete";
    return fmt::format("; best so far: epoch {} in checkpoints/best.safetensors",
                       progress_.best_epoch);
  }

  /// Writes the model as it would be used, averaged weights included.
  fs::path save(const std::string& name, const EpochRecord& record) {
    const Averaged averaged(*this);
    ModelFile model{job_.metadata, suffix_->snapshot()};
    for (const TensorSpec& spec : tensor_specs(job_.metadata.network, 0, phase_->prefix_end))
      model.tensors.insert_or_assign(spec.name, job_.backbone.at(spec.name));
    model.metadata.training = epoch_json(record);
    model.metadata.training.update({{"fine_tune", config_.fine_tune},
                                    {"optimizer", config_.optimizer},
                                    {"learning_rate", phase_->learning_rate},
                                    {"schedule", config_.schedule},
                                    {"label_smoothing", config_.label_smoothing},
                                    {"augment", config_.augment},
                                    {"views", config_.views},
                                    {"ema", config_.average},
                                    {"init", to_string(config_.initializer)},
                                    {"batch_size", config_.batch_size},
                                    {"seed", config_.seed},
                                    {"training_images", train_->size()},
                                    {"validation_images", val_->size()}});
    return files_.write_checkpoint(name, model);
  }

  const TrainJob& job_;
  const TrainConfig& config_;
  torch::Device device_;
  RunFiles files_;
  RunRecord record_;
  RunProgress progress_;
  TrainResult result_;
  const TrainPhase* phase_ = nullptr;
  int phase_start_ = 0;  // epochs before it
  int epochs_ = 0;       // of all phases
  std::optional<Batches> train_;
  std::optional<Batches> val_;
  std::optional<Suffix> suffix_;
  std::optional<Optimizer> optimizer_;
  PostponedGradients postponed_;        // of the current step
  std::vector<torch::Tensor> average_;  // empty: none
  std::optional<Random> mixing_;        // of this epoch
  torch::Tensor class_weights_;         // undefined: all alike
  double rate_ = 0;                     // of the last step
  bool told_ = false;                   // which images cannot be read
  std::set<size_t> lost_;               // samples that could be read at first
};

}  // namespace

TrainResult train(const TrainJob& job, const TrainConfig& config) {
  return Trainer(job, config).run();
}

std::vector<RatePoint> find_learning_rate(const TrainJob& job, const TrainConfig& config) {
  return Trainer(job, config).find_rate();
}

}  // namespace graft
