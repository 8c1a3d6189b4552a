// Training a classifier: the plan, the run, and what comes of it.
//
//   graft::RunContext context{.reporter = &mine, .stop = source.get_token()};
//   graft::Dataset data = graft::open_dataset("photos/");
//   graft::Recipe recipe = graft::Recipe::named("default");
//   graft::TrainPlan plan = graft::plan(std::move(data), recipe);
//   graft::Run run = graft::train(plan, "runs/pets", {}, context);
//   graft::Classifier pets = run.classifier();
//
// Linking graft_train (and with it LibTorch) is needed for train(), resume(), find_learning_rate()
// and what sets the process's threads alone; plan() and all else are in graft_data.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/classifier.h"
#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/group.h"
#include "graft/metrics.h"
#include "graft/network.h"
#include "graft/recipe.h"
#include "graft/run_files.h"

#pragma GCC visibility push(default)
namespace graft {

/// Consecutive epochs in which the same layers train, with a schedule and an optimiser state of
/// their own.
struct TrainPhase {
  int epochs = 0;
  size_t prefix_end = 0;      ///< layers before it are frozen and run in the engine
  bool keep_features = true;  ///< their outputs stay in memory
  double learning_rate = 1e-3;
};

/// Bytes.
struct MemoryEstimate {
  uint64_t features = 0;     ///< outputs of the frozen prefix, or images, kept for all epochs
  uint64_t parameters = 0;   ///< weights, gradients and optimiser state of the suffix
  uint64_t activations = 0;  ///< of one training step
  uint64_t prefix = 0;       ///< the engine's weights and buffers
  uint64_t available = 0;    ///< 0: unknown
  std::string_view limit{};  ///< the limit that leaves no more; empty: the machine's memory
  uint64_t others = 0;       ///< of such a limit, what libraries and a thread take beside the rest
  [[nodiscard]] uint64_t total() const { return features + parameters + activations + prefix; }
  /// With a tenth more, for the system and for what an estimate misses.
  [[nodiscard]] uint64_t required() const { return total() + total() / 9; }
};

/// Where features of frozen layers are kept between runs.
struct CacheOptions {
  bool use = true;
  std::filesystem::path folder;  ///< of all of Graft's caches; empty: $XDG_CACHE_HOME/graft
  double limit = 20e9;           ///< bytes; the sets used least recently go first
};

/// What a training run will do, worked out before it starts.
struct TrainPlan {
  Dataset dataset;   ///< split
  Recipe recipe;     ///< with everything filled in
  Network network;   ///< with head
  std::string head;  ///< in the head's language
  FreezePlan freeze;
  std::vector<TrainPhase> phases;
  int views = 1;  ///< of each training image, their features cached; 0: new ones in every epoch
  FeatureType feature_type = FeatureType::fp16;  ///< that features are rounded to
  CacheOptions cache;
  MemoryEstimate memory;  ///< of the phase that needs most
};

/// Splits the data, builds the network, estimates memory. Throws Error for what can be known to
/// fail later: a class without training images, weights that are not there, too little memory.
/// Decodes nothing, and does not know what devices LibTorch has.
TrainPlan plan(Dataset data, const Recipe& recipe, const CacheOptions& cache = {},
               const RunContext& context = {});

/// Reads the weights as training will, and throws what it would; those that are yet to be
/// downloaded are noted in the plan's dataset.
void check_weights(TrainPlan& plan, const RunContext& context = {});

/// The plan for reading. `with_time`: with the time that it will take, from a short measurement.
std::string plan_text(const TrainPlan& plan, bool with_time = false,
                      const RunContext& context = {});

/// One line of history.csv.
struct EpochRecord {
  int epoch = 0;
  double loss = 0;
  double accuracy = 0;
  double val_loss = 0;
  double val_accuracy = 0;
  double learning_rate = 0;  ///< of the last step
  double seconds = 0;
};

/// Whether `epoch` ranks before `other`: the higher validation accuracy, of equals the lower
/// validation loss, of equals neither. An epoch with a figure that is not finite ranks behind all
/// others. Epochs are ranked here and in keeps_last_epoch() alone
/// (docs/decisions/0003-best-epoch.md).
inline bool better_epoch(const EpochRecord& epoch, const EpochRecord& other) {
  const auto finite = [](const EpochRecord& e) {
    return std::isfinite(e.val_accuracy) && std::isfinite(e.val_loss);
  };
  if (!finite(epoch) || !finite(other)) return finite(epoch) && !finite(other);
  if (epoch.val_accuracy != other.val_accuracy) return epoch.val_accuracy > other.val_accuracy;
  return epoch.val_loss < other.val_loss;
}

/// Whether the last epoch of a run whose learning rate fell to nothing (one-cycle, cosine) is kept
/// in place of `best`: such runs are best at their end, so that only a validation accuracy that is
/// lower by more than two standard errors of the difference of two accuracies of
/// `validation_images` images speaks against it (docs/decisions/0003-best-epoch.md).
inline bool keeps_last_epoch(const EpochRecord& last, const EpochRecord& best,
                             size_t validation_images) {
  if (!std::isfinite(last.val_accuracy) || !std::isfinite(last.val_loss)) return false;
  const double share = (last.val_accuracy + best.val_accuracy) / 2;
  const double error =
      std::sqrt(2 * share * (1 - share) / std::max(static_cast<double>(validation_images), 1.0));
  return last.val_accuracy >= best.val_accuracy - 2 * error;
}

/// Where training is within an epoch.
struct EpochProgress {
  int epoch = 0;   ///< from 1
  int epochs = 0;  ///< at most
  size_t done = 0;
  size_t images = 0;  ///< of an epoch
  double loss = 0;    ///< mean so far
  double accuracy = 0;
};

/// What a run is busy with. Features of frozen layers are computed again before each phase.
enum class TrainStage { features, training, evaluation, report };
inline constexpr size_t kTrainStages = 4;
/// "features", …
std::string_view to_string(TrainStage stage);

/// A validation image that an epoch's model classified wrongly.
struct EpochMistake {
  std::filesystem::path path;
  std::string label;
  std::string predicted;
  size_t predicted_class = 0;  ///< its number
  double probability = 0;      ///< of the predicted class, before calibration
};
inline constexpr size_t kMostEpochMistakes = 12;

struct Run;

/// Told what training does. All calls come from the thread that called train(). They should return
/// quickly.
class TrainObserver {
 public:
  TrainObserver() = default;
  virtual ~TrainObserver() = default;
  TrainObserver(const TrainObserver&) = delete;
  TrainObserver& operator=(const TrainObserver&) = delete;

