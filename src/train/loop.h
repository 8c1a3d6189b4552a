// The training loop of one phase: batches in, epochs out. It knows no files.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/random.h"
#include "graft/recipe.h"
#include "graft/train.h"
#include "image/augment.h"
#include "train/batches.h"
#include "train/fused_optimizer.h"
#include "train/group.h"
#include "train/schedule.h"
#include "train/shards.h"
#include "train/suffix.h"

namespace graft {

/// What a loop tells while it runs, and when it is to stop. All may be null.
struct LoopHooks {
  std::function<void(const EpochProgress&)> step;
  /// Rows of a batch could no longer be read. What it throws ends training.
  std::function<void(const Batches::Batch&, const Batches&, int epoch)> lost;
  /// What an error's message is to end with, such as how far the run has come.
  std::function<std::string()> so_far;
  std::stop_token stop{};
};

/// A sample (an index into the dataset) that validation classified wrongly.
struct ValidationMistake {
  size_t sample = 0;
  size_t predicted = 0;
  double probability = 0;  ///< of that class
  double loss = 0;
};

/// How an epoch ended: whole, with validation, or stopped in its middle.
struct EpochEnd {
  EpochRecord record;
  std::vector<ValidationMistake> worst{};  ///< at most kMostEpochMistakes, the worst first
  bool stopped = false;
};

/// Not thread-safe. Results depend on recipe, seed, batches and the numbers of the epochs, not on
/// the thread count.
class TrainLoop {
 public:
  /// `recipe` is resolved and, like `phase`, outlives the loop. `validation` may
  /// be null for find_rate(). `group`: that trains together on batches of this size; outlives the
  /// loop; null: nobody else.
  TrainLoop(const Recipe& recipe, const TrainPhase& phase, int64_t classes, Suffix suffix,
            std::unique_ptr<Batches> training, std::unique_ptr<Batches> validation,
            torch::Device device, LoopHooks hooks, Group* group = nullptr,
            GradientCompression compression = GradientCompression::none);

  /// Epoch `epoch` (from 1, counted over all phases, of which `epochs` is the sum). Throws
  /// Error(input) where loss or logits are not finite any more.
  EpochEnd run_epoch(int epoch, int epochs);
  /// The learning-rate range test: see find_learning_rate().
  std::vector<RatePoint> find_rate(const std::function<void(const RatePoint&, size_t)>& on_step);

  [[nodiscard]] Suffix& suffix() { return suffix_; }
  [[nodiscard]] FusedOptimizer& optimizer() { return optimizer_; }
  /// The optimiser's state, of all parameters: of a group in rank 0, nothing in the others. All
  /// ranks call them.
  [[nodiscard]] Moments moments() const;
  void set_moments(const Moments& whole);
  /// Moments of all parameters to be filled in, in rank 0; nothing in the others.
  [[nodiscard]] Moments empty_moments() const;
  /// The moving average of the suffix's tensors; empty where there is none.
  [[nodiscard]] std::vector<torch::Tensor>& average() { return average_; }
  [[nodiscard]] size_t training_images() const { return training_->size(); }
  [[nodiscard]] size_t validation_images() const { return validation_ ? validation_->size() : 0; }

  /// While it lives, the suffix holds the averaged weights, if there are any.
  class Averaged {
   public:
    explicit Averaged(TrainLoop& loop) : loop_(loop) { swap(); }
    ~Averaged() { swap(); }
    Averaged(const Averaged&) = delete;
    Averaged& operator=(const Averaged&) = delete;

   private:
    void swap() {
      if (!loop_.average_.empty()) loop_.suffix_.swap(loop_.average_);
    }
    TrainLoop& loop_;
  };

 private:
  struct Tally;

  void start_epoch(int epoch);
  /// step() and the sums of validate() in a group.
  void step_together(const Batches::Batch& batch, double rate, Tally& tally);
  void add_up(Tally& tally, std::vector<ValidationMistake>& mistakes) const;
  [[nodiscard]] Batches::Share share() const;
  [[nodiscard]] bool stop_requested() const { return hooks_.stop.stop_requested(); }
  void step(const Batches::Batch& batch, double rate, Tally& tally);
  Tally validate(int epoch, std::vector<ValidationMistake>& mistakes);
  void note_lost(const Batches::Batch& batch, const Batches& batches, int epoch) const;
  [[nodiscard]] bool skips(const Batches::Batch& batch) const;
  [[nodiscard]] torch::Tensor loss(const torch::Tensor& logits, const torch::Tensor& labels) const;
  [[nodiscard]] int64_t steps_in_epoch() const;
  void weigh_classes(int64_t classes);
  [[nodiscard]] std::vector<double> factors() const {
    return suffix_.rate_factors(options_.lr_decay_per_block);
  }
  [[nodiscard]] std::string so_far() const { return hooks_.so_far ? hooks_.so_far() : ""; }

  const Recipe::Optimization& options_;
  uint64_t seed_;
  const TrainPhase& phase_;
  Augmentation augmentation_;
  torch::Device device_;
  Suffix suffix_;
  std::unique_ptr<Batches> training_;
  std::unique_ptr<Batches> validation_;
  Group* group_;
  std::unique_ptr<ParameterShards> shards_;  // in a group
  FusedOptimizer optimizer_;                 // of this process's shard
  std::vector<torch::Tensor> average_;
  PostponedGradients postponed_;  // of the current step
  std::optional<Random> mixing_;  // of this epoch
  torch::Tensor class_weights_;   // undefined: all alike
  LoopHooks hooks_;
};

}  // namespace graft
