#include <cmath>

#include "graft/error.h"
#include "train/trainer.h"

namespace graft {

void check_config(const TrainConfig& config, const std::vector<TrainPhase>& phases) {
  const auto within = [](const char* name, double value, double least, double most) {
    // Written so that NaN is refused.
    if (!(value >= least && value <= most))
      fail(ErrorKind::usage, "{}: {} is not a number from {:g} to {:g}", name, value, least, most);
  };
  constexpr double kLarge = 1e9;
  constexpr double kBelowOne = 0.99999;
  within("batch size", config.batch_size, 1, kLarge);
  within("weight decay", config.weight_decay, 0, kLarge);
  within("momentum", config.momentum, 0, kBelowOne);
  within("warm-up epochs", config.warmup_epochs, 0, kLarge);
  within("label smoothing", config.label_smoothing, 0, kBelowOne);
  within("gradient norm", config.clip_gradients, 0, kLarge);
  within("learning-rate decay per block", config.lr_decay_per_block, 0, 1);
  within("decay of the average", config.average, 0, kBelowOne);
  for (const TrainPhase& phase : phases) {
    within("epochs", phase.epochs, 0, kLarge);
    within("learning rate", phase.learning_rate, 0, kLarge);
  }
}

}  // namespace graft
