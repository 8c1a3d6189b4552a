#include "report/run_forecast.h"

#include "support.h"

namespace graft {
namespace {

using namespace std::chrono_literals;

/// 100 images of 1e9 operations; 10 epochs of 2e9 in all; 50 images to evaluate.
PlannedWork small_head() {
  return {.phases = {{.images = 100, .flops_each = 1e9, .epochs = 10, .epoch_flops = 2e9}},
          .evaluated = 50,
          .evaluation_flops = 50e9};
}

ProgressUpdate images(std::string_view task, size_t done, size_t total, bool ended = false) {
  return {
      .task = task, .unit = "images", .done = done, .total = total, .extra = {}, .ended = ended};
}

TEST(RunForecast, TheStageOfFeaturesCountsAllViews) {
  const RunForecast::Clock::time_point start;
  RunForecast forecast(small_head());
  EXPECT_FALSE(forecast.seconds_left(0, {}, {})) << "nothing is known yet";
  forecast.stage(TrainStage::features, 0);
  EXPECT_FALSE(forecast.seconds_left(0, {}, {}));
  forecast.progress(images("features, train, view 1 of 2", 0, 40), start);
  forecast.progress(images("features, train, view 1 of 2", 40, 40, true), start + 40s);
  forecast.progress(images("features, train, view 2 of 2", 0, 40), start + 40s);
  forecast.progress(images("features, train, view 2 of 2", 10, 40), start + 50s);
  EXPECT_EQ(forecast.done(), 50);
  EXPECT_EQ(forecast.total(0), 100);
  EXPECT_NEAR(*forecast.stage_seconds_left(0), 50, 1e-6);
  // 1e9 a second: 50 s of features, 2 s an epoch, 50 s of evaluation.
  EXPECT_NEAR(*forecast.seconds_left(0, {}, {}), 50 + 20 + 50, 1e-6);
}

TEST(RunForecast, WhatLiesInTheCacheSaysNothingOfTheRate) {
  const RunForecast::Clock::time_point start;
  RunForecast forecast(small_head());
  forecast.stage(TrainStage::features, 0);
  forecast.progress(images("features, train from the cache", 0, 60), start);
  forecast.progress(images("features, train from the cache", 60, 60, true), start + 1s);
  EXPECT_EQ(forecast.done(), 60);
  EXPECT_FALSE(forecast.stage_seconds_left(0));
  forecast.progress(images("features, train", 0, 40), start + 1s);
  forecast.progress(images("features, train", 10, 40), start + 21s);
  EXPECT_NEAR(*forecast.stage_seconds_left(0), 60, 1e-6) << "two seconds each";
  forecast.progress(
      {.task = "judging labels", .unit = "folds", .done = 3, .total = 10, .extra = {}},
      start + 30s);
  EXPECT_EQ(forecast.done(), 70) << "folds are no images";
}

TEST(RunForecast, EpochsAreMeasuredOnceTheyAreThere) {
  const RunForecast::Clock::time_point start;
  RunForecast forecast(small_head());
  forecast.stage(TrainStage::features, 0);
  forecast.progress(images("features, train", 0, 100), start);
  forecast.progress(images("features, train", 100, 100, true), start + 100s);
  forecast.stage(TrainStage::training, 0);
  EXPECT_NEAR(*forecast.seconds_left(0, {}, {}), 20 + 50, 1e-6) << "by the rate of the features";
  EXPECT_NEAR(*forecast.seconds_left(4, 30, 5), 30 + 50, 1e-6) << "by that of the epochs";
  forecast.stage(TrainStage::evaluation, 10);
  EXPECT_NEAR(*forecast.seconds_left(10, {}, {}), 50, 1e-6);
  forecast.progress(images("evaluating, test", 0, 50), start + 200s);
  forecast.progress(images("evaluating, test", 25, 50), start + 210s);
  EXPECT_NEAR(*forecast.seconds_left(10, {}, {}), 10, 1e-6);
  forecast.stage(TrainStage::report, 10);
  EXPECT_EQ(*forecast.seconds_left(10, {}, {}), 0);
}

TEST(RunForecast, ASmallHeadSaysNothingOfConvolutions) {
  RunForecast forecast(small_head());
  forecast.stage(TrainStage::features, 0);  // all of it in the cache, at once
  forecast.stage(TrainStage::training, 0);
  EXPECT_FALSE(forecast.seconds_left(0, {}, {}));
  EXPECT_NEAR(*forecast.seconds_left(1, 9, 1), 9, 1e-6);
}

TEST(RunForecast, LaterPhasesAreCounted) {
  const RunForecast::Clock::time_point start;
  PlannedWork work = small_head();
  work.phases.push_back({.images = 100, .flops_each = 0, .epochs = 5, .epoch_flops = 10e9});
  RunForecast forecast(work);
  forecast.stage(TrainStage::features, 0);
  forecast.progress(images("features, train", 0, 100), start);
  forecast.progress(images("features, train", 50, 100), start + 50s);
  EXPECT_NEAR(*forecast.seconds_left(0, {}, {}), 50 + 20 + 50 + 50, 1e-6);
  forecast.stage(TrainStage::training, 0);
  EXPECT_NEAR(*forecast.seconds_left(5, 7, 1), 7 + 50 + 50, 1e-6);
  forecast.stage(TrainStage::features, 10);
  EXPECT_EQ(forecast.total(10), 100);
  EXPECT_NEAR(*forecast.seconds_left(12, {}, {}), 3 * 10 + 50, 1e-6) << "some are made";
}

}  // namespace
}  // namespace graft