  /// An epoch that an earlier part of the run made; before everything else. `best`: whether it is
  /// the best of all of them.
  virtual void past_epoch(const EpochRecord& record, bool best) { (void)record, (void)best; }
  /// Images are read and training begins; again for each phase.
  virtual void begin(int epochs) { (void)epochs; }
  virtual void step(const EpochProgress& progress) { (void)progress; }
  /// `best`: whether it is better than all before it.
  virtual void epoch(const EpochRecord& record, bool best) { (void)record, (void)best; }
  /// Once the epoch's checkpoint is written: the worst mistakes (highest losses) of its validation,
  /// the worst first, at most kMostEpochMistakes.
  virtual void mistakes(int epoch, const std::vector<EpochMistake>& worst) {
    (void)epoch, (void)worst;
  }
  virtual void stage(TrainStage stage) { (void)stage; }
  /// All files are written.
  virtual void finished(const Run& run) { (void)run; }
};

enum class RunMode {
  fresh,    ///< a new folder, or one with nothing in it that would be lost
  replace,  ///< a run that is there loses its files
  resume,   ///< a run that is there goes on
};
/// Throws Error where a run cannot go there: a run that is there already, one that another process
/// is writing, a folder that cannot be made. Makes nothing.
void check_run_folder(const std::filesystem::path& folder, RunMode mode);

/// What gradients are rounded to on their way between the processes of a group.
enum class GradientCompression { none, fp16, bf16 };

/// How a run is made, beside what decides its result.
struct RunOptions {
  bool replace = false;  ///< a run that is in the folder loses its files; else it is an error
  bool report = true;    ///< write report.html
  /// Look for labels that are probably wrong (graft/labels.h): review.csv, and a part of the
  /// report.
  bool check_labels = false;
  std::vector<TrainObserver*> observers{};  ///< none owned
  /// That trains together; null: this process alone (graft/group.h). Rank 0 alone writes the run
  /// folder and has observers; what the others return has no metrics.
  Group* group = nullptr;
  /// In a group; the same in all its processes. One process sends nothing and rounds nothing.
  GradientCompression compression = GradientCompression::none;
};

/// A finished run.
struct Run {
  std::filesystem::path folder;
  std::vector<EpochRecord> history;
  int best_epoch = 0;
  bool stopped_early = false;
  Metrics validation;           ///< of the calibrated model
  std::optional<Metrics> test;  ///< none where there are no test images
  /// Labels that are probably wrong, all of them in review.csv; none: nobody looked.
  std::optional<size_t> doubtful_labels;
  /// metrics.json: these figures, calibration, images that were skipped.
  std::string metrics;
  /// Few enough test images were unreadable for the test figures to count.
  bool test_is_whole = true;

