#include "features/linear_head.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <numeric>

#include "base/fail.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/threads.h"

namespace graft {
namespace {

// Classes computed together, so that compilers find vectors in loops over them; rows that share a
// pass over the weights.
constexpr size_t kLanes = 8;
constexpr size_t kRowsAtOnce = 4;
// Rows are summed in pieces, whose number depends on shapes alone: results do not depend on
// threads.
constexpr size_t kMostPieces = 64;
constexpr size_t kLeastPiece = 256;
constexpr size_t kMostPartialFloats = size_t{64} << 20U;  // of all pieces' gradients: 256 MB
// Pairs of steps and changes of the gradient that L-BFGS keeps; 3 to 20 are usual.
constexpr size_t kHistory = 8;
constexpr double kEnough = 1e-5;

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

/// Mean cross-entropy with penalty, and its gradient. Parameters: [input][class], then the biases.
class Loss {
 public:
  Loss(const FeatureRows& features, std::span<const int> labels, size_t classes,
       std::span<const size_t> rows, double penalty, ThreadPool& pool)
      : features_(features),
        labels_(labels),
        rows_(rows),
        classes_(classes),
        padded_((classes + kLanes - 1) / kLanes * kLanes),
        penalty_(penalty),
        pool_(pool),
        weights_((features.columns + 1) * padded_) {
    const size_t pieces = std::clamp<size_t>(kMostPartialFloats / weights_.size(), 1, kMostPieces);
    // Whole groups of rows, but for the last piece.
    piece_ = std::max(kLeastPiece, (rows.size() + pieces - 1) / pieces);
    piece_ = (piece_ + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce;
    partial_.resize((rows.size() + piece_ - 1) / piece_);
  }

  [[nodiscard]] size_t parameters() const { return (features_.columns + 1) * classes_; }

  double operator()(const std::vector<double>& at, std::vector<double>& gradient) {
    for (size_t j = 0; j <= features_.columns; ++j)
      for (size_t c = 0; c < classes_; ++c)
        weights_[j * padded_ + c] = static_cast<float>(at[j * classes_ + c]);
    pool_.parallel_for(partial_.size(), [&](size_t k) { sum_piece(k); });
    const double scale = 1.0 / static_cast<double>(rows_.size());
    double loss = 0;
    gradient.assign(parameters(), 0);
    for (const Partial& partial : partial_) {
      loss += partial.loss * scale;
      for (size_t j = 0; j <= features_.columns; ++j)
        for (size_t c = 0; c < classes_; ++c)
          gradient[j * classes_ + c] +=
              static_cast<double>(partial.gradient[j * padded_ + c]) * scale;
    }
    for (size_t k = 0; k < features_.columns * classes_; ++k) {
      loss += penalty_ / 2 * at[k] * at[k];
      gradient[k] += penalty_ * at[k];
    }
    return loss;
  }

 private:
  struct Partial {
    double loss = 0;
    std::vector<float> gradient{};
  };

  void sum_piece(size_t k) {
    Partial& out = partial_[k];
    out.loss = 0;
    out.gradient.assign(weights_.size(), 0.0F);
    const size_t end = std::min((k + 1) * piece_, rows_.size());
    std::vector<float> logits(kRowsAtOnce * padded_);
    for (size_t first = k * piece_; first < end; first += kRowsAtOnce) {
      const size_t count = std::min(kRowsAtOnce, end - first);
      const float* rows[kRowsAtOnce];
      // What is missing of the last group repeats a row, whose share is taken out below.
      for (size_t r = 0; r < kRowsAtOnce; ++r)
        rows[r] = features_.row(rows_[first + std::min(r, count - 1)]);
      forward(rows, logits);
      for (size_t r = 0; r < kRowsAtOnce; ++r) {
        float* z = &logits[r * padded_];
        if (r < count)
          out.loss += to_residual(z, static_cast<size_t>(labels_[rows_[first + r]]));
        else
          std::fill(z, z + padded_, 0.0F);
      }
      backward(rows, logits, out.gradient);
    }
  }

  void forward(const float* const* rows, std::vector<float>& logits) const {
    const size_t inputs = features_.columns;
    for (size_t tile = 0; tile < padded_; tile += kLanes) {
      float sums[kRowsAtOnce][kLanes];
      for (auto& sum : sums) std::copy_n(&weights_[inputs * padded_ + tile], kLanes, sum);
      for (size_t j = 0; j < inputs; ++j) {
        const float* w = &weights_[j * padded_ + tile];
        for (size_t r = 0; r < kRowsAtOnce; ++r)
          for (size_t c = 0; c < kLanes; ++c) sums[r][c] += rows[r][j] * w[c];
      }
      for (size_t r = 0; r < kRowsAtOnce; ++r)
        std::copy_n(sums[r], kLanes, &logits[r * padded_ + tile]);
    }
  }

  /// Logits become probabilities without the label's one; returns the cross-entropy.
  [[nodiscard]] double to_residual(float* z, size_t label) const {
    const float most = *std::max_element(z, z + classes_);
    const float of_label = z[label] - most;
    double sum = 0;
    for (size_t c = 0; c < classes_; ++c) {
      z[c] = std::exp(z[c] - most);
      sum += static_cast<double>(z[c]);
    }
    const auto scale = static_cast<float>(1 / sum);
    for (size_t c = 0; c < classes_; ++c) z[c] *= scale;
    std::fill(z + classes_, z + padded_, 0.0F);
    z[label] -= 1;
    return std::log(sum) - static_cast<double>(of_label);
  }

  void backward(const float* const* rows, const std::vector<float>& residuals,
                std::vector<float>& gradient) const {
    const size_t inputs = features_.columns;
    for (size_t tile = 0; tile < padded_; tile += kLanes) {
      float factors[kRowsAtOnce][kLanes];
      for (size_t r = 0; r < kRowsAtOnce; ++r)
        std::copy_n(&residuals[r * padded_ + tile], kLanes, factors[r]);
      for (size_t j = 0; j < inputs; ++j) {
        float* g = &gradient[j * padded_ + tile];
        for (size_t c = 0; c < kLanes; ++c) {
          float sum = g[c];
          for (size_t r = 0; r < kRowsAtOnce; ++r) sum += rows[r][j] * factors[r][c];
          g[c] = sum;
        }
      }
      float* bias = &gradient[inputs * padded_ + tile];
      for (size_t r = 0; r < kRowsAtOnce; ++r)
        for (size_t c = 0; c < kLanes; ++c) bias[c] += factors[r][c];
    }
  }

  const FeatureRows& features_;
  std::span<const int> labels_;
  std::span<const size_t> rows_;
  size_t classes_;
  size_t padded_;  // rounded up to whole tiles
  double penalty_;
  ThreadPool& pool_;
  std::vector<float> weights_;
  size_t piece_ = 0;
  std::vector<Partial> partial_;
};

/// The latest steps, from which L-BFGS takes the shape of the loss.
class History {
 public:
  void add(std::vector<double> step, std::vector<double> change) {
    const double curvature = dot(step, change);
    if (curvature <= 1e-12) return;
    pairs_.push_back({std::move(step), std::move(change), curvature});
    if (pairs_.size() > kHistory) pairs_.pop_front();
  }
  [[nodiscard]] bool empty() const { return pairs_.empty(); }

