#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "features/batcher.h"
#include "features/feature_file.h"
#include "features/image_stream.h"
#include "features/prefix_features.h"
#include "graft/features.h"
#include "recipe/option_values.h"
#include "weights/load.h"

namespace graft {
namespace {

std::string weight_source(const Recipe::Model& model) {
  return model.weights.empty() ? default_weights(model.backbone) : model.weights;
}

Network make_network(const FeatureOptions& o) {
  // Naming a layer of the top asks for it.
  const std::string& until = o.model.until;
  const bool top = o.include_top || until == "flatten" || until == "fc1" || until == "fc2" ||
                   until == "predictions";
  Network network = make_backbone(o.model, top);
  if (network.layers.back().name == "predictions")
    network.layers.back().outputs = top_classes(weight_source(o.model));
  return network;
}

Network with_pooling(Network network, Pooling pooling) {
  if (pooling != Pooling::gap) return network;
  if (output_shapes(network).back().flat)
    fail(ErrorKind::usage, "`pool` gap needs maps, but {} gives a flat vector; leave `pool` out",
         network.layers.back().name);
  append(network, {.kind = LayerKind::gap, .name = "gap", .in_head = true});
  return network;
}

std::vector<int64_t> row_shape(const Network& network, Pooling pooling) {
  const Shape shape = output_shapes(network).back();
  if (!shape.flat && pooling == Pooling::none) return {shape.channels, shape.height, shape.width};
  return {shape.elements()};
}

void check_ranges(const FeatureOptions& options) {
  constexpr int kMaxBatch = 65'536;
  if (options.batch_size < 1 || options.batch_size > kMaxBatch)
    fail(ErrorKind::usage, "`batch-size`: {} is not from 1 to {}", options.batch_size, kMaxBatch);
  if (options.pooling != Pooling::none && options.pooling != Pooling::gap &&
      options.pooling != Pooling::flatten)
    fail(ErrorKind::usage, "`pool`: {} is the number of no value",
         static_cast<int>(options.pooling));
}

}  // namespace

void check_features(const FeatureOptions& options) {
  check_ranges(options);
  static_cast<void>(resolve_precision(options.precision, device_name(options.device.get())));
  static_cast<void>(with_pooling(make_network(options), options.pooling));
}

struct FeatureExtractor::State {
  RunContext context;
  std::string weights;  // for messages
  int batch;
  Precision precision;
  Network network;
  std::vector<int64_t> shape;
  Preprocessing preprocessing;
  std::unique_ptr<engine::Executor> engine;
  std::string about;

  /// Throws Error(input) where there is a value that is not finite.
  void check_finite(std::span<const float> values, const std::string& image) const {
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
      fail(ErrorKind::input,
           "{}: the features of {} are not finite: the weights are too large or damaged; take "
           "others",
           weights, image);
  }
};

FeatureExtractor::FeatureExtractor(const FeatureOptions& options, const RunContext& context) {
  check_ranges(options);
  const ComputeDevice* device = options.device.get();
  const Precision precision = resolve_precision(options.precision, device_name(device));
  const Network base = make_network(options);  // reads a file for the number of its classes
  Network network = with_pooling(base, options.pooling);
  WeightsRequest request;
  request.weights = weight_source(options.model);
  request.backbone = options.model.backbone;
  request.preprocessing = options.model.preprocessing;
  request.resampling = options.model.resampling;
  request.input_height = network.input_height;
  request.input_width = network.input_width;
  request.seed = options.seed;
  request.cache = options.cache.empty() ? default_cache_folder() : options.cache;
  request.context = context;
  const Weights weights = load_weights(request, base);
  if (!weights.note.empty()) context.tell(Severity::note, fmt::format("note: {}", weights.note));
  engine::EngineOptions each;
  each.threads = context.thread_count();
  each.max_batch = engine::batch_for(device, options.batch_size);
  each.precision = precision;
  std::unique_ptr<engine::Executor> engine =
      engine::make_executor(device, network, 0, network.layers.size(), weights.tensors, each);
  const std::string& named = options.model.weights;
  std::vector<int64_t> shape = row_shape(network, options.pooling);
  const nlohmann::json about = {
      {"backbone", options.model.backbone},
      {"weights", fs::path(request.weights).filename().string()},
      {"layer", network.layers.back().name},
      {"input", {network.input_height, network.input_width}},
      {"shape", shape},
      {"precision", options::word(precision)},
      {"instructions", engine::numerics(device, precision)},
      {"id", feature_set_id({.network = network,
                             .end = network.layers.size(),
                             .tensors = weights.tensors,
                             .dtype = FeatureType::fp32,
                             .precision = precision,
                             .device = device},
                            weights.preprocessing, network.layers.size())}};
  state_ = std::unique_ptr<State>(
      new State{context, named.empty() ? options.model.backbone : named, each.max_batch, precision,
                std::move(network), std::move(shape), weights.preprocessing, std::move(engine),
                about.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)});
}

FeatureExtractor::~FeatureExtractor() = default;
FeatureExtractor::FeatureExtractor(FeatureExtractor&&) noexcept = default;
FeatureExtractor& FeatureExtractor::operator=(FeatureExtractor&&) noexcept = default;

const std::vector<int64_t>& FeatureExtractor::shape() const { return state_->shape; }
const std::string& FeatureExtractor::layer() const { return state_->network.layers.back().name; }
Precision FeatureExtractor::precision() const { return state_->precision; }
const std::string& FeatureExtractor::about() const { return state_->about; }

void FeatureExtractor::run(std::span<const std::filesystem::path> images,
                           const std::function<void(size_t, std::span<const float>)>& sink,
                           const std::function<void(size_t, const std::string&)>& on_error) {
  require_callbacks(sink && on_error);
  State& s = *state_;
  const ImageJob job{.paths = images,
                     .height = s.network.input_height,
                     .width = s.network.input_width,
                     .preprocessing = s.preprocessing,
                     .batch = s.batch,
                     .context = s.context};
  stream_features(
      job, forward_of(*s.engine),
      [&](const StreamedImage& image, std::span<const float> values) {
        s.check_finite(values, printable(images[image.index]));
        sink(image.index, values);
      },
      on_error);
}

void FeatureExtractor::run(std::span<const Image> images,
                           const std::function<void(size_t, std::span<const float>)>& sink) {
  require_callbacks(static_cast<bool>(sink));
  State& s = *state_;
  const int batch =
      static_cast<int>(std::clamp<size_t>(images.size(), 1, static_cast<size_t>(s.batch)));
  Batcher batcher(forward_of(*s.engine), batch, [&](size_t i, std::span<const float> values) {
    s.check_finite(values, fmt::format("image {}", i));
    sink(i, values);
  });
  for (size_t i = 0; i < images.size(); ++i) {
    s.context.check_stop();
    const Image fitted =
        fit_image(images[i], s.network.input_width, s.network.input_height, s.preprocessing);
    to_input(fitted, s.preprocessing, batcher.row().data());
    batcher.add(i);
  }
  batcher.flush();
}

size_t write_features(FeatureExtractor& extractor, std::span<const std::filesystem::path> images,
                      const std::filesystem::path& file, const std::filesystem::path& list,
                      const std::function<void(size_t, const std::string&)>& on_error) {
  FeatureTable table(file, list, extractor.shape());
  extractor.run(
      images, [&](size_t i, std::span<const float> values) { table.add(images[i], values); },
      on_error);
  return table.commit(images.size());
}

}  // namespace graft
