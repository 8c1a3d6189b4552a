#include "train/loop.h"
#include "train/loss.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "base/fail.h"
#include "train/mix.h"
#include "train/tally.h"

namespace graft {
namespace {

// Seeds of an epoch's dropout lie further apart than a run has epochs, so that runs with
// neighbouring seeds share none. A prime.
constexpr uint64_t kSeedStride = 1'000'003;

/// What a batch's rows are of: those from `begin` on in the order of the batches, but for the lost.
std::vector<size_t> samples_of(const Batches::Batch& batch, const Batches& batches, size_t begin) {
  const size_t count = static_cast<size_t>(batch.labels.size(0)) + batch.lost.size();
  std::vector<size_t> out;
  for (size_t row = begin; row < begin + count; ++row)
    if (std::find(batch.lost.begin(), batch.lost.end(), static_cast<int64_t>(row)) ==
        batch.lost.end())
      out.push_back(batches.samples()[row]);
  return out;
}

void add_mistakes(const torch::Tensor& logits, const torch::Tensor& labels,
                  const std::vector<size_t>& samples, std::vector<ValidationMistake>& mistakes) {
  const torch::Tensor log = logits.to(torch::kCPU, torch::kFloat).log_softmax(1);
  const torch::Tensor best = log.argmax(1);
  const auto p = log.accessor<float, 2>();
  const auto predicted = best.accessor<int64_t, 1>();
  const auto label = labels.accessor<int64_t, 1>();
  for (int64_t i = 0; i < p.size(0); ++i)
    if (predicted[i] != label[i])
      mistakes.push_back({samples.at(static_cast<size_t>(i)), static_cast<size_t>(predicted[i]),
                          std::exp(double{p[i][predicted[i]]}), -double{p[i][label[i]]}});
}

}  // namespace

TrainLoop::TrainLoop(const Recipe& recipe, const TrainPhase& phase, int64_t classes, Suffix suffix,
                     std::unique_ptr<Batches> training, std::unique_ptr<Batches> validation,
                     torch::Device device, LoopHooks hooks, Group* group,
                     GradientCompression compression)
    : options_(recipe.optimization),
      seed_(recipe.seed),
      phase_(phase),
      augmentation_(parse_augmentation(recipe.views.augment)),
      device_(device),
      suffix_(std::move(suffix)),
      training_(std::move(training)),
      validation_(std::move(validation)),
      group_(group),
      shards_(group == nullptr ? nullptr
                               : std::make_unique<ParameterShards>(suffix_.parameters(), factors(),
                                                                   *group, compression)),
      optimizer_({options_.optimizer, options_.weight_decay, options_.momentum, options_.beta2},
                 shards_ ? shards_->own() : suffix_.parameters(),
                 shards_ ? shards_->own_factors() : factors()),
      hooks_(std::move(hooks)) {
  if (options_.ema > 0) average_ = suffix_.copies();
  weigh_classes(classes);
}

EpochEnd TrainLoop::run_epoch(int epoch, int epochs) {
  // Dropout of an epoch depends on nothing that came before it.
  suffix_.seed_dropout(seed_ * kSeedStride + static_cast<uint64_t>(epoch));
  const auto start = std::chrono::steady_clock::now();
  Tally tally;
  size_t seen = 0;
  double rate = 0;
  EpochEnd end;
  start_epoch(epoch);
  while (auto batch = training_->next()) {
    note_lost(*batch, *training_, epoch);
    if (skips(*batch)) continue;
    rate = phase_.learning_rate *
           schedule_factor(options_.schedule,
                           options_.warmup_epochs * static_cast<double>(steps_in_epoch()),
                           optimizer_.steps(), phase_.epochs * steps_in_epoch());
    group_ != nullptr ? step_together(*batch, rate, tally) : step(*batch, rate, tally);
    if (!std::isfinite(tally.loss))
      fail(ErrorKind::input, "the loss became {} in epoch {}; try a smaller `lr` than {:g}{}",
           tally.loss, epoch, phase_.learning_rate, so_far());
    seen +=
        group_ != nullptr ? batch->whole_labels.size() : static_cast<size_t>(batch->labels.size(0));
    if (hooks_.step)
      hooks_.step({epoch, epochs, seen, training_->size(), tally.mean_loss(), tally.accuracy()});
    // In a group all stop after one and the same step.
    if (group_ != nullptr ? tally.stopped : stop_requested()) {
      end.stopped = true;
      break;
    }
  }
  Tally val;
  if (!end.stopped) {
    val = validate(epoch, end.worst);
    end.stopped = val.stopped;
    if (val.stopped) tally = val;
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  end.record = {epoch, tally.mean_loss(), tally.accuracy(), val.mean_loss(), val.accuracy(),
                rate,  taken.count()};
  return end;
}

std::vector<RatePoint> TrainLoop::find_rate(
    const std::function<void(const RatePoint&, size_t)>& on_step) {
  // Smith, "Cyclical learning rates", 2017: rates that rise by equal factors, from one at which
  // nothing moves to one at which everything breaks, until the loss is well above its least.
  constexpr double kFirst = 1e-7;
  constexpr double kLast = 10;
  constexpr int kSteps = kRateSteps;
  constexpr double kSmoothing = 0.9;
  constexpr double kTooHigh = 4;
  std::vector<RatePoint> points;
  double average = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int epoch = 1; static_cast<int>(points.size()) < kSteps; ++epoch) {
    suffix_.seed_dropout(seed_ * kSeedStride + static_cast<uint64_t>(epoch));
    start_epoch(epoch);
    while (auto batch = training_->next()) {
      note_lost(*batch, *training_, epoch);
      if (skips(*batch)) continue;
      const auto number = static_cast<int>(points.size());
      const double rate = kFirst * std::pow(kLast / kFirst, number / (kSteps - 1.0));
      Tally tally;
      step(*batch, rate, tally);
      if (stop_requested()) throw Error(ErrorKind::interrupted, "interrupted");
      if (!std::isfinite(tally.loss)) return points;
      average = kSmoothing * average + (1 - kSmoothing) * tally.mean_loss();
      const double smooth = average / (1 - std::pow(kSmoothing, number + 1));
      points.push_back({rate, smooth});
      on_step(points.back(), points.size());
      least = std::min(least, smooth);
      if (static_cast<int>(points.size()) == kSteps || smooth > kTooHigh * least) return points;
    }
  }
  return points;
}

void TrainLoop::start_epoch(int epoch) {
  std::vector<int64_t> order(training_->size());
  std::iota(order.begin(), order.end(), 0);
  Random(seed_, static_cast<uint64_t>(epoch)).shuffle(order);
  mixing_.emplace(~seed_, static_cast<uint64_t>(epoch));
  training_->start(std::move(order), options_.batch_size, epoch, share());
}

void TrainLoop::note_lost(const Batches::Batch& batch, const Batches& batches, int epoch) const {
  if (!batch.lost.empty() && hooks_.lost) hooks_.lost(batch, batches, epoch);
}

/// Batch statistics of one sample do not exist.
bool TrainLoop::skips(const Batches::Batch& batch) const {
  const int64_t rows =
      group_ != nullptr ? static_cast<int64_t>(batch.whole_labels.size()) : batch.labels.size(0);
  if (rows == 0) return true;
  return rows == 1 && training_->size() > 1 && suffix_.has_batchnorm();
}

torch::Tensor TrainLoop::loss(const torch::Tensor& logits, const torch::Tensor& labels) const {
  return training_losses(logits, labels, options_.label_smoothing, class_weights_).mean();
}

void TrainLoop::step(const Batches::Batch& batch, double rate, Tally& tally) {
  torch::Tensor inputs = batch.inputs;
  Mix mix;
  if (augmentation_.mixup > 0)
    mix = mixup(inputs, augmentation_.mixup, *mixing_);
  else if (augmentation_.cutmix > 0)
    mix = cutmix(inputs, augmentation_.cutmix, *mixing_);
  const torch::Tensor labels = batch.labels.to(device_, /*non_blocking=*/true);
  optimizer_.zero_grad();
  postponed_.clear();
  // A common norm needs all gradients at once.
  PostponedGradients* postponed = options_.clip_gradients > 0 ? nullptr : &postponed_;
  const torch::Tensor logits =
      suffix_.forward(inputs.to(device_, /*non_blocking=*/true), /*training=*/true, postponed);
  torch::Tensor total = loss(logits, labels);
  if (mix.partner.defined())
    total = total * mix.share +
            loss(logits, batch.labels.index_select(0, mix.partner).to(device_)) * (1 - mix.share);
  tally.add(total, logits, labels);
  if (!std::isfinite(tally.loss)) return;
  total.backward();
  if (options_.clip_gradients > 0) optimizer_.clip_gradients(options_.clip_gradients);
  optimizer_.step(rate, postponed);
  if (!average_.empty()) {
    // Short averages first: the random start is forgotten (as TensorFlow's
    // ExponentialMovingAverage with num_updates).
    const auto t = static_cast<double>(optimizer_.steps());
    suffix_.average_into(average_, std::min(options_.ema, (1 + t) / (10 + t)));
  }
}

int64_t TrainLoop::steps_in_epoch() const {
  const auto count = static_cast<int64_t>(training_->size());
  const int64_t batches = (count + options_.batch_size - 1) / options_.batch_size;
  // See skips(): else a schedule would never come to its end.
  const bool skips_last = count > 1 && count % options_.batch_size == 1 && suffix_.has_batchnorm();
  return skips_last ? batches - 1 : batches;
}

/// Balanced: n / (classes · n of the class), so that classes weigh alike and the mean is 1.
void TrainLoop::weigh_classes(int64_t classes) {
  if (options_.class_weights != ClassWeights::balanced) return;
  const torch::Tensor counts =
      torch::bincount(torch::tensor(training_->labels(), torch::kLong), {}, classes)
          .to(torch::kFloat);
  class_weights_ = (static_cast<double>(training_->size()) /
                    (static_cast<double>(classes) * counts.clamp_min(1)))
                       .to(device_);
}

TrainLoop::Tally TrainLoop::validate(int epoch, std::vector<ValidationMistake>& mistakes) {
  const torch::NoGradGuard no_gradients;
  Tally tally;
  Batches& batches = *validation_;
  std::vector<int64_t> order(batches.size());
  std::iota(order.begin(), order.end(), 0);
  batches.start(std::move(order), options_.batch_size, epoch, share());
  const Averaged averaged(*this);
  size_t begin = 0;  // the batch's first row
  while (auto batch = batches.next()) {
    note_lost(*batch, batches, epoch);
    const std::vector<size_t> samples =
        samples_of(*batch, batches, begin + static_cast<size_t>(batch->first));
    begin += static_cast<size_t>(options_.batch_size);
    if (batch->labels.size(0) == 0) continue;
    const torch::Tensor labels = batch->labels.to(device_, /*non_blocking=*/true);
    const torch::Tensor logits =
        suffix_.forward(batch->inputs.to(device_, /*non_blocking=*/true), /*training=*/false);
    tally.add(torch::nn::functional::cross_entropy(logits, labels), logits, labels);
    add_mistakes(logits, batch->labels, samples, mistakes);
    // An infinite logit of a wrong class leaves the loss finite.
    if (!std::isfinite(tally.loss) || !logits.isfinite().all().item<bool>())
      fail(ErrorKind::input, "the validation {} after epoch {}; try a smaller `lr` than {:g}{}",
           std::isfinite(tally.loss) ? "logits became infinite"
                                     : fmt::format("loss became {}", tally.loss),
           epoch, phase_.learning_rate, so_far());
    if (stop_requested()) {
      tally.stopped = true;
      break;
    }
  }
  if (group_ != nullptr) add_up(tally, mistakes);
  // A model that could not be read again.
  if (const std::string name = suffix_.not_finite(); !name.empty())
    fail(ErrorKind::input,
         "{} became infinite in epoch {}: the features are too large for it; take other `weights`, "
         "or a smaller `lr` than {:g}{}",
         name, epoch, phase_.learning_rate, so_far());
  keep_worst(mistakes);
  return tally;
}

}  // namespace graft
