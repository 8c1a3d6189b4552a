#include "train/trainer.h"

#include <torch/torch.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/progress.h"
#include "recipe/options_text.h"
#include "run/run_files.h"
#include "run/run_folder.h"
#include "train/compact.h"
#include "train/device.h"
#include "train/group.h"
#include "train/loop.h"
#include "train/run_record.h"
#include "train/sources.h"
#include "train/state.h"
#include "weights/load.h"

namespace graft {
namespace {

class Trainer {
 public:
  explicit Trainer(const TrainJob& job)
      : job_(job), device_(torch_device(job.device)), sources_(job), files_(job.run), record_(job) {
    job.recipe.check();
    for (const TrainPhase& phase : job.phases) epochs_ += phase.epochs;
    if (job.group != nullptr) check_group();
  }

  TrainResult run() {
    const TrainingState state(job_.run);
    std::optional<TrainingState::Loaded> loaded = load(state);
    TensorMap tensors = first_tensors();
    if (loaded) {
      progress_ = record_.read(loaded->record);
      if (writes() && progress_.best_epoch > 0) files_.require_checkpoint("best");
      if (writes() && is_compact(*loaded))
        loaded->tensors = restore_best(job_.run, *loaded).tensors;
      job_.context.tell(Severity::info,
                        fmt::format("going on after epoch {}", progress_.history.size()));
      if (static_cast<int>(progress_.history.size()) >= epochs_)
        job_.context.tell(Severity::note,
                          fmt::format("note: the run has had its {} epochs; a larger number of "
                                      "`epochs` adds some",
                                      epochs_));
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
      begin_phase(tensors, /*validates=*/true);
      if (loaded && made > phase_start_) {
        const auto steps = loaded->record.at("steps").get<int64_t>();
        const bool compact = is_compact(*loaded);
        if (!compact) restore(*loaded);
        loop_->optimizer().set_steps(
            steps, compact ? steps : loaded->record.value("steps_without_moments", int64_t{0}));
      }
      loaded.reset();
      train_phase(state);
      for (const auto& [name, tensor] : loop_->suffix().snapshot())
        tensors.insert_or_assign(name, tensor);
    }
    return {progress_.history, progress_.best_epoch,
            static_cast<int>(progress_.history.size()) < epochs_, sources_.excluded(),
            sources_.errors()};
  }

  std::vector<RatePoint> find_rate() {
    phase_ = &job_.phases.back();
    begin_phase(first_tensors(), /*validates=*/false);
    Progress progress(job_.context, "learning-rate range test", kRateSteps, "steps");
    return loop_->find_rate([&](const RatePoint& point, size_t done) {
      progress.update(done, fmt::format("rate {:.2g}  loss {:.4f}", point.rate, point.loss));
    });
  }

 private:
  /// The backbone's weights and the head's random ones.
  [[nodiscard]] TensorMap first_tensors() const {
    const Network& net = job_.metadata.network;
    TensorMap tensors = job_.backbone;
    size_t head = 0;
    while (!net.layers[head].in_head) ++head;
    tensors.merge(
        random_tensors(net, head, net.layers.size(), job_.recipe.seed, job_.recipe.model.init));
    return tensors;
  }

  void begin_phase(const TensorMap& tensors, bool validates) {
    loop_.reset();  // memory first
    tell([](TrainObserver& o) { o.stage(TrainStage::features); });
    Suffix suffix(job_.metadata.network, phase_->prefix_end, tensors, device_,
                  job_.recipe.precision);
    if (job_.group != nullptr) {
      const auto number = phase_ - job_.phases.data() + 1;
      sources_.extract(*phase_, Split::train, fmt::format("features/{}", number));
      if (validates)
        sources_.extract(*phase_, Split::validation, fmt::format("validation/{}", number));
    }
    std::unique_ptr<Batches> training = sources_.open(*phase_, Split::train);
    std::unique_ptr<Batches> validation;
    if (validates) validation = sources_.open(*phase_, Split::validation);
    if (!told_ && job_.on_read && writes()) job_.on_read(sources_.excluded(), sources_.errors());
    told_ = true;
    if (job_.group != nullptr) {
      job_.group->meet(fmt::format("sources/{}", phase_ - job_.phases.data() + 1));
      agree(*training, validation.get());
      for (const torch::Tensor& tensor : suffix.tensors()) copy_from_first(tensor);
    }
    LoopHooks hooks{
        .step = [this](const EpochProgress& now) { tell([&](TrainObserver& o) { o.step(now); }); },
        .lost = [this](const Batches::Batch& batch, const Batches& batches,
                       int epoch) { sources_.note_lost(batch, batches, epoch); },
        .so_far = [this] { return best_so_far(); },
        .stop = job_.context.stop};
    loop_.emplace(job_.recipe, *phase_, static_cast<int64_t>(job_.metadata.classes.size()),
                  std::move(suffix), std::move(training), std::move(validation), device_,
                  std::move(hooks), job_.group, job_.compression);
  }

