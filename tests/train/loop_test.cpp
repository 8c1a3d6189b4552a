// The training loop alone, on samples that come from nowhere.
#include "train/loop.h"

#include <cmath>
#include <set>
#include <stop_token>

#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

/// Two clouds of points, one for each class; row r has label r modulo 2.
class Clouds : public SampleSource {
 public:
  explicit Clouds(size_t rows, float distance = 2) : distance_(distance) {
    for (size_t i = 0; i < rows; ++i) usable_.push_back(i);
  }
  std::vector<size_t> fill(std::span<const int64_t> rows, int epoch, float* out) override {
    std::vector<size_t> lost;
    for (size_t k = 0; k < rows.size(); ++k) {
      if (rows[k] == lost_row && epoch == 2) {
        lost.push_back(k);
        continue;
      }
      Random random(static_cast<uint64_t>(rows[k]), 5);
      const float centre = rows[k] % 2 == 0 ? -distance_ : distance_;
      for (int i = 0; i < 4; ++i) *out++ = centre + static_cast<float>(random.normal());
    }
    return lost;
  }
  int64_t lost_row = -1;

 private:
  float distance_;
};

std::unique_ptr<Batches> batches(size_t rows, int64_t lost_row = -1, float distance = 2) {
  auto source = std::make_unique<Clouds>(rows, distance);
  source->lost_row = lost_row;
  std::vector<int64_t> labels;
  std::vector<size_t> samples;
  for (size_t i = 0; i < rows; ++i) {
    labels.push_back(static_cast<int64_t>(i % 2));
    samples.push_back(i);
  }
  return std::make_unique<Batches>(std::move(source), std::move(labels), std::move(samples),
                                   std::vector<int64_t>{4});
}

class Loop : public ::testing::Test {
 protected:
  Loop() {
    // A flat input of four numbers stands for a backbone that ends in one.
    network_ = {"test", 2, 2, {}};
    append(network_, {.kind = LayerKind::input, .name = "input"});
    append(network_, {.kind = LayerKind::conv, .name = "block1_conv1", .outputs = 4});
    append(network_, {.kind = LayerKind::gap, .name = "block1_gap"});
    network_ = with_head(std::move(network_), "dense:6 dropout:0.2", 2);
    recipe_.optimization.batch_size = 8;
    recipe_.optimization.learning_rate = 0.02;
    recipe_.optimization.schedule = Schedule::constant;
    recipe_.seed = 3;
    recipe_ = recipe_.resolved();
  }

  TrainLoop make(std::unique_ptr<Batches> training, LoopHooks hooks = {},
                 std::unique_ptr<Batches> validation = batches(20)) {
    const TensorMap tensors = random_tensors(network_, 0, network_.layers.size(), 1);
    return {recipe_,
            phase_,
            2,
            Suffix(network_, 3, tensors, torch::kCPU),
            std::move(training),
            std::move(validation),
            torch::kCPU,
            std::move(hooks)};
  }

  Network network_;
  Recipe recipe_;
  TrainPhase phase_{.epochs = 6, .prefix_end = 3, .learning_rate = 0.02};
};

TEST_F(Loop, Learns) {
  size_t steps = 0;
  LoopHooks hooks;
  hooks.step = [&](const EpochProgress& now) {
    ++steps;
    EXPECT_EQ(now.images, 41U);
    EXPECT_EQ(now.epochs, 6);
  };
  TrainLoop loop = make(batches(41), hooks);
  EpochEnd first;
  EpochEnd last;
  for (int epoch = 1; epoch <= 6; ++epoch) {
    last = loop.run_epoch(epoch, 6);
    if (epoch == 1) first = last;
    EXPECT_FALSE(last.stopped);
  }
  EXPECT_EQ(steps, 36U);
  EXPECT_LT(last.record.loss, first.record.loss);
  EXPECT_GT(last.record.val_accuracy, 0.9);
  EXPECT_EQ(last.record.epoch, 6);
  EXPECT_EQ(last.record.learning_rate, 0.02);
}

