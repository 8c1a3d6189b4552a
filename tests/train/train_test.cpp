// Training from C++: the public functions, without a program around them.
#include "graft/train.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/file.h"
#include "demo/scenes.h"
#include "graft/image.h"
#include "support.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

class Watcher : public Reporter {
 public:
  void message(Severity, std::string_view text) override {
    const std::lock_guard lock(mutex_);
    messages += std::string(text) + "\n";
  }
  void progress(const ProgressUpdate& update) override {
    const std::lock_guard lock(mutex_);
    EXPECT_LE(update.done, update.total);
    ++updates;
  }
  std::string messages;
  int updates = 0;

 private:
  std::mutex mutex_;
};

/// Asks to stop after so many epochs.
class StopAfter : public TrainObserver {
 public:
  StopAfter(std::stop_source& stop, int epochs) : stop_(stop), epochs_(epochs) {}
  void epoch(const EpochRecord& record, bool) override {
    if (record.epoch == epochs_) stop_.request_stop();
  }

 private:
  std::stop_source& stop_;
  int epochs_;
};

/// Standard output and standard error of the process, until the end of the scope.
class Silence {
 public:
  explicit Silence(const fs::path& file) : out_(::dup(1)), err_(::dup(2)) {
    const int to = ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(to, 1);
    ::dup2(to, 2);
    ::close(to);
  }
  ~Silence() {
    ::dup2(out_, 1);
    ::dup2(err_, 2);
    ::close(out_);
    ::close(err_);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int out_, err_;
};

class Train : public ::testing::Test {
 protected:
  Train() {
    for (size_t kind = 0; kind < 3; ++kind)
      for (uint64_t i = 0; i < 10; ++i) {
        const auto jpeg = encode_jpeg(draw_scene(kind, i, 40), 90);
        testing::write(data_ / std::string(kSceneNames.at(kind)) / fmt::format("{}.jpg", i),
                       {reinterpret_cast<const char*>(jpeg.data()), jpeg.size()});
      }
    recipe_.model.backbone = "vgg-mini";
    recipe_.model.input = {32, 32};
    recipe_.model.until = "block2_pool";
    recipe_.model.head = "gap dense:8";
    recipe_.optimization.epochs = 4;
    recipe_.optimization.batch_size = 8;
    recipe_.seed = 5;
    cache_.folder = folder_.path() / "cache";
  }

  [[nodiscard]] TrainPlan make_plan() const {
    return plan(open_dataset(data_), recipe_, cache_, {.threads = 2});
  }
  [[nodiscard]] TensorMap weights(const char* run) const {
    return read_safetensors(folder_.path() / run / "model.safetensors").tensors;
  }
  void expect_same_weights(const char* a, const char* b) const {
    const TensorMap one = weights(a);
    const TensorMap other = weights(b);
    ASSERT_EQ(one.size(), other.size());
    for (const auto& [name, tensor] : one)
      EXPECT_TRUE(std::equal(tensor.values().begin(), tensor.values().end(),
                             other.at(name).values().begin()))
          << name;
  }

  testing::TemporaryFolder folder_;
  fs::path data_ = folder_.path() / "data";
  Recipe recipe_;
  CacheOptions cache_;
};

TEST_F(Train, PrintsNothingAndTouchesNoHandler) {
  const fs::path printed = folder_.path() / "printed";
  struct sigaction before {};
  ::sigaction(SIGINT, nullptr, &before);
  Watcher watcher;
  const RunContext context{.threads = 2, .reporter = &watcher};
  graft::Run run;
  {
    const Silence silence(printed);
    run = train(make_plan(), folder_.path() / "run", {}, context);
    static_cast<void>(
        run.classifier().classify(load_image(data_ / std::string(kSceneNames[0]) / "0.jpg")));
  }
  EXPECT_EQ(read_text_file(printed), "");
  struct sigaction after {};
  ::sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(after.sa_handler, before.sa_handler);
  EXPECT_GT(watcher.updates, 0);
  EXPECT_EQ(run.history.size(), 4U);
  const nlohmann::json metrics = nlohmann::json::parse(run.metrics);
  EXPECT_TRUE(metrics.contains("calibration"));
  EXPECT_TRUE(fs::exists(run.folder / "report.html"));
}

TEST_F(Train, StopsFromAnotherThreadAndGoesOn) {
  RunOptions options{.report = false};
  train(make_plan(), folder_.path() / "whole", options, {.threads = 2});
  std::stop_source stop;
  StopAfter observer(stop, 2);
  options.observers = {&observer};
  const fs::path part = folder_.path() / "part";
  std::thread other([&] {
    EXPECT_ERROR(train(make_plan(), part, options, {.threads = 2, .stop = stop.get_token()}),
                 ErrorKind::interrupted, "interrupted in epoch 3");
  });
  other.join();
  EXPECT_FALSE(fs::exists(part / "model.safetensors")) << "an uncalibrated model";
  Watcher watcher;
  const graft::Run run = resume(part, {.threads = 2, .reporter = &watcher});
  EXPECT_EQ(run.history.size(), 4U);
  EXPECT_NE(watcher.messages.find("going on after epoch 2"), std::string::npos);
  expect_same_weights("part", "whole");
}

TEST_F(Train, AFolderBelongsToOneRun) {
  train(make_plan(), folder_.path() / "run", {.report = false}, {.threads = 2});
  EXPECT_ERROR(train(make_plan(), folder_.path() / "run", {}, {}), ErrorKind::usage,
               "this run exists already");
  train(make_plan(), folder_.path() / "run", {.replace = true, .report = false}, {.threads = 2});
  EXPECT_ERROR(resume(folder_.path() / "none", {}), ErrorKind::input, "no run");
}

TEST_F(Train, ARunKeepsItsFixedOptions) {
  train(make_plan(), folder_.path() / "run", {.report = false}, {.threads = 2});
  recipe_.optimization.weight_decay = 0.5;
  EXPECT_ERROR(resume(make_plan(), folder_.path() / "run", {}, {.threads = 2}), ErrorKind::input,
               "`weight-decay` of a run that is resumed cannot change");
  recipe_.optimization.weight_decay = 0.01;
  recipe_.optimization.epochs = 5;
  EXPECT_EQ(
      resume(make_plan(), folder_.path() / "run", {.report = false}, {.threads = 2}).history.size(),
      5U);
}

}  // namespace
}  // namespace graft
