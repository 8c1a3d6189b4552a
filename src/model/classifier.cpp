#include "graft/classifier.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/engine.h"
#include "model/logits.h"
#include "model/model_file.h"

namespace graft {

struct Classifier::State {
  ModelMetadata metadata;
  mutable Engine engine;
};

Classifier::Classifier(std::unique_ptr<State> state) : state_(std::move(state)) {}
Classifier::~Classifier() = default;
Classifier::Classifier(Classifier&&) noexcept = default;
Classifier& Classifier::operator=(Classifier&&) noexcept = default;

Classifier Classifier::load(const std::filesystem::path& path, const ClassifierOptions& options) {
  ModelFile model = read_model(resolve_model(path));
  EngineOptions engine_options;
  engine_options.threads = options.threads;
  Engine engine(model.metadata.network, 0, model.metadata.network.layers.size(), model.tensors,
                engine_options);
  return Classifier(
      std::unique_ptr<State>(new State{std::move(model.metadata), std::move(engine)}));
}

const std::vector<std::string>& Classifier::classes() const { return state_->metadata.classes; }
const Network& Classifier::network() const { return state_->metadata.network; }
const Preprocessing& Classifier::preprocessing() const { return state_->metadata.preprocessing; }
const ModelMetadata& Classifier::metadata() const { return state_->metadata; }
Engine& Classifier::engine() const { return state_->engine; }

Prediction Classifier::classify(const Image& image) const {
  const Network& net = network();
  const Image fitted = fit_image(image, net.input_width, net.input_height, preprocessing());
  std::vector<float> input(static_cast<size_t>(engine().input_elements()));
  to_input(fitted, preprocessing(), input.data());
  std::vector<float> logits(classes().size());
  engine().run(input.data(), 1, logits.data());
  return to_prediction(logits);
}

Prediction to_prediction(std::span<const float> logits) {
  check_logits(logits);
  Prediction prediction;
  prediction.logits.assign(logits.begin(), logits.end());
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  for (const float logit : logits)
    prediction.probabilities.push_back(static_cast<float>(std::exp(logit - most) / sum));
  prediction.ranking.resize(logits.size());
  std::iota(prediction.ranking.begin(), prediction.ranking.end(), 0);
  std::stable_sort(prediction.ranking.begin(), prediction.ranking.end(),
                   [&](int a, int b) { return logits[a] > logits[b]; });
  return prediction;
}

}  // namespace graft