  [[nodiscard]] std::filesystem::path model() const { return folder / run_files::kModel; }
  [[nodiscard]] Classifier classifier(const ClassifierOptions& options = {}) const {
    return Classifier::load(folder, options);
  }
};

/// Trains, calibrates and evaluates; docs/formats.md says what is in the folder then. A kill at any
/// moment leaves either no model.safetensors or a whole, calibrated one, and a run that resume()
/// goes on with. Where the context says stop, the state is saved and Error(interrupted) thrown.
/// LibTorch's, OpenMP's and BLAS' threads are those of the process: set_training_threads() first.
Run train(const TrainPlan& plan, const std::filesystem::path& folder,
          const RunOptions& options = {}, const RunContext& context = {});

/// What a run was made with.
struct RunSettings {
  std::filesystem::path data;  ///< empty in runs of earlier versions
  std::filesystem::path validation;
  std::filesystem::path test;
  std::filesystem::path corrections;  ///< of labels; as the run took them
  Recipe recipe;
  CacheOptions cache;
  bool report = true;
  bool check_labels = false;
};
/// Throws Error(input) where there is no run.
RunSettings run_settings(const std::filesystem::path& folder);

/// Goes on from the last whole epoch; the result is the same, bit for bit on one machine with the
/// same thread count, as that of a run that was not interrupted. `plan`: made of the same data and
/// recipe, in which epochs and patience may be others.
Run resume(const TrainPlan& plan, const std::filesystem::path& folder,
           const RunOptions& options = {}, const RunContext& context = {});
/// With the run's own data and recipe.
Run resume(const std::filesystem::path& folder, const RunContext& context = {},
           const std::vector<TrainObserver*>& observers = {});

/// A step of a learning-rate range test.
struct RatePoint {
  double rate = 0;
  double loss = 0;
};

/// The learning-rate range test (Smith, "Cyclical learning rates", 2017) on the last phase: steps
/// at rates that rise from 1e-7 to 10 by equal factors, until the loss is four times its least or
/// all steps are done. Losses are smoothed. Writes nothing.
std::vector<RatePoint> find_learning_rate(const TrainPlan& plan, const RunContext& context = {});
/// The same, with a table and a chart of it in a run folder: find-lr.csv and find-lr.svg. Throws
/// Error(input) where the loss is not finite even at the least rate.
std::vector<RatePoint> find_learning_rate(const TrainPlan& plan,
                                          const std::filesystem::path& folder,
                                          const RunOptions& options, const RunContext& context);

/// The rate where the loss falls most steeply over the logarithm of the rate: a safe one. Nothing
/// where it falls nowhere, or where there are too few points for a slope.
std::optional<double> suggested_rate(const std::vector<RatePoint>& points);

/// For programs, before LibTorch is loaded: throws Error where a limit on memory, processes or
/// files (ulimit, containers) is too low for its libraries, which would fail, or wait for memory
/// for ever, before they can say so.
void check_training_limits();

struct ThreadLimit {
  int threads = 1;
  std::string note;  ///< why they are fewer than wanted; empty if they are not
};
/// The threads of `wanted` that limits on processes and memory leave for a plan, at least 1.
ThreadLimit threads_within_limits(int wanted, const TrainPlan& plan);

/// For programs to call once, before they train. Sets the thread count of LibTorch, OpenMP and BLAS
/// alike, for the whole process.
void set_training_threads(int threads);
/// Likewise. Keeps freed memory in the process: gradients of large layers (411 MB for the
/// notebook's head) come back from the system zeroed page by page, at every step, otherwise.
void keep_freed_memory();
/// "LibTorch 1.13.1, BLAS: OpenBLAS 0.3.21 (2 threads)".
std::string training_backend();

}  // namespace graft
#pragma GCC visibility pop
