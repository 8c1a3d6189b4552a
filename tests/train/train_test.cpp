// Training from C++: the public functions, without a program around them.
#include "graft/train.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "base/file.h"
#include "demo/scenes.h"
#include "engine/tile_kernels.h"
#include "graft/evaluate.h"
#include "graft/explain.h"
#include "graft/features.h"
#include "graft/image.h"
#include "graft/weights.h"
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
    if (update.ended)
      open.erase(std::string(update.task));
    else
      open.insert(std::string(update.task));
  }
  std::string messages;
  int updates = 0;
  std::set<std::string> open;  // tasks that have begun and not ended

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
  EXPECT_EQ(watcher.open, std::set<std::string>());
  EXPECT_EQ(run.history.size(), 4U);
  // Features from the cache have an end too.
  train(make_plan(), folder_.path() / "again", {.report = false}, context);
  EXPECT_EQ(watcher.open, std::set<std::string>());
  const nlohmann::json metrics = nlohmann::json::parse(run.metrics);
  EXPECT_TRUE(metrics.contains("calibration"));
  EXPECT_TRUE(fs::exists(run.folder / "report.html"));
}

TEST_F(Train, WhatComesOfARunIsMeasuredShownAndUsed) {
  const RunContext context{.threads = 2};
  const graft::Run run = train(make_plan(), folder_.path() / "run", {.report = false}, context);
  EXPECT_GT(run.validation.images, 0);
  EXPECT_FALSE(run.test.has_value());
  EXPECT_FALSE(fs::exists(run.folder / "report.html"));
  write_report(run, run.folder / "report.html", context);
  EXPECT_NE(read_text_file(run.folder / "report.html").find("Model card"), std::string::npos);

  // On its own images: those that it was trained on are known.
  const Classifier classifier = run.classifier({.threads = 2});
  const Dataset dataset = open_dataset(data_);
  const Evaluation all = evaluate(classifier, dataset, "all", context);
  EXPECT_EQ(all.metrics.images, 30);
  EXPECT_EQ(images_trained_on(run.folder, all), 30U - static_cast<size_t>(run.validation.images));
  EXPECT_EQ(images_trained_on(run.model(), all), images_trained_on(run.folder, all));
  const fs::path alone = folder_.path() / "alone.safetensors";
  fs::copy_file(run.model(), alone);
  EXPECT_EQ(images_trained_on(alone, all), 0U) << "a file alone does not know";
  const Evaluation held =
      evaluate(classifier, open_dataset(run.folder / "split.csv"), "validation", context);
  EXPECT_EQ(held.metrics.top1, run.validation.top1);
  EXPECT_NEAR(held.metrics.loss, run.validation.loss, 1e-3);
  EXPECT_EQ(images_trained_on(run.folder, held), 0U);
  EXPECT_ERROR(static_cast<void>(evaluate(classifier, dataset, "test")), ErrorKind::input,
               "no test split");

  // The same answers, one by one, by files and beside maps.
  const std::vector<fs::path> paths = list_images(data_);
  std::vector<Prediction> predictions;
  const auto no_error = [](size_t, const std::string& message) { FAIL() << message; };
  classify_files(
      classifier, paths,
      [&](size_t i, const Prediction& p) {
        EXPECT_EQ(i, predictions.size());
        predictions.push_back(p);
      },
      no_error, context);
  ASSERT_EQ(predictions.size(), paths.size());
  EXPECT_EQ(classifier.classify(load_image(paths[4])).logits, predictions[4].logits);
  Explainer explainer = Explainer::load(run.folder, "", context);
  size_t explained = 0;
  explain_files(
      explainer, std::span(paths).first(3),
      [&](size_t i, const ActivationMap& map, const Image& image) {
        EXPECT_EQ(map.logits, predictions[i].logits);
        EXPECT_EQ(map.output, predictions[i].best());
        EXPECT_EQ(explainer.overlay(image, map).width, image.width);
        EXPECT_ERROR(static_cast<void>(explainer.overlay(image, {})), ErrorKind::usage, "map");
        ++explained;
      },
      no_error, context);
  EXPECT_EQ(explained, 3U);
}

TEST_F(Train, WhatCannotBeHadIsToldByThePlan) {
  recipe_.model.weights = "imagenet";
  EXPECT_ERROR(static_cast<void>(make_plan()), ErrorKind::input,
               "no ImageNet weights are published for vgg-mini");
  recipe_.model.weights = (folder_.path() / "none.h5").string();
  EXPECT_ERROR(static_cast<void>(make_plan()), ErrorKind::input, "none.h5");
  recipe_.model.backbone = "vgg16";
  recipe_.model.weights = "builtin";
  EXPECT_ERROR(static_cast<void>(make_plan()), ErrorKind::usage, "only vgg-mini has");
}