  [[nodiscard]] bool writes() const { return job_.group == nullptr || job_.group->is_first(); }

  /// Throws in all processes where one would do another work than rank 0.
  void check_group() {
    const Augmentation augmentation = parse_augmentation(job_.recipe.views.augment);
    if (augmentation.mixup > 0 || augmentation.cutmix > 0)
      fail(ErrorKind::usage,
           "`augment`: mixup and cutmix mix images that different processes hold; train in one "
           "process, or leave them out");
    nlohmann::json work = record_.write({}, 0);
    work["classes"] = job_.metadata.classes;
    work["epochs"] = epochs_;
    work["compression"] = job_.compression;
    work["patience"] = job_.recipe.optimization.patience.value_or(0);
    std::string weights;
    for (const auto& [name, tensor] : job_.backbone)
      weights += name + content_hash(std::as_bytes(tensor.values()));
    work["weights"] = hash_of(weights);
    std::string contents;
    for (const Sample& sample : job_.dataset.samples) contents += sample.content + '\n';
    work["data"] = hash_of(contents + work["data"].dump());
    work["images"] = job_.dataset.samples.size();
    job_.group->require_same("its images, weights or options", work);
  }

  static std::string hash_of(const std::string& text) {
    return content_hash(std::as_bytes(std::span(text)));
  }

  /// Images that one process alone cannot read would give all others another batch.
  void agree(const Batches& training, const Batches* validation) {
    std::string rows;
    size_t count = training.samples().size();
    for (const size_t sample : training.samples()) rows += fmt::format("{} ", sample);
    if (validation != nullptr) {
      count += validation->samples().size();
      for (const size_t sample : validation->samples()) rows += fmt::format("{} ", sample);
    }
    job_.group->require_same("the images that it can read",
                             {{"images", count}, {"which", hash_of(rows)}});
  }

  void copy_from_first(const torch::Tensor& tensor) {
    const torch::Tensor on_cpu = tensor.to(torch::kCPU).contiguous();
    job_.group->broadcast(on_cpu);
    if (!writes()) tensor.copy_(on_cpu);
  }

  /// The state in the run folder, which rank 0 alone reads; in the others its record.
  [[nodiscard]] std::optional<TrainingState::Loaded> load(const TrainingState& state) {
    std::optional<TrainingState::Loaded> loaded;
    if (writes() && job_.resume) loaded = state.load(job_.context);
    if (job_.group == nullptr || !job_.resume) return loaded;
    const std::string record =
        job_.group->share("state", loaded ? loaded->record.dump() : std::string());
    if (!writes() && !record.empty())
      loaded = TrainingState::Loaded{{}, nlohmann::json::parse(record)};
    return loaded;
  }

  void restore(const TrainingState::Loaded& loaded) {
    const Moments moments = loop_->empty_moments();
    if (writes()) TrainingState::restore(loaded, moments, loop_->average());
    loop_->set_moments(moments);
    if (job_.group != nullptr)
      for (const torch::Tensor& tensor : loop_->average()) copy_from_first(tensor);
  }

  /// Calls `what` with each observer.
  template <typename F>
  void tell(F what) {
    for (TrainObserver* observer : job_.observers) what(*observer);
  }

  void train_phase(const TrainingState& state) {
    tell([&](TrainObserver& o) {
      o.stage(TrainStage::training);
      o.begin(epochs_);
    });
    while (static_cast<int>(progress_.history.size()) < phase_start_ + phase_->epochs &&
           !out_of_patience()) {
      const int epoch = static_cast<int>(progress_.history.size()) + 1;
      const EpochEnd end = loop_->run_epoch(epoch, epochs_);
      if (end.stopped) stop(end.record);
      const EpochRecord& record = end.record;
      const bool annealed =
          job_.recipe.optimization.schedule != Schedule::constant && epoch == epochs_;
      const bool better = progress_.add(record, annealed ? loop_->validation_images() : 0);
      tell([&](TrainObserver& o) { o.epoch(record, better); });
      const Moments moments = loop_->moments();
      if (writes()) {
        files_.write_history(progress_.history);
        save("last", record);
        if (better) files_.link_checkpoint("last", run_files::kBest);
        // Last: whatever a kill leaves behind before it is made again, the same, after a resume.
        state.save(loop_->suffix(), moments, loop_->average(),
                   record_.write(progress_, loop_->optimizer().steps(),
                                 loop_->optimizer().steps_without_moments()));
      }
      // However long a disk takes.
      if (job_.group != nullptr) job_.group->meet(fmt::format("epoch {}", epoch));
      const std::vector<EpochMistake> worst = mistakes(end.worst);
      tell([&](TrainObserver& o) { o.mistakes(epoch, worst); });
    }
  }

