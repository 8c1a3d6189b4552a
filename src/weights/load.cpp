#include "weights/load.h"

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "base/random.h"
#include "graft/error.h"
#include "weights/builtin.h"
#include "weights/download.h"
#include "weights/keras_h5.h"
#include "weights/metadata.h"
#include "weights/registry.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

/// A family of Graft's own: it has no published files and no top.
bool is_mini(std::string_view backbone) { return backbone.starts_with("vgg-mini"); }

bool ends_in_top(const Network& network) {
  // Layers of the top are the flat ones of a backbone.
  return output_shapes(network).back().flat;
}

fs::path find_imagenet(const WeightsRequest& request, bool needs_top) {
  const PublishedFile* file = find_published(request.backbone, needs_top);
  if (file == nullptr)
    fail(ErrorKind::input,
         "no ImageNet weights are published for {} in a form that Graft reads (Keras "
         "has vgg16 and vgg19); use {}--weights none, --weights FILE, or one of those backbones",
         request.backbone, builtin_weights(request.backbone).empty() ? "" : "--weights builtin, ");
  std::error_code error;
  fs::path path = cached_path(*file, request.cache);
  if (fs::exists(path, error)) return path;
  // The full file has everything that the smaller one has.
  const PublishedFile* full = find_published(request.backbone, true);
  if (full != nullptr && fs::exists(cached_path(*full, request.cache), error))
    return cached_path(*full, request.cache);
  if (!request.download)
    fail(ErrorKind::input,
         "{} is not in the cache; run 'graft weights download {}', or use --backbone vgg-mini, "
         "which needs no download",
         file->file, request.backbone);
  try {
    download({download_url(*file), path, file->md5, file->bytes}, request.verbosity);
  } catch (const Error& failure) {
    if (failure.kind() == ErrorKind::interrupted) throw;
    fail(failure.kind(), "{}; or use --backbone vgg-mini, which needs no download", failure.what());
  }
  return path;
}

/// A hint for the common mistakes, from the shapes alone.
std::string mismatch_hint(const TensorMap& found, const Network& network) {
  const auto first = found.find("block1_conv1.weight");
  // Theano's files hold (64, 3, 3, 3), which read as H, W, I, O becomes (3, 3, 64, 3).
  if (first != found.end() && first->second.shape() == std::vector<int64_t>{3, 3, 64, 3})
    return " (kernels in Theano's order, th_dim_ordering, which are also flipped; use the "
           "tf_dim_ordering file)";
  for (const std::string& name : backbone_names()) {
    if (name == network.backbone || is_mini(name)) continue;
    const Network other = backbone(name, network.input_height, network.input_width, true);
    bool all = true;
    for (const TensorSpec& spec : tensor_specs(other)) {
      const LayerKind kind = other.layers[spec.layer].kind;
      const auto at = found.find(spec.name);
      if (kind == LayerKind::dense) continue;
      all = all && at != found.end() && at->second.shape() == spec.shape;
    }
    if (all) return " (these are weights of " + name + ": use --backbone " + name + ")";
  }
  return " (for a file that holds only the first blocks, cut there with --until)";
}

Weights load_h5(const fs::path& path, const Network& network) {
  const Network full = is_mini(network.backbone)
                           ? backbone(network.backbone, network.input_height, network.input_width)
                           : backbone(network.backbone, network.input_height, network.input_width,
                                      /*include_top=*/true);
  Weights weights;
  weights.tensors = read_keras_h5(path, full);
  check_tensors(full, network.layers.size(), weights.tensors, printable(path),
                mismatch_hint(weights.tensors, full));
  weights.preprocessing = keras_preprocessing();
  weights.provenance.md5 = md5_of_file(path);
  const PublishedFile* published = find_published_md5(weights.provenance.md5);
  weights.provenance.source =
      published != nullptr ? published->source : "Keras weights file " + printable(path.filename());
  weights.provenance.licence =
      published != nullptr ? published->licence : "not recorded: see where the file came from";
  return weights;
}