TEST_F(Train, WhatIsFilledByHandIsChecked) {
  const auto plan_of = [&](auto change) {
    Dataset data = open_dataset(data_);
    change(data);
    static_cast<void>(plan(std::move(data), recipe_, cache_));
  };
  EXPECT_ERROR(plan_of([](Dataset& d) { d.samples[0].label = 77; }), ErrorKind::usage, "label 77");
  EXPECT_ERROR(plan_of([](Dataset& d) { d.samples[0].label = -1; }), ErrorKind::usage, "label -1");
  EXPECT_ERROR(plan_of([](Dataset& d) { d.classes[1] = d.classes[0]; }), ErrorKind::usage, "twice");
  EXPECT_ERROR(plan_of([](Dataset& d) { d.classes[1] = "a\xff"; }), ErrorKind::input, "UTF-8");
  EXPECT_ERROR(plan_of([](Dataset& d) { d.samples[0].path.clear(); }), ErrorKind::usage, "path");
  Recipe wrong = recipe_;
  wrong.optimization.optimizer = static_cast<OptimizerKind>(99);
  EXPECT_ERROR(wrong.check(), ErrorKind::usage, "99 is the number of no value");

  const auto train_with = [&](auto change) {
    TrainPlan changed = make_plan();
    change(changed);
    train(changed, folder_.path() / "run", {.report = false}, {.threads = 1});
  };
  EXPECT_ERROR(train_with([](TrainPlan& p) { p.phases[0].prefix_end = 0; }), ErrorKind::usage,
               "prefix");
  EXPECT_ERROR(train_with([](TrainPlan& p) { p.phases[0].prefix_end = 9999; }), ErrorKind::usage,
               "prefix");
  EXPECT_ERROR(train_with([](TrainPlan& p) { p.phases[0].epochs = 9; }), ErrorKind::usage,
               "number of epochs");
  EXPECT_ERROR(train_with([](TrainPlan& p) { p.phases[0].learning_rate = -1; }), ErrorKind::usage,
               "learning rate");
  EXPECT_ERROR(train_with([](TrainPlan& p) { p.network = {}; }), ErrorKind::input, "not a network");
  EXPECT_ERROR(train_with([](TrainPlan& p) { p.views = -1; }), ErrorKind::usage, "views");
  EXPECT_FALSE(fs::exists(folder_.path() / "run"));
  EXPECT_ERROR(static_cast<void>(train(make_plan(), "")), ErrorKind::usage, "without a name");
  EXPECT_ERROR(static_cast<void>(RunContext{.threads = 5000}.thread_count()), ErrorKind::usage,
               "`threads`");
}

TEST_F(Train, ResultsNeverTakeThePlaceOfModelsAndDevices) {
  const graft::Run run =
      train(make_plan(), folder_.path() / "run", {.report = false}, {.threads = 2});
  const std::string before = read_text_file(run.model());
  const fs::path pipe = folder_.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_ERROR(write_report(run, pipe), ErrorKind::io, "pipe or socket");
  EXPECT_ERROR(write_report(run, run.model()), ErrorKind::usage, "is the model");
  EXPECT_ERROR(static_cast<void>(convert_weights(run.folder, run.model())), ErrorKind::usage,
               "the model itself");
  EXPECT_TRUE(fs::is_fifo(pipe));
  // Asked to stop before it begins, a run that is there stays.
  std::stop_source stop;
  stop.request_stop();
  EXPECT_ERROR(static_cast<void>(train(make_plan(), run.folder, {.replace = true},
                                       {.threads = 1, .stop = stop.get_token()})),
               ErrorKind::interrupted, "");
  EXPECT_EQ(read_text_file(run.model()), before);
}

TEST_F(Train, TwoAtOnceAndTheHostDoNotDisturbEachOther) {
  recipe_.model.head = "gap dense:8 dropout:0.5";
  train(make_plan(), folder_.path() / "alone", {.report = false}, {.threads = 1});
  const TrainPlan plan = make_plan();
  {
    std::vector<std::jthread> both;
    for (const char* name : {"one", "two"})
      both.emplace_back(
          [&, name] { train(plan, folder_.path() / name, {.report = false}, {.threads = 1}); });
  }
  expect_same_weights("one", "alone");
  expect_same_weights("two", "alone");
}

