#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/dataset.h"
#include "dataset/labels.h"
#include "dataset/skipped.h"
#include "dataset/split.h"
#include "features/linear_head.h"
#include "features/prefix_features.h"
#include "model/model_file.h"
#include "run/conclude.h"
#include "run/judge_labels.h"
#include "run/run_config.h"
#include "weights/load.h"

namespace graft {
namespace {

// Of standardised features, for the mean cross-entropy: on the scenes' photos 0.03 and 0.1 find as
// many wrong labels, 0.01 and 0.3 fewer (docs/data.md).
constexpr double kPenalty = 0.05;
constexpr int kFolds = 10;
constexpr int kEnoughPoolings = 4;
// Of labels that look wrong: in data that people use, the classifiers are more often at fault.
constexpr double kTooMany = 0.25;

/// The mean of each map.
void pool(std::span<const float> values, size_t channels, float* out) {
  const size_t pixels = values.size() / channels;
  for (size_t c = 0; c < channels; ++c) {
    double sum = 0;
    for (size_t i = 0; i < pixels; ++i) sum += static_cast<double>(values[c * pixels + i]);
    out[c] = static_cast<float>(sum / static_cast<double>(pixels));
  }
}

/// The images that can be judged, with what they are judged by.
struct Evidence {
  FeatureRows features;
  std::vector<size_t> samples;  // of the rows
  std::vector<std::string> hashes;
};

Evidence gather(const Dataset& dataset, const JudgingBackbone& backbone, FeatureCache* cache,
                LabelCheck& found, const RunContext& context) {
  std::vector<fs::path> paths;
  paths.reserve(dataset.samples.size());
  for (const Sample& sample : dataset.samples) paths.push_back(sample.path);
  const std::vector<std::string> hashes = contents_of(dataset, context);
  const Shape shape = output_shapes(backbone.network)[backbone.end - 1];
  const auto columns = static_cast<size_t>(shape.flat ? shape.elements() : shape.channels);
  std::vector<float> values(paths.size() * columns);
  std::vector<bool> there(paths.size());
  const PrefixJob job{backbone.network,
                      backbone.end,
                      backbone.tensors,
                      cache,
                      backbone.dtype,
                      backbone.precision,
                      0,
                      backbone.device};
  const ImageJob images{.paths = paths,
                        .height = backbone.network.input_height,
                        .width = backbone.network.input_width,
                        .preprocessing = backbone.preprocessing,
                        .label = "computing features",
                        .context = context,
                        .hashes = hashes};
  prefix_features(
      job, images,
      [&](size_t i, std::span<const float> features) {
        pool(features, columns, &values[i * columns]);
        there[i] = true;
      },
      [&](size_t i, const std::string& message) {
        const Sample& sample = dataset.samples[i];
        found.skipped.push_back(
            skipped_image(sample, dataset.classes[static_cast<size_t>(sample.label)], message));
      });
  Evidence out;
  out.features.columns = columns;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (!there[i]) continue;
    const auto from = values.begin() + static_cast<std::ptrdiff_t>(i * columns);
    out.features.values.insert(out.features.values.end(), from,
                               from + static_cast<std::ptrdiff_t>(columns));
    out.samples.push_back(i);
    out.hashes.push_back(hashes[i]);
  }
  return out;
}

/// Leaves out rows of classes that have one image, or copies of one: without it nothing is known of
/// its class. Returns the classes that are left.
std::vector<int> leave_out_single(const Dataset& dataset, Evidence& evidence, LabelCheck& found) {
  std::vector<std::set<std::string>> different(dataset.classes.size());
  for (size_t k = 0; k < evidence.samples.size(); ++k)
    different[static_cast<size_t>(dataset.samples[evidence.samples[k]].label)].insert(
        evidence.hashes[k]);
  std::vector<int> classes;
  std::vector<std::string> single;
  for (size_t c = 0; c < different.size(); ++c) {
    if (different[c].size() > 1) classes.push_back(static_cast<int>(c));
    if (different[c].size() == 1) single.push_back(dataset.classes[c]);
  }
  if (classes.size() < 2)
    fail(ErrorKind::input,
         "{}: labels are judged by other images of each class; at least two classes need two "
         "different images that can be read",
         printable(dataset.root));
  if (single.empty()) return classes;
  found.notes.push_back(fmt::format("not judged: {} {}, of which there is one image",
                                    single.size() == 1 ? "class" : "the classes",
                                    label_list(single)));
  Evidence kept;
  const size_t columns = kept.features.columns = evidence.features.columns;
  for (size_t k = 0; k < evidence.samples.size(); ++k) {
    const int label = dataset.samples[evidence.samples[k]].label;
    if (different[static_cast<size_t>(label)].size() == 1) continue;
    const float* row = evidence.features.row(k);
    kept.features.values.insert(kept.features.values.end(), row, row + columns);
    kept.samples.push_back(evidence.samples[k]);
    kept.hashes.push_back(std::move(evidence.hashes[k]));
  }
  evidence = std::move(kept);
  return classes;
}

/// The number of each row's content among all.
std::vector<size_t> groups_of(const std::vector<std::string>& hashes) {
  std::map<std::string_view, size_t> known;
  std::vector<size_t> out;
  out.reserve(hashes.size());
  for (const std::string& hash : hashes)
    out.push_back(known.emplace(hash, known.size()).first->second);
  return out;
}

/// A backbone as its weights are.
JudgingBackbone pretrained(const Recipe::Model& model, const CacheOptions& cache, uint64_t seed,
                           const RunContext& context) {
  JudgingBackbone out;
  out.network = make_backbone(model);
  out.end = out.network.layers.size();
  out.dtype = cache.use ? FeatureType::fp16 : FeatureType::fp32;
  WeightsRequest request;
  request.weights = model.weights.empty() ? default_weights(model.backbone) : model.weights;
  request.backbone = out.network.backbone;
  request.preprocessing = model.preprocessing;
  request.resampling = model.resampling;
  request.input_height = out.network.input_height;
  request.input_width = out.network.input_width;
  request.seed = seed;
  request.cache = cache.folder.empty() ? default_cache_folder() : cache.folder;
  request.context = context;
  Weights weights = load_weights(request, out.network);
  if (!weights.note.empty()) context.tell(Severity::note, "note: " + weights.note);
  out.tensors = std::move(weights.tensors);
  out.preprocessing = weights.preprocessing;
  out.knows_labels = trained_on_labels(weights.provenance);
  return out;
}

/// bfloat16 where the run computed with it and this processor can.
Precision precision_of(const RunConfig& config, const RunContext& context) {
  try {
    // On the processor, on whatever device the run was.
    return resolve_precision(config.recipe.precision);
  } catch (const Error&) {
    context.tell(Severity::info,
                 "note: this processor has no bfloat16, which the run computed features with: they "
                 "are computed anew");
    return Precision::fp32;
  }
}

/// The frozen layers of a model, or the backbone that its run began with.
JudgingBackbone backbone_of_model(const fs::path& named, CacheOptions& cache, uint64_t& seed,
                                  const RunContext& context) {
  ModelFile model = read_model(model_file(named));
  std::error_code error;
  const bool is_run =
      fs::is_directory(named, error) && fs::exists(named / run_files::kConfig, error);
  RunConfig config;
  if (is_run) {
    config = read_run_config(named);
    seed = config.recipe.seed;
  }
  if (cache.folder.empty()) cache.folder = config.cache_dir;  // empty where it is no run
  JudgingBackbone out;
  const Network& network = model.metadata.network;
  out.end = std::min(backbone_end(network),
                     frozen_prefix_end(network, freeze_plan(network, fine_tuned(model.metadata))));
  if (judges_well(network, out.end)) {
    out.network = network;
    out.tensors = std::move(model.tensors);
    out.preprocessing = model.metadata.preprocessing;
    out.knows_labels = trained_on_labels(model.metadata.provenance);
  } else if (is_run && config.recipe.model.head != "keep") {
    out = pretrained(config.recipe.model, cache, config.recipe.seed, context);
  } else {
    fail(ErrorKind::usage,
         "{}: nearly all of its layers were trained on labels, which they may know by heart; name "
         "a `backbone` to judge by in its place",
         printable(named));
  }
  // As the run computed and stored them, so that they are found again.
  out.dtype = cache.use && !config.no_cache ? config.recipe.feature_type : FeatureType::fp32;
  out.precision = precision_of(config, context);
  return out;
}

}  // namespace