/// `name`: of the file, for messages.
Weights from_graft(SafetensorsFile file, const Network& network, const std::string& name) {
  const ModelMetadata metadata = parse_metadata(file.metadata, name);
  if (metadata.network.backbone != network.backbone)
    fail(ErrorKind::input, "{}: a model on {}, not on {}; use --backbone {}", name,
         metadata.network.backbone, network.backbone, metadata.network.backbone);
  Weights weights;
  for (const Layer& layer : metadata.network.layers)
    if (layer.in_head) {  // the head is new in every run
      const std::string prefix = layer.name + ".";
      std::erase_if(file.tensors, [&](const auto& item) { return item.first.starts_with(prefix); });
    }
  weights.tensors = std::move(file.tensors);
  const Network full = backbone(network.backbone, network.input_height, network.input_width);
  check_tensors(full, network.layers.size(), weights.tensors, name, "");
  weights.preprocessing = metadata.preprocessing;
  weights.provenance = metadata.provenance;
  return weights;
}

/// Files may hold more than the network needs.
void keep_needed(TensorMap& tensors, const Network& network) {
  TensorMap needed;
  for (const TensorSpec& spec : tensor_specs(network)) needed.insert(tensors.extract(spec.name));
  tensors = std::move(needed);
}

}  // namespace

std::string default_weights(std::string_view backbone) {
  return builtin_weights(backbone).empty() ? "imagenet" : "builtin";
}

TensorMap random_tensors(const Network& network, size_t begin, size_t end, uint64_t seed) {
  TensorMap tensors;
  for (const TensorSpec& spec : tensor_specs(network, begin, end)) {
    std::vector<float> values(static_cast<size_t>(spec.elements()), 0.0F);
    const bool is_matrix = spec.shape.size() > 1;
    const bool is_norm = network.layers[spec.layer].kind == LayerKind::batchnorm;
    if (is_matrix) {
      int64_t fan_in = 1;
      for (size_t d = 1; d < spec.shape.size(); ++d) fan_in *= spec.shape[d];
      // The last layer has no ReLU behind it, and logits should start small.
      const double gain = spec.layer + 1 == network.layers.size() ? 1.0 : 2.0;
      const double deviation = std::sqrt(gain / static_cast<double>(fan_in));
      // Seeded by name, so that a layer's values do not depend on what stands before it.
      const std::string digits = content_hash(std::as_bytes(std::span(spec.name))).substr(0, 16);
      Random random(seed, std::strtoull(digits.c_str(), nullptr, 16));
      for (float& value : values) value = static_cast<float>(random.normal() * deviation);
    } else if (is_norm && (spec.name.ends_with(".weight") || spec.name.ends_with(".running_var"))) {
      std::fill(values.begin(), values.end(), 1.0F);
    }
    tensors.emplace(spec.name, Tensor(spec.shape, std::move(values)));
  }
  return tensors;
}

Weights load_weights(const WeightsRequest& request, const Network& network) {
  if (request.weights == "none") {
    return {random_tensors(network, 0, network.layers.size(), request.seed),
            scratch_preprocessing(),
            {fmt::format("random (He normal, seed {})", request.seed), "", "none needed"}};
  }
  fs::path path = request.weights;
  Weights weights;
  if (request.weights == "builtin") {
    const std::span<const std::byte> bytes = builtin_weights(request.backbone);
    if (bytes.empty())
      fail(ErrorKind::usage, "--weights builtin: {} has no weights inside graft; only vgg-mini has",
           request.backbone);
    path = request.backbone + ".safetensors";
    weights = from_graft(read_safetensors(bytes, path.string()), network, path.string());
    keep_needed(weights.tensors, network);
    return weights;
  }
  if (request.weights == "imagenet") path = find_imagenet(request, ends_in_top(network));
  std::error_code error;
  if (!fs::exists(path, error))
    fail(ErrorKind::input,
         "--weights: {}: no such file; give a Keras .h5 file, a Graft model, "
         "'imagenet', 'builtin' or 'none'",
         printable(path));
  if (!fs::is_regular_file(path, error))
    fail(ErrorKind::input,
         "--weights: {}: not a regular file; give a Keras .h5 file or a Graft "
         "model file",
         printable(path));
  if (path.extension() == ".safetensors") {
    weights = from_graft(read_safetensors(path), network, printable(path));
    weights.provenance.source += " (by way of " + printable(path.filename()) + ")";
  } else {
    weights = load_h5(path, network);
  }
  keep_needed(weights.tensors, network);
  check_finite(weights.tensors, printable(path));
  return weights;
}

}  // namespace graft