TEST_F(Train, FeaturesOfABackbone) {
  FeatureOptions options;
  options.model = recipe_.model;
  options.pooling = Pooling::gap;
  options.cache = cache_.folder;
  FeatureExtractor extractor(options, {.threads = 2});
  EXPECT_EQ(extractor.shape(), std::vector<int64_t>{32});
  EXPECT_EQ(extractor.layer(), "gap");
  std::vector<fs::path> paths = list_images(data_);
  paths.push_back(data_ / "none.jpg");
  const fs::path npy = folder_.path() / "features.npy";
  std::vector<size_t> lost;
  EXPECT_EQ(write_features(extractor, paths, npy, folder_.path() / "features.csv",
                           [&](size_t i, const std::string&) { lost.push_back(i); }),
            30U);
  EXPECT_EQ(lost, std::vector<size_t>{30});
  EXPECT_EQ((fs::file_size(npy) - 30 * 32 * sizeof(float)) % 64, 0U) << "the header's padding";
  options.model.until = "none";
  EXPECT_ERROR(FeatureExtractor(options, {}), ErrorKind::usage, "none");
}

TEST_F(Train, FeaturesOfImagesInMemory) {
  FeatureOptions options;
  options.model = recipe_.model;
  options.pooling = Pooling::gap;
  options.batch_size = 4;
  options.cache = cache_.folder;
  std::stop_source stop;
  FeatureExtractor extractor(options, {.threads = 2, .stop = stop.get_token()});
  std::vector<fs::path> paths = list_images(data_);
  paths.resize(7);
  using Rows = std::map<size_t, std::vector<float>>;
  Rows of_files;
  extractor.run(
      paths,
      [&](size_t i, std::span<const float> row) {
        of_files[i] = {row.begin(), row.end()};
      },
      [&](size_t, const std::string& why) { FAIL() << why; });
  std::vector<Image> images;
  for (const fs::path& path : paths) images.push_back(load_image(path));
  Rows of_images;
  const auto keep = [&](size_t i, std::span<const float> row) {
    of_images[i] = {row.begin(), row.end()};
  };
  extractor.run(images, keep);
  EXPECT_EQ(of_files.size(), 7U);
  EXPECT_EQ(of_images, of_files);
  extractor.run(std::span<const Image>(), keep);
  images[3].pixels.pop_back();
  EXPECT_ERROR(extractor.run(images, keep), ErrorKind::usage, "");
  images.resize(3);
  stop.request_stop();
  EXPECT_ERROR(extractor.run(images, keep), ErrorKind::interrupted, "");
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

TEST_F(Train, ThePlanDecidesThePrecision) {
  recipe_.precision = Precision::automatic;
  const Precision chosen = resolve_precision(Precision::automatic);
  TrainPlan open = make_plan();
  EXPECT_EQ(open.recipe.precision, chosen);
  open.recipe.precision = Precision::automatic;
  EXPECT_ERROR(static_cast<void>(train(open, folder_.path() / "run")), ErrorKind::usage,
               "leaves its `precision` open");
  recipe_.precision = Precision::bf16;
  if (engine::tile_kernels(Precision::bf16) == nullptr) {
    EXPECT_ERROR(static_cast<void>(make_plan()), ErrorKind::usage, "`precision` bf16 needs");
    open.recipe.precision = Precision::bf16;
    EXPECT_ERROR(static_cast<void>(train(open, folder_.path() / "run")), ErrorKind::usage,
                 "`precision` bf16 needs");
    EXPECT_FALSE(fs::exists(folder_.path() / "run"));
    GTEST_SKIP() << "bf16 is refused on this processor: training with it was not tested";
  }
  const graft::Run run =
      train(make_plan(), folder_.path() / "run", {.report = false}, {.threads = 2});
  EXPECT_EQ(nlohmann::json::parse(run.metrics)["precision"], "bf16");
  EXPECT_EQ(nlohmann::json::parse(read_model_info(run.folder).training)["precision"], "bf16");
  EXPECT_EQ(run_settings(run.folder).recipe.precision, Precision::bf16);
  // The model is for every processor, and computes in float32 unless it is asked otherwise.
  EXPECT_EQ(run.classifier().precision(), Precision::fp32);
  EXPECT_EQ(resume(run.folder, {.threads = 2}).history.size(), run.history.size());
  recipe_.precision = Precision::fp32;
  EXPECT_ERROR(static_cast<void>(resume(make_plan(), run.folder)), ErrorKind::input,
               "`precision` of a run that is resumed cannot change");
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
