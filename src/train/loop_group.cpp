// The training loop's steps where several processes make them together.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/fail.h"
#include "train/loop.h"
#include "train/loss.h"
#include "train/tally.h"

namespace graft {

Batches::Share TrainLoop::share() const {
  if (group_ == nullptr) return {};
  return {group_->rank(), group_->size()};
}

void TrainLoop::step_together(const Batches::Batch& batch, double rate, Tally& tally) {
  BatchPart part{group_, batch.first, static_cast<int64_t>(batch.whole_labels.size()),
                 batch.labels.size(0) == 0};
  torch::Tensor inputs = batch.inputs;
  torch::Tensor labels = batch.labels.to(device_, /*non_blocking=*/true);
  if (part.empty) {
    std::vector<int64_t> shape = inputs.sizes().vec();
    shape[0] = 1;
    inputs = torch::zeros(shape);
    labels = torch::zeros({1}, labels.options());
    part.first = std::min(part.first, part.count - 1);
  }
  postponed_.clear();
  shards_->begin_step(/*adds=*/!part.empty, &postponed_);
  const torch::Tensor logits = suffix_.forward(inputs.to(device_, /*non_blocking=*/true),
                                               /*training=*/true, &postponed_, part);
  const torch::Tensor mine =
      training_losses(logits, labels, options_.label_smoothing, class_weights_).sum() /
      static_cast<double>(part.count);
  std::array<double, 3> figures{};
  if (!part.empty)
    figures = {mine.item<double>(),
               static_cast<double>(logits.argmax(1).eq(labels).sum().item<int64_t>()), 0};
  figures[2] = stop_requested() ? 1 : 0;
  group_->sum(figures);
  tally.loss += figures[0] * static_cast<double>(part.count);
  tally.correct += std::llround(figures[1]);
  tally.seen += part.count;
  tally.stopped = figures[2] > 0;
  if (!std::isfinite(tally.loss)) return;
  mine.backward();
  shards_->finish_gradients();
  if (options_.clip_gradients > 0) {
    std::array<double, 1> squares{optimizer_.squared_norm()};
    group_->sum(squares);
    if (const double norm = std::sqrt(squares[0]); norm > options_.clip_gradients)
      optimizer_.scale_gradients(options_.clip_gradients / norm);
  }
  optimizer_.step(rate);
  shards_->share_parameters();
  if (!average_.empty()) {
    // See step().
    const auto t = static_cast<double>(optimizer_.steps());
    suffix_.average_into(average_, std::min(options_.ema, (1 + t) / (10 + t)));
  }
}

void TrainLoop::add_up(Tally& tally, std::vector<ValidationMistake>& mistakes) const {
  std::array<double, 4> figures{tally.loss, static_cast<double>(tally.correct),
                                static_cast<double>(tally.seen), tally.stopped ? 1.0 : 0.0};
  group_->sum(figures);
  tally.loss = figures[0];
  tally.correct = std::llround(figures[1]);
  tally.seen = std::llround(figures[2]);
  tally.stopped = figures[3] > 0;
  // Each process's worst, of which the worst of all are some: a row of numbers each.
  keep_worst(mistakes);
  torch::Tensor rows =
      torch::full({static_cast<int64_t>(kMostEpochMistakes), 4}, -1.0, torch::kDouble);
  auto at = rows.accessor<double, 2>();
  for (size_t i = 0; i < mistakes.size(); ++i) {
    const ValidationMistake& m = mistakes[i];
    const auto row = static_cast<int64_t>(i);
    at[row][0] = static_cast<double>(m.sample);
    at[row][1] = static_cast<double>(m.predicted);
    at[row][2] = m.probability;
    at[row][3] = m.loss;
  }
  mistakes.clear();
  for (const torch::Tensor& part : group_->gather(rows)) {
    const auto row = part.accessor<double, 2>();
    for (int64_t i = 0; i < part.size(0) && row[i][0] >= 0; ++i)
      mistakes.push_back(
          {static_cast<size_t>(row[i][0]), static_cast<size_t>(row[i][1]), row[i][2], row[i][3]});
  }
}

Moments TrainLoop::moments() const {
  if (!shards_) return optimizer_.moments();
  const Moments mine = optimizer_.moments();
  Moments whole{shards_->gather(mine.first), {}};
  if (!mine.second.empty() || options_.optimizer != OptimizerKind::sgd)
    whole.second = shards_->gather(mine.second);
  return whole;
}

Moments TrainLoop::empty_moments() const {
  if (!shards_) return optimizer_.moments();
  Moments whole;
  if (!group_->is_first()) return whole;
  for (const torch::Tensor& p : suffix_.parameters()) {
    whole.first.push_back(torch::zeros_like(p).detach());
    if (options_.optimizer != OptimizerKind::sgd)
      whole.second.push_back(torch::zeros_like(p).detach());
  }
  return whole;
}

void TrainLoop::set_moments(const Moments& whole) {
  if (!shards_) return;  // filled in by way of empty_moments()
  const Moments mine = optimizer_.moments();
  shards_->scatter(whole.first, mine.first);
  if (options_.optimizer != OptimizerKind::sgd) shards_->scatter(whole.second, mine.second);
}

}  // namespace graft