  /// The inverse of the curvature times the gradient: where to go, uphill.
  [[nodiscard]] std::vector<double> direction(std::vector<double> q) const {
    std::vector<double> factors(pairs_.size());
    for (size_t k = pairs_.size(); k-- > 0;) {
      factors[k] = dot(pairs_[k].step, q) / pairs_[k].curvature;
      for (size_t i = 0; i < q.size(); ++i) q[i] -= factors[k] * pairs_[k].change[i];
    }
    if (!pairs_.empty()) {
      const Pair& last = pairs_.back();
      const double scale = last.curvature / dot(last.change, last.change);
      for (double& value : q) value *= scale;
    }
    for (size_t k = 0; k < pairs_.size(); ++k) {
      const double back = dot(pairs_[k].change, q) / pairs_[k].curvature;
      for (size_t i = 0; i < q.size(); ++i) q[i] += (factors[k] - back) * pairs_[k].step[i];
    }
    return q;
  }

 private:
  struct Pair {
    std::vector<double> step, change;
    double curvature;
  };
  std::deque<Pair> pairs_;
};

/// Least loss from zero on. `told` is called after each step.
std::vector<double> minimize(Loss& loss, int most_steps, const std::function<void(int)>& told) {
  std::vector<double> at(loss.parameters());
  std::vector<double> gradient;
  double value = loss(at, gradient);
  History history;
  for (int step = 0; step < most_steps; ++step) {
    const std::vector<double> uphill = history.direction(gradient);
    const double slope = dot(gradient, uphill);
    if (!(slope > 1e-12)) break;
    // The first step knows no curvature: as long as the gradient is small.
    double length = history.empty() ? std::min(1.0, 1 / std::sqrt(slope)) : 1;
    std::vector<double> next(at.size());
    std::vector<double> next_gradient;
    double next_value = 0;
    bool found = false;
    // Backtracking until the loss falls as much as the slope promises, by a part (Armijo).
    for (int halved = 0; halved < 30 && !found; ++halved) {
      for (size_t i = 0; i < at.size(); ++i) next[i] = at[i] - length * uphill[i];
      next_value = loss(next, next_gradient);
      found = next_value <= value - 1e-4 * length * slope;
      length /= 2;
    }
    if (!found) break;  // nothing is left but rounding
    const bool enough = value - next_value < kEnough * value;
    std::vector<double> moved(at.size()), change(at.size());
    for (size_t i = 0; i < at.size(); ++i) {
      moved[i] = next[i] - at[i];
      change[i] = next_gradient[i] - gradient[i];
    }
    history.add(std::move(moved), std::move(change));
    at = std::move(next);
    gradient = std::move(next_gradient);
    value = next_value;
    told(step + 1);
    if (enough) break;
  }
  return at;
}

LinearHead fit(const FeatureRows& features, std::span<const int> labels, size_t classes,
               std::span<const size_t> rows, const LinearHeadOptions& options, ThreadPool& pool,
               const std::function<void(int)>& told) {
  Loss loss(features, labels, classes, rows, options.penalty, pool);
  const std::vector<double> at = minimize(loss, options.most_steps, told);
  LinearHead head{features.columns, classes, {}, {}};
  const auto bias = at.begin() + static_cast<std::ptrdiff_t>(features.columns * classes);
  head.weights.assign(at.begin(), bias);
  head.bias.assign(bias, at.end());
  return head;
}

/// The fold of each row.
std::vector<int> divide(std::span<const int> labels, std::span<const size_t> groups, size_t classes,
                        const CrossValidation& options) {
  std::map<size_t, std::vector<size_t>> members;
  std::vector<std::vector<size_t>> of_class(classes);  // groups, by the label of their first row
  for (size_t i = 0; i < labels.size(); ++i) {
    std::vector<size_t>& group = members[groups[i]];
    if (group.empty()) of_class[static_cast<size_t>(labels[i])].push_back(groups[i]);
    group.push_back(i);
  }
  std::vector<int> folds(labels.size());
  // Dealt out over the classes, so that those of few images do not all begin with the first fold.
  int next = 0;
  for (size_t c = 0; c < classes; ++c) {
    Random(options.seed, c).shuffle(of_class[c]);
    for (const size_t group : of_class[c]) {
      for (const size_t row : members[group]) folds[row] = next;
      next = (next + 1) % options.folds;
    }
  }
  return folds;
}

}  // namespace

void standardize(FeatureRows& features) {
  const size_t rows = features.rows();
  if (rows == 0) return;
  const size_t columns = features.columns;
  std::vector<double> mean(columns), square(columns);
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j)
      mean[j] += static_cast<double>(features.values[i * columns + j]);
  for (double& value : mean) value /= static_cast<double>(rows);
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j) {
      const double off = static_cast<double>(features.values[i * columns + j]) - mean[j];
      square[j] += off * off;
    }
  for (size_t j = 0; j < columns; ++j) {
    const double deviation = std::sqrt(square[j] / static_cast<double>(rows));
    square[j] = deviation > 1e-12 ? 1 / deviation : 0;
  }
  for (size_t i = 0; i < rows; ++i)
    for (size_t j = 0; j < columns; ++j) {
      float& value = features.values[i * columns + j];
      value = static_cast<float>((static_cast<double>(value) - mean[j]) * square[j]);
    }
}

