#include "report/kept_epoch.h"

#include "support.h"

namespace graft {
namespace {

std::vector<EpochRecord> history(const std::vector<std::pair<double, double>>& validation) {
  std::vector<EpochRecord> out;
  for (const auto& [accuracy, loss] : validation) {
    EpochRecord record;
    record.epoch = static_cast<int>(out.size()) + 1;
    record.val_accuracy = accuracy;
    record.val_loss = loss;
    out.push_back(record);
  }
  return out;
}

TEST(WhyKept, SaysWhichEpochWasHigher) {
  EXPECT_EQ(why_kept(history({{0.8, 1}, {0.92857, 1}, {0.85, 1}}), 3),
            "the end of the learning-rate cycle; the highest validation accuracy was 0.9286 in "
            "epoch 2, no clear difference");
  EXPECT_EQ(why_kept(history({{0.9, 1}, {0.9, 2}}), 2),
            "the end of the learning-rate cycle; epoch 1 had the same validation accuracy at a "
            "lower loss, no clear difference");
}

TEST(WhyKept, SaysNothingOfTheHighest) {
  EXPECT_EQ(why_kept(history({{0.8, 1}, {0.9, 1}, {0.9, 1}}), 2), "");
  EXPECT_EQ(why_kept(history({{0.8, 1}, {0.9, 1}, {0.9, 1}}), 3), "") << "an equal";
  EXPECT_EQ(why_kept({}, 0), "");
  EXPECT_EQ(why_kept(history({{0.8, 1}}), 7), "") << "an epoch that is not there";
}

}  // namespace
}  // namespace graft
