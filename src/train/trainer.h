// The training loop.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/progress.h"
#include "dataset/dataset.h"
#include "features/feature_cache.h"
#include "graft/network.h"
#include "image/augment.h"
#include "train/observer.h"
#include "train/phase.h"
#include "train/schedule.h"
#include "weights/load.h"
#include "weights/metadata.h"
#include "weights/tensor.h"

namespace graft {

struct TrainConfig {
  int batch_size = 64;
  std::string optimizer = "adam";  ///< adam, adamw, sgd
  double weight_decay = 0;
  double momentum = 0.9;
  std::string schedule = "constant";  ///< constant, cosine, one-cycle
  double warmup_epochs = 0;           ///< of a linear rise before constant or cosine
  double label_smoothing = 0;
  double clip_gradients = 0;           ///< largest norm of all gradients together; 0: no limit
  std::string class_weights = "none";  ///< none, balanced
  int patience = 5;                    ///< 0: never stop early
  Augmentation augmentation;           ///< of training pictures
  std::string augment;                 ///< its words, recorded in the model
  int views = 1;                       ///< of each picture, drawn once; 0: new ones in every epoch
  double lr_decay_per_block = 1;       ///< see Suffix::rate_factors
  double average = 0;                  ///< decay of the weights' moving average; 0: none
  Initializer initializer = Initializer::he_normal;  ///< of the head
  uint64_t seed = 0;
  int threads = 1;
  std::string device = "auto";
  bool resume = false;          ///< from the state in the run folder, if there is one
  std::string fine_tune = "0";  ///< recorded in the model
  Verbosity verbosity = Verbosity::normal;
  std::vector<TrainObserver*> observers;  ///< none owned
  /// Told before the first epoch which samples cannot be read, and why; what it throws ends
  /// training. Null: nobody.
  std::function<void(const std::vector<size_t>& samples, const std::vector<std::string>& why)>
      on_read = nullptr;
};

/// Throws Error(usage) that names the field where a number is not finite or out of its range.
void check_config(const TrainConfig& config, const std::vector<TrainPhase>& phases);

struct TrainJob {
  const Dataset& dataset;          ///< split
  std::vector<TrainPhase> phases;  ///< what trains never shrinks
  FeatureCache* cache = nullptr;
  CacheDtype cache_dtype = CacheDtype::fp16;
  std::filesystem::path run;
  ModelMetadata metadata;  ///< network, classes, preprocessing, provenance
  TensorMap backbone;      ///< weights of the backbone, frozen and unfrozen
};

struct TrainResult {
  std::vector<EpochRecord> history;
  int best_epoch = 0;
  bool stopped_early = false;
  std::vector<size_t> excluded;  ///< samples that could not be decoded, or not in all epochs
  std::vector<std::string> errors;
};

/// Trains the suffix, writes history.csv, checkpoints/best.safetensors and last.safetensors as it
/// goes, and model.safetensors (the best epoch's weights) at the end. After each epoch the whole
/// state of training goes to checkpoints/state.safetensors; a run that is resumed from there ends
/// with the same weights, bit for bit on one machine with the same thread count. After a signal
/// the last weights are saved and Error(interrupted) thrown.
TrainResult train(const TrainJob& job, const TrainConfig& config);

/// The learning-rate range test (Smith, "Cyclical learning rates", 2017) on the last phase: steps
/// at rates that rise from 1e-7 to 10 by equal factors, until the loss is four times its least or
/// all steps are done. Losses are smoothed. Writes nothing.
std::vector<RatePoint> find_learning_rate(const TrainJob& job, const TrainConfig& config);

/// Sets the thread count of LibTorch, OpenMP and BLAS alike.
void set_training_threads(int threads);
/// "LibTorch 1.13.1, BLAS: OpenBLAS 0.3.21 (2 threads)" for --verbose.
std::string training_backend();

}  // namespace graft