  [[nodiscard]] std::vector<EpochMistake> mistakes(const std::vector<ValidationMistake>& of) const {
    std::vector<EpochMistake> out;
    for (const ValidationMistake& m : of) {
      const Sample& sample = job_.dataset.samples[m.sample];
      out.push_back({sample.path, job_.metadata.classes[static_cast<size_t>(sample.label)],
                     job_.metadata.classes[m.predicted], m.predicted, m.probability});
    }
    return out;
  }

  [[nodiscard]] bool out_of_patience() const {
    // Only the last phase stops early; epochs before it do not count against it.
    const int patience = job_.recipe.optimization.patience.value_or(0);
    return patience > 0 && phase_ == &job_.phases.back() && !progress_.history.empty() &&
           static_cast<int>(progress_.history.size()) -
                   std::max(progress_.best_epoch, phase_start_) >=
               patience;
  }

  /// Saves the state of the unfinished epoch and leaves.
  [[noreturn]] void stop(const EpochRecord& record) {
    if (!writes()) throw Error(ErrorKind::interrupted, "interrupted");
    EpochRecord unfinished = record;
    unfinished.val_loss = unfinished.val_accuracy = 0;
    const fs::path saved = save("last", unfinished);
    fail(ErrorKind::interrupted,
         "interrupted in epoch {}; state saved in {}{}; 'graft train DATA `resume` {}' goes on",
         record.epoch, printable(saved), best_so_far(), printable(job_.run));
  }

  /// What a run that ends early leaves, as the end of its message.
  [[nodiscard]] std::string best_so_far() const {
    if (progress_.best_epoch == 0) return "; no epoch was complete";
    return fmt::format("; best so far: epoch {} in checkpoints/best.safetensors",
                       progress_.best_epoch);
  }

  /// Writes the model as it would be used, averaged weights included.
  fs::path save(const std::string& name, const EpochRecord& record) {
    const TrainLoop::Averaged averaged(*loop_);
    ModelFile model{job_.metadata, loop_->suffix().snapshot()};
    for (const TensorSpec& spec : tensor_specs(job_.metadata.network, 0, phase_->prefix_end))
      model.tensors.insert_or_assign(spec.name, job_.backbone.at(spec.name));
    nlohmann::json& about = model.metadata.training;
    about = epoch_json(record);
    Recipe recipe = job_.recipe;
    options::visit_options(options::OptionRecorder{about}, recipe);
    about.update({{"learning_rate", phase_->learning_rate},
                  {"views", job_.views},
                  {"cache_dtype", options::word(job_.feature_type)},
                  {"training_images", loop_->training_images()},
                  {"validation_images", loop_->validation_images()}});
    return files_.write_checkpoint(name, model);
  }

  const TrainJob& job_;
  torch::Device device_;
  Sources sources_;
  RunFiles files_;
  RunRecord record_;
  RunProgress progress_;
  const TrainPhase* phase_ = nullptr;
  int phase_start_ = 0;  // epochs before it
  int epochs_ = 0;       // of all phases
  std::optional<TrainLoop> loop_;
  bool told_ = false;  // which images cannot be read
};

/// What LibTorch says of a GPU, in a line.
template <typename F>
auto on_device(const TrainJob& job, F run) {
  try {
    Trainer trainer(job);
    return run(trainer);
  } catch (const c10::Error& error) {
    const torch::Device device = torch_device(job.device);
    if (device.is_cpu()) throw;
    fail_on(device, error);
  }
}

}  // namespace

TrainResult run_training(const TrainJob& job) {
  return on_device(job, [](Trainer& trainer) { return trainer.run(); });
}

std::vector<RatePoint> run_range_test(const TrainJob& job) {
  return on_device(job, [](Trainer& trainer) { return trainer.find_rate(); });
}

}  // namespace graft