TEST_F(Loop, TellsTheWorstMistakesOfItsValidation) {
  // Rows that look like nothing in particular, of which one is lost.
  const TensorMap tensors = random_tensors(network_, 0, network_.layers.size(), 1);
  TrainLoop loop(recipe_, phase_, 2, Suffix(network_, 3, tensors, torch::kCPU), batches(16),
                 batches(61, 9, 0), torch::kCPU, {});
  loop.run_epoch(1, 2);
  const EpochEnd end = loop.run_epoch(2, 2);
  ASSERT_EQ(end.worst.size(), kMostEpochMistakes);
  std::set<size_t> seen;
  for (size_t i = 0; i < end.worst.size(); ++i) {
    const ValidationMistake& m = end.worst[i];
    EXPECT_NE(m.predicted, m.sample % 2) << "the label of sample " << m.sample;
    EXPECT_NE(m.sample, 9U) << "was lost";
    EXPECT_GE(m.probability, 0.5);
    EXPECT_NEAR(1 - m.probability, std::exp(-m.loss), 1e-5) << "of two classes";
    if (i > 0) {
      EXPECT_LE(m.loss, end.worst[i - 1].loss);
    }
    EXPECT_TRUE(seen.insert(m.sample).second);
  }
}

TEST_F(Loop, AnEpochDependsOnItsNumberAndSeedAlone) {
  const auto losses = [&] {
    TrainLoop loop = make(batches(30));
    return std::pair(loop.run_epoch(1, 2).record.loss, loop.run_epoch(2, 2).record.val_loss);
  };
  EXPECT_EQ(losses(), losses());
  const auto before = losses();
  recipe_.seed = 4;
  EXPECT_NE(losses(), before);
}

TEST_F(Loop, StopsWithinAnEpoch) {
  std::stop_source stop;
  size_t steps = 0;
  LoopHooks hooks;
  hooks.step = [&](const EpochProgress&) {
    if (++steps == 2) stop.request_stop();
  };
  hooks.stop = stop.get_token();
  TrainLoop loop = make(batches(40), hooks);
  const EpochEnd end = loop.run_epoch(1, 1);
  EXPECT_TRUE(end.stopped);
  EXPECT_EQ(steps, 2U);
  EXPECT_GT(end.record.loss, 0);
}

TEST_F(Loop, TellsOfRowsThatAreLost) {
  std::vector<int64_t> lost;
  LoopHooks hooks;
  hooks.lost = [&](const Batches::Batch& batch, const Batches&, int epoch) {
    EXPECT_EQ(epoch, 2);
    lost.insert(lost.end(), batch.lost.begin(), batch.lost.end());
  };
  TrainLoop loop = make(batches(40, 7), hooks);
  loop.run_epoch(1, 2);
  EXPECT_TRUE(lost.empty());
  loop.run_epoch(2, 2);
  EXPECT_EQ(lost, std::vector<int64_t>{7});
}

TEST_F(Loop, ALossThatIsNotFiniteIsAnError) {
  LoopHooks hooks;
  hooks.so_far = [] { return std::string("; so far nothing"); };
  TrainLoop loop = make(batches(40, -1, 1e38F), hooks);
  EXPECT_ERROR(loop.run_epoch(1, 1), ErrorKind::input, "; so far nothing");
}

TEST_F(Loop, AValidationThatIsNotFiniteIsAnError) {
  TrainLoop loop = make(batches(40), {}, batches(20, -1, 3e38F));
  EXPECT_ERROR(loop.run_epoch(1, 1), ErrorKind::input, "the validation ");
}

TEST_F(Loop, StatisticsThatAreNotFiniteAreAnError) {
  // Loss and logits stay finite: what is divided by infinity is zero.
  network_.layers.resize(3);
  network_ = with_head(std::move(network_), "batchnorm dense:6", 2);
  TrainLoop loop = make(batches(40, -1, 1e30F));
  EXPECT_ERROR(loop.run_epoch(1, 1), ErrorKind::input, "batchnorm1.running_var became infinite");
}

TEST_F(Loop, RangeTestRises) {
  TrainLoop loop = make(batches(40));
  size_t told = 0;
  const std::vector<RatePoint> points = loop.find_rate([&](const RatePoint&, size_t) { ++told; });
  ASSERT_GT(points.size(), 20U);
  EXPECT_EQ(told, points.size());
  EXPECT_NEAR(points[0].rate, 1e-7, 1e-12);
  for (size_t i = 1; i < points.size(); ++i) EXPECT_GT(points[i].rate, points[i - 1].rate);
}

}  // namespace
}  // namespace graft