bool trained_on_labels(const Provenance& weights) {
  // As from_graft() and load_kept() record it.
  return weights.source.find("fine-tuned on") != std::string::npos ||
         weights.source.find("with its head") != std::string::npos;
}

bool judges_well(const Network& network, size_t end) {
  if (end == backbone_end(network)) return true;
  const auto layers = network.layers.begin();
  return std::count_if(layers, layers + static_cast<std::ptrdiff_t>(end), [](const Layer& layer) {
           return layer.kind == LayerKind::maxpool;
         }) >= kEnoughPoolings;
}

size_t backbone_end(const Network& network) {
  const auto head = std::find_if(network.layers.begin(), network.layers.end(),
                                 [](const Layer& layer) { return layer.in_head; });
  return static_cast<size_t>(head - network.layers.begin());
}

LabelCheck judge_labels(const Dataset& dataset, const JudgingBackbone& backbone,
                        FeatureCache* cache, uint64_t seed, const RunContext& context) {
  LabelCheck found;
  Evidence evidence = gather(dataset, backbone, cache, found, context);
  const std::vector<int> classes = leave_out_single(dataset, evidence, found);
  // Numbered without those that have no image here.
  std::vector<int> number(dataset.classes.size(), -1);
  for (size_t k = 0; k < classes.size(); ++k)
    number[static_cast<size_t>(classes[k])] = static_cast<int>(k);
  std::vector<int> labels;
  labels.reserve(evidence.samples.size());
  for (const size_t i : evidence.samples)
    labels.push_back(number[static_cast<size_t>(dataset.samples[i].label)]);
  standardize(evidence.features);
  const std::vector<float> probabilities =
      cross_validated(evidence.features, labels, groups_of(evidence.hashes), classes.size(),
                      {.folds = kFolds, .seed = seed, .head = {.penalty = kPenalty}}, context);
  // Labels that a person has decided on are learned from, and not judged.
  std::vector<float> judged;
  std::vector<int> judged_labels;
  std::vector<size_t> samples;
  for (size_t k = 0; k < labels.size(); ++k) {
    if (dataset.samples[evidence.samples[k]].reviewed) continue;
    const auto from = probabilities.begin() + static_cast<std::ptrdiff_t>(k * classes.size());
    judged.insert(judged.end(), from, from + static_cast<std::ptrdiff_t>(classes.size()));
    judged_labels.push_back(labels[k]);
    samples.push_back(evidence.samples[k]);
  }
  LabelCheck out = confident_learning(judged, judged_labels, classes.size());
  for (LabelDoubt& doubt : out.ranking) {
    doubt.sample = samples[doubt.sample];
    doubt.suggestion = classes[static_cast<size_t>(doubt.suggestion)];
  }
  for (LabelPair& pair : out.pairs) {
    pair.label = classes[static_cast<size_t>(pair.label)];
    pair.suggestion = classes[static_cast<size_t>(pair.suggestion)];
  }
  out.features = fmt::format("{} of {}", backbone.network.layers[backbone.end - 1].name,
                             backbone.network.backbone);
  out.skipped = std::move(found.skipped);
  out.notes = std::move(found.notes);
  if (out.share > kTooMany)
    out.notes.push_back(
        "the classes are hard to tell apart by these features, or images are few: most of what "
        "looks wrong is not, and the estimate is too high");
  if (backbone.knows_labels)
    out.notes.push_back(
        "the backbone may have been trained on labels before; where they were these, errors in "
        "them are harder to see");
  return out;
}

LabelCheck check_labels(const Dataset& dataset, const LabelCheckOptions& options,
                        const RunContext& context) {
  check_dataset(dataset);
  CacheOptions cache = options.cache;
  uint64_t seed = options.seed;
  const JudgingBackbone backbone = options.model.empty()
                                       ? pretrained(options.backbone, cache, options.seed, context)
                                       : backbone_of_model(options.model, cache, seed, context);
  const std::unique_ptr<FeatureCache> opened = open_cache(cache, context);
  return judge_labels(dataset, backbone, opened.get(), seed, context);
}

}  // namespace graft
