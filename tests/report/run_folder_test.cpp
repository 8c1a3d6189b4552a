#include "run/run_folder.h"

#include <chrono>
#include <cmath>
#include <thread>

#include "base/file.h"
#include "report/chart.h"
#include "run/stage_clock.h"
#include "support.h"

namespace graft {
namespace {

constexpr const char* kHeader = "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n";

class RunFolderFiles : public ::testing::Test {
 protected:
  void history(const std::string& rows) {
    testing::write(folder_.path() / "history.csv", kHeader + rows);
  }
  void metrics(const std::string& text) { testing::write(folder_.path() / "metrics.json", text); }
  RunFolder read() { return read_run_folder(folder_.path()); }

  testing::TemporaryFolder folder_;
};

TEST_F(RunFolderFiles, ReadsWhatTrainingWrites) {
  history("1,0.5,0.75,inf,0.5,0.001,1.5\n2,0.25,1.0,nan,0.625,0.001,1.25\n");
  metrics(R"({"best_epoch":2,"validation":{"top1":0.5,"loss":null,"ece":0.1},"more":[1]})");
  const RunFolder run = read();
  ASSERT_EQ(run.history.size(), 2U);
  EXPECT_EQ(run.history[1].epoch, 2);
  EXPECT_TRUE(std::isinf(run.history[0].val_loss));
  EXPECT_EQ(run.best_epoch(), 2);
}

TEST_F(RunFolderFiles, TimesGoOnWhereAnotherProcessLeftOff) {
  const auto seconds = [&](TrainStage stage) {
    return read_times(folder_.path()).value().seconds.at(static_cast<size_t>(stage));
  };
  const auto work = [] { std::this_thread::sleep_for(std::chrono::milliseconds(30)); };
  { StageClock unused(folder_.path(), false, {}); }
  EXPECT_FALSE(read_times(folder_.path())) << "a run that never began has no times";
  {
    StageClock clock(folder_.path(), false, {});
    work();
    clock.stage(TrainStage::features);
    work();
    clock.stage(TrainStage::training);
    work();  // an exception ends it here
  }
  const std::string started = read_times(folder_.path())->started;
  const double training = seconds(TrainStage::training);
  EXPECT_GE(seconds(TrainStage::features), 0.06);
  EXPECT_GE(training, 0.03);
  EXPECT_EQ(seconds(TrainStage::report), 0);
  {
    StageClock clock(folder_.path(), true, {});
    clock.stage(TrainStage::training);
    work();
  }
  EXPECT_GE(seconds(TrainStage::training), training + 0.03);
  EXPECT_EQ(read_times(folder_.path())->started, started);
  EXPECT_TRUE(read_times(folder_.path())->whole);
  EXPECT_GE(read_times(folder_.path())->total(), 0.12);
  EXPECT_TRUE(read_text_file(folder_.path() / "times.json").starts_with(kTimesStart));
}

TEST_F(RunFolderFiles, TimesOfEarlierVersionsAndDamagedOnes) {
  history("1,0.5,0.75,1,0.5,0.001,1.5\n2,0.25,1.0,1,0.625,0.001,1.25\n");
  StageClock(folder_.path(), true, {}).stage(TrainStage::features);
  EXPECT_FALSE(read_times(folder_.path())->whole);
  EXPECT_GE(read_times(folder_.path())->total(), 2.75);
  for (const char* text : {"", "{}", R"({"started":"x","whole":1,"seconds":{}})",
                           R"({"started":"x","whole":true,"seconds":{"features":-1}})"}) {
    testing::write(folder_.path() / "times.json", text);
    EXPECT_ERROR(read(), ErrorKind::input, "times.json");
    StageClock(folder_.path(), true, {}).stage(TrainStage::features);  // no reason to fail
    EXPECT_FALSE(read_times(folder_.path())->whole);
  }
}

TEST_F(RunFolderFiles, HistoryThatIsNone) {
  for (const char* epoch : {"nan", "inf", "1e300", "-1", "0", "1.5", "4294967297", "x", "", "1x"}) {
    history(std::string(epoch) + ",0,0,0,0,0,0\n");
    EXPECT_ERROR(read(), ErrorKind::input, "history.csv:2: '");
  }
  for (const char* rows : {"1,0,0,0,0,0\n", "1,0,0,0,0,0,0,0\n", "1,0,0,0,0,0,0.5s\n", "1\n"}) {
    history(rows);
    EXPECT_ERROR(read(), ErrorKind::input, "history.csv:2: ");
  }
  history(std::string("1,0,0,0\0,0,0,0\n", 15));
  EXPECT_ERROR(read(), ErrorKind::input, "NUL byte");
}

TEST_F(RunFolderFiles, MetricsThatAreNone) {
  for (const auto& [text, field] :
       {std::pair<std::string, const char*>{"", "not JSON"},
        {"[]", "expected an object"},
        {R"({"best_epoch":"2"})", "field 'best_epoch': expected a whole number"},
        {R"({"best_epoch":2.5})", "field 'best_epoch'"},
        {R"({"best_epoch":1e300})", "field 'best_epoch'"},
        {R"({"best_epoch":null})", "field 'best_epoch'"},
        {R"({"validation":3})", "field 'validation': expected an object"},
        {R"({"validation":{"top1":"0.5"}})", "field 'validation.top1': expected a number"},
        {R"({"test":{"loss":[]}})", "field 'test.loss'"},
        {R"({"test":{"ece":true}})", "field 'test.ece'"},
        {R"({"best_epoch":1,"best_epoch":2})", "stands twice"},
        {std::string(100'000, '['), "nested deeper"}}) {
    metrics(text);
    EXPECT_ERROR(read(), ErrorKind::input, "metrics.json: ");
    EXPECT_ERROR(read(), ErrorKind::input, field);
  }
}

/// Whatever the figures, the ticks of an axis are few.
TEST(Chart, ExtremeFigures) {
  for (const auto& [a, b] : {std::pair{1e300, 1e300},
                             {1e300, 1.0000000000000002e300},
                             {1e12, 1e12 + 1e-3},
                             {-1e308, 1e308},
                             {0.0, 0.0},
                             {0.0, 1e-300},
                             {5.0, 5.0000000001}}) {
    const std::string svg = chart_svg({"t", "x", "y", false, {{"s", {{1, a}, {2, b}}}}, {}});
    EXPECT_LT(svg.size(), 20000U);
  }
}

}  // namespace
}  // namespace graft
