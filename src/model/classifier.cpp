#include "graft/classifier.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/threads.h"
#include "engine/executor.h"
#include "features/image_stream.h"
#include "model/logits.h"
#include "model/model_file.h"
#include "model/request_queue.h"

namespace graft {

ModelInfo to_info(ModelMetadata metadata) {
  const std::string fine_tune = fine_tuned(metadata);
  return {std::move(metadata.network),
          std::move(metadata.classes),
          metadata.preprocessing,
          std::move(metadata.provenance.source),
          std::move(metadata.provenance.md5),
          std::move(metadata.provenance.licence),
          metadata.training.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
          fine_tune,
          metadata.test_views};
}

ModelInfo read_model_info(const std::filesystem::path& path) {
  return to_info(read_model(model_file(path)).metadata);
}

namespace {

// Threads of one batch, at most: the narrowest layers (14×14: 3 × 3 tiles an image, six to a
// product) have no work for many more. An estimate; it was not measured on a machine that large.
constexpr int kThreadsOfSession = 8;

}  // namespace

struct Classifier::State {
  ModelInfo info;
  size_t input_elements = 0;
  int max_batch = 1;
  int views = 1;
  Precision precision = Precision::fp32;
  int lanes = 1;
  std::unique_ptr<engine::Executor> first;  // the queue's engines share its weights
  mutable RequestQueue queue;
  mutable ThreadPool preparing;
};

Classifier::Classifier(std::unique_ptr<State> state) : state_(std::move(state)) {}
Classifier::~Classifier() = default;
Classifier::Classifier(Classifier&&) noexcept = default;
Classifier& Classifier::operator=(Classifier&&) noexcept = default;

Classifier Classifier::load(const std::filesystem::path& path, const ClassifierOptions& options) {
  constexpr int kMaxImages = 1 << 16;
  if (options.max_batch < 1 || options.max_batch > kMaxImages)
    fail(ErrorKind::usage, "max_batch is {}; expected 1 to {}", options.max_batch, kMaxImages);
  if (options.sessions < 0 || options.sessions > kMaxThreads)
    fail(ErrorKind::usage, "sessions are {}; expected 0 to {}", options.sessions, kMaxThreads);
  if (options.views < 0 || options.views > kMostTestViews)
    fail(ErrorKind::usage, "views are {}; expected 0 to {}", options.views, kMostTestViews);
  const int threads = RunContext{.threads = options.threads}.thread_count();
  const Precision precision =
      resolve_precision(options.precision, device_name(options.device.get()));
  ModelFile model = read_model(model_file(path));
  const size_t end = model.metadata.network.layers.size();
  engine::EngineOptions each;
  each.max_batch = engine::batch_for(options.device.get(), options.max_batch);
  each.single_plan = options.low_latency;
  each.precision = precision;
  each.threads = 1;
  std::unique_ptr<engine::Executor> first = engine::make_executor(
      options.device.get(), model.metadata.network, 0, end, model.tensors, each);
  const int asked = options.sessions > 0 ? options.sessions
                                         : (threads + kThreadsOfSession - 1) / kThreadsOfSession;
  const int sessions =
      options.device ? std::max(asked, first->lanes()) : std::clamp(asked, 1, threads);
  std::vector<std::unique_ptr<engine::Executor>> engines;
  for (int i = 0; i < sessions; ++i) {
    each.threads = threads / sessions + (i < threads % sessions ? 1 : 0);
    engines.push_back(first->beside(each));
  }
  const auto elements = static_cast<size_t>(first->input_elements());
  const int lanes = first->lanes();
  const int views = options.views > 0 ? options.views : model.metadata.test_views;
  return Classifier(std::unique_ptr<State>(
      new State{to_info(std::move(model.metadata)), elements, each.max_batch, views, precision,
                lanes, std::move(first), RequestQueue(std::move(engines)), ThreadPool(threads)}));
}

const ModelInfo& Classifier::info() const { return state_->info; }
size_t Classifier::input_elements() const { return state_->input_elements; }
int Classifier::views() const { return state_->views; }
Precision Classifier::precision() const { return state_->precision; }
int Classifier::max_batch() const { return state_->max_batch; }
int Classifier::lanes() const { return state_->lanes; }

uint64_t Classifier::estimate(int images) const {
  const auto mirrored = static_cast<uint64_t>(state_->views - 1) * std::max(images, 0);
  return state_->first->estimate(images) + mirrored * input_elements() * sizeof(float);
}

ClassifierMemory Classifier::prepare(int images) const {
  const engine::EngineMemory memory = state_->queue.prepare(images);
  return {memory.weights, memory.buffers};
}

void Classifier::run(std::span<const float> inputs, int count, std::span<float> logits) const {
  const auto images = static_cast<size_t>(std::max(count, 0));
  if (count < 0 || inputs.size() / input_elements() < images ||
      logits.size() / classes().size() < images)
    fail(ErrorKind::usage,
         "{} images with {} inputs and room for {} logits; expected {} inputs and {} logits an "
         "image",
         count, inputs.size(), logits.size(), input_elements(), classes().size());
  state_->queue.run(inputs, count, logits);
  if (state_->views == 1) return;
  const Network& network = info().network;
  const size_t row = input_elements();
  const size_t outputs = classes().size();
  std::vector<float> mirrored;
  std::vector<float> of_mirrored;
  for (size_t begin = 0; begin < images; begin += static_cast<size_t>(max_batch())) {
    const size_t batch = std::min(images - begin, static_cast<size_t>(max_batch()));
    mirrored.resize(batch * row);
    of_mirrored.resize(batch * outputs);
    for (size_t i = 0; i < batch; ++i)
      mirror_input(inputs.subspan((begin + i) * row, row), network.input_width, &mirrored[i * row]);
    state_->queue.run(mirrored, static_cast<int>(batch), of_mirrored);
    average_views(logits.subspan(begin * outputs, batch * outputs), of_mirrored);
  }
}

Prediction Classifier::classify(const Image& image) const {
  return std::move(classify(std::span(&image, 1)).front());
}

std::vector<Prediction> Classifier::classify(std::span<const Image> images) const {
  const ModelInfo& model = info();
  const size_t elements = input_elements();
  std::vector<float> inputs(elements * images.size());
  const auto prepare_one = [&](size_t i) {
    const Image fitted = fit_image(images[i], model.network.input_width, model.network.input_height,
                                   model.preprocessing);
    to_input(fitted, model.preprocessing, &inputs[i * elements]);
  };
  if (images.size() == 1)
    prepare_one(0);
  else
    state_->preparing.parallel_for(images.size(), prepare_one);
  std::vector<float> logits(images.size() * model.classes.size());
  run(inputs, static_cast<int>(images.size()), logits);
  std::vector<Prediction> predictions;
  for (size_t i = 0; i < images.size(); ++i)
    predictions.push_back(
        to_prediction(std::span(logits).subspan(i * model.classes.size(), model.classes.size())));
  return predictions;
}

void classify_files(const Classifier& classifier, std::span<const std::filesystem::path> paths,
                    const std::function<void(size_t, const Prediction&)>& on_prediction,
                    const std::function<void(size_t, const std::string&)>& on_error,
                    const RunContext& context) {
  require_callbacks(on_prediction && on_error);
  classify_files(
      classifier, paths, 0,
      [&](size_t i, const Prediction& prediction, const Image&) { on_prediction(i, prediction); },
      on_error, context);
}

void classify_files(
    const Classifier& classifier, std::span<const std::filesystem::path> paths, int side,
    const std::function<void(size_t, const Prediction&, const Image&)>& on_prediction,
    const std::function<void(size_t, const std::string&)>& on_error, const RunContext& context) {
  require_callbacks(on_prediction && on_error);
  const ModelInfo& info = classifier.info();
  const ImageJob job{.paths = paths,
                     .height = info.network.input_height,
                     .width = info.network.input_width,
                     .preprocessing = info.preprocessing,
                     .batch = classifier.max_batch(),
                     .label = "classifying",
                     .context = context,
                     .thumbnail = side};
  stream_features(
      job, forward_of(classifier),
      [&](const StreamedImage& image, std::span<const float> logits) {
        std::optional<Prediction> prediction;
        try {
          prediction = to_prediction(logits);
        } catch (const Error& error) {
          on_error(image.index, fmt::format("{}: {}", printable(paths[image.index]), error.what()));
          return;
        }
        on_prediction(image.index, *prediction, image.thumbnail);
      },
      on_error);
}

Prediction to_prediction(std::span<const float> logits) {
  Prediction prediction;
  prediction.logits.assign(logits.begin(), logits.end());
  for (const double p : softmax(logits)) prediction.probabilities.push_back(static_cast<float>(p));
  prediction.ranking.resize(logits.size());
  std::iota(prediction.ranking.begin(), prediction.ranking.end(), 0);
  std::stable_sort(prediction.ranking.begin(), prediction.ranking.end(),
                   [&](int a, int b) { return logits[a] > logits[b]; });
  return prediction;
}

}  // namespace graft