void LinearHead::probabilities(const float* row, std::span<float> out) const {
  std::vector<double> z(bias);
  for (size_t j = 0; j < inputs; ++j)
    for (size_t c = 0; c < classes; ++c)
      z[c] += static_cast<double>(row[j]) * weights[j * classes + c];
  const double most = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (double& value : z) sum += value = std::exp(value - most);
  for (size_t c = 0; c < classes; ++c) out[c] = static_cast<float>(z[c] / sum);
}

LinearHead fit_linear_head(const FeatureRows& features, std::span<const int> labels, size_t classes,
                           std::span<const size_t> rows, const LinearHeadOptions& options,
                           const RunContext& context) {
  ThreadPool pool(context.thread_count());
  return fit(features, labels, classes, rows, options, pool, [&](int) { context.check_stop(); });
}

std::vector<float> cross_validated(const FeatureRows& features, std::span<const int> labels,
                                   std::span<const size_t> groups, size_t classes,
                                   const CrossValidation& options, const RunContext& context) {
  const std::vector<int> folds = divide(labels, groups, classes, options);
  ThreadPool pool(context.thread_count());
  std::vector<float> out(labels.size() * classes);
  Progress progress(context, "judging labels", static_cast<size_t>(options.folds), "folds");
  for (int fold = 0; fold < options.folds; ++fold) {
    std::vector<size_t> rows;
    for (size_t i = 0; i < labels.size(); ++i)
      if (folds[i] != fold) rows.push_back(i);
    if (rows.size() == labels.size()) continue;  // nobody is in it
    if (rows.empty()) fail(ErrorKind::input, "cross-validation: all images are identical files");
    const LinearHead head = fit(features, labels, classes, rows, options.head, pool, [&](int step) {
      context.check_stop();
      progress.update(static_cast<size_t>(fold), fmt::format("step {}", step));
    });
    pool.parallel_for(labels.size(), [&](size_t i) {
      if (folds[i] == fold)
        head.probabilities(features.row(i), std::span(out).subspan(i * classes, classes));
    });
    progress.update(static_cast<size_t>(fold) + 1);
  }
  return out;
}

}  // namespace graft
