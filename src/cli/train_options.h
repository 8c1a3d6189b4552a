// The options of `graft train`, read alike by the program that parses and the one that trains.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cli/common.h"
#include "dataset/skipped.h"
#include "image/augment.h"

namespace graft::cli {

struct TrainOptions {
  CommonOptions common;
  NetworkOptions network;
  std::string data;
  std::string output;
  std::string val;
  std::string test;
  double val_split = 0.15;
  double test_split = 0;
  std::string exclude;               ///< words of kExclusions, separated by commas or spaces
  double max_skipped = kMaxSkipped;  ///< share of images that may be unreadable
  int dashboard = 0;                 ///< port on the loopback interface; 0: none
  int epochs = 8;
  int batch_size = 64;
  std::string optimizer = "adamw";
  double lr = 0;  ///< 0: 2e-3, or 1e-4 where pretrained layers train too
  std::string augment = "none";
  int views = -1;  ///< -1: what suits the augmentation
  int freeze_epochs = 0;
  double head_lr = 2e-3;  ///< in the freeze epochs
  double lr_decay_per_block = 1;
  double ema = 0;
  bool find_lr = false;
  double weight_decay = 0.01;
  double momentum = 0.9;
  std::string schedule = "one-cycle";
  double warmup_epochs = 0;
  double label_smoothing = 0.1;
  double clip_gradients = 0;
  std::string class_weights = "none";
  int patience = -1;               ///< -1: 5, or none where the schedule ends low
  std::string init = "he-normal";  ///< or glorot-uniform
  uint64_t seed = 0;
  std::string device = "auto";
  std::string cache_dir;
  std::string cache_dtype = "fp16";
  double cache_limit = 20;  ///< GB
  bool no_cache = false;
  std::string recipe = "default";
  std::string config;
  std::string resume;  ///< a run folder to go on with
  bool force = false;
  bool dry_run = false;
  bool no_report = false;
  bool json = false;

  /// The learning rate in effect.
  [[nodiscard]] double learning_rate() const;
  [[nodiscard]] Augmentation augmentation() const { return parse_augmentation(augment); }
  /// Epochs without a better one before training stops; 0: never.
  [[nodiscard]] int patience_in_effect() const;
  /// Cached views of each picture in effect, where a prefix is frozen or not; 0: new ones in every
  /// epoch.
  [[nodiscard]] int view_count(bool has_prefix) const;
};

/// Words between commas or spaces.
std::vector<std::string> split_words(const std::string& text);

/// Parses `graft train …` (argv[0] is "train"), puts recipe and configuration file beneath the
/// command line, and calls `run`. Returns the exit code.
int run_train_app(int argc, char** argv, const std::function<int(const TrainOptions&)>& run);

/// Every option in effect, so that `--config` repeats the run: keys and values as TOML has them.
std::vector<std::pair<std::string, std::string>> config_entries(const TrainOptions& options);

/// How the config.toml of a run begins.
inline constexpr const char* kConfigStart = "# Options of this run.";

/// The run's config.toml.
std::string config_toml(const TrainOptions& options);

}  // namespace graft::cli
