#include "weights/load.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/random.h"
#include "weights/builtin.h"
#include "weights/download.h"
#include "weights/file_kind.h"
#include "weights/h5_process.h"
#include "weights/keras_h5.h"
#include "weights/keras_layout.h"
#include "weights/metadata.h"
#include "weights/onnx_file.h"
#include "weights/onnx_weights.h"
#include "weights/own_export.h"
#include "weights/pixel_family.h"
#include "weights/registry.h"
#include "weights/safetensors.h"
#include "weights/torch_file.h"
#include "weights/torch_weights.h"

namespace graft {
namespace {

constexpr int kImageNetClasses = 1000;
constexpr const char* kNoLicence = "not recorded: see where the file came from";

/// A family of Graft's own: it has no published files and no top.
bool is_mini(std::string_view backbone) { return backbone.starts_with("vgg-mini"); }

bool ends_in_top(const Network& network) {
  // Layers of the top are the flat ones of a backbone.
  return output_shapes(network).back().flat;
}

/// A file to read, and its MD5 where that is known already.
struct Source {
  fs::path path;
  std::string md5;
};

/// `family` as for find_published().
const PublishedFile& need_published(const std::string& backbone, bool needs_top,
                                    std::string_view family) {
  const PublishedFile* file = find_published(backbone, needs_top, family);
  if (file == nullptr)
    fail(ErrorKind::input,
         "no ImageNet weights are published for {}{}; use {}`weights` none, `weights` FILE, or "
         "another backbone ('graft weights list')",
         backbone, family.empty() ? "" : fmt::format(" by {}", family),
         builtin_weights(backbone).empty() ? "" : "`weights` builtin, ");
  return *file;
}

std::span<const std::byte> need_builtin(const std::string& backbone) {
  const std::span<const std::byte> bytes = builtin_weights(backbone);
  if (bytes.empty())
    fail(ErrorKind::usage, "`weights` builtin: {} has no weights inside graft; only vgg-mini has",
         backbone);
  return bytes;
}

Source find_imagenet(const WeightsRequest& request, std::string_view family, bool needs_top) {
  const PublishedFile& file = need_published(request.backbone, needs_top, family);
  std::error_code error;
  // The full file has everything that the smaller one has.
  for (const PublishedFile* candidate :
       {&file, find_published(request.backbone, true, file.family)}) {
    const fs::path path = cached_path(*candidate, request.cache);
    if (!fs::exists(path, error)) continue;
    check_published(*candidate, path);
    return {path, candidate->md5};
  }
  if (!request.download)
    fail(ErrorKind::input,
         "{} is not in the cache; run 'graft weights download {}{}', or use `backbone` vgg-mini, "
         "which needs no download",
         file.file, request.backbone, family.empty() ? "" : fmt::format(" --family {}", family));
  try {
    fetch_published(file, request.cache, request.context);
  } catch (const Error& failure) {
    if (failure.kind() == ErrorKind::interrupted) throw;
    fail(failure.kind(), "{}; or use `backbone` vgg-mini, which needs no download", failure.what());
  }
  const fs::path path = cached_path(file, request.cache);
  check_published(file, path);  // remembers it for the next time
  return {path, file.md5};
}

/// Ends in "and 3 more" where there are many.
std::string some_of(std::vector<std::string> names) {
  constexpr size_t kMost = 6;
  const size_t more = names.size() > kMost ? names.size() - kMost : 0;
  names.resize(names.size() - more);
  return fmt::format("{}{}", fmt::join(names, ", "),
                     more > 0 ? fmt::format(" and {} more", more) : "");
}

void add_note(Weights& weights, const std::string& note) {
  weights.note += (weights.note.empty() ? "" : "; ") + note;
}

void name_note(Weights& weights, const fs::path& path) {
  if (!weights.note.empty()) weights.note = printable(path) + ": " + weights.note;
}

/// The whole backbone that a network is cut from, with a top of as many classes.
Network whole_backbone(const Network& network) {
  Network full = is_mini(network.backbone)
                     ? backbone(network.backbone, network.input_height, network.input_width)
                     : backbone(network.backbone, network.input_height, network.input_width,
                                /*include_top=*/true);
  // The number of classes is the file's (top_classes).
  if (network.layers.back().name == full.layers.back().name)
    full.layers.back().outputs = network.layers.back().outputs;
  return full;
}

Weights load_h5(const Source& source, H5File& file, const Network& network, bool asked) {
  const fs::path& path = source.path;
  const Network full = whole_backbone(network);
  Weights weights;
  KerasWeights found = read_keras_h5(file, full, network.layers.size());
  weights.tensors = std::move(found.tensors);
  if (found.by_order && file.description().empty())
    require_known_order(file.weights(), file.name());
  if (!found.left_out.empty() || found.by_order)
    weights.note = fmt::format(
        "took the layers of {}{}{}", network.backbone,
        found.by_order ? ", which bear other names, by their order and shapes" : "",
        found.left_out.empty() ? "" : " and left out " + some_of(std::move(found.left_out)));
  if (!asked && !found.front.problem.empty())
    fail(ErrorKind::usage,
         "{}: what its model does with pixels is not followed ({}); say how they are prepared with "
         "`preprocessing` {}",
         printable(path), found.front.problem, kPixelFamilies);
  weights.preprocessing = found.front.preprocessing.value_or(keras_preprocessing());
  if (found.front.resampling) weights.preprocessing.resampling = *found.front.resampling;
  weights.provenance =
      provenance_of(path, "keras", source.md5.empty() ? md5_of_file(path) : source.md5);
  const bool published = weights.provenance.licence != kNoLicence;
  const bool known = published || begins_as_imagenet(weights.tensors);
  if (known && !published) weights.provenance.source += kBeginsAsImageNet;
  if (!asked && (!weights.note.empty() || (!found.front.preprocessing && !known)))
    add_note(weights, fmt::format("pixels are prepared as {} (`preprocessing` says otherwise)",
                                  found.front.preprocessing ? "the model in it does"
                                                            : "for Keras' own weights"));
  name_note(weights, path);
  return weights;
}

/// torchvision's and timm's names, in a .pth or a safetensors file.
Weights load_torch(const fs::path& path, const StoredTensors& tensors, const Network& network,
                   bool asked) {
  const Network full = whole_backbone(network);
  const TorchMatcher matcher(printable(path), tensors);
  Weights weights;
  weights.tensors = matcher.read(full, network.layers.size());
  if (std::vector<std::string> rest = matcher.left_out(full); !rest.empty())
    weights.note = fmt::format("took the layers of {} and left out {}", network.backbone,
                               some_of(std::move(rest)));
  weights.preprocessing = torchvision_preprocessing();
  weights.provenance = provenance_of(
      path, matcher.names() == TorchNames::timm ? "timm" : "torchvision", md5_of_file(path));
  if (!asked && (!weights.note.empty() || weights.provenance.licence == kNoLicence))
    add_note(weights,
             "pixels are prepared as for torchvision's own weights (`preprocessing` says "
             "otherwise)");
  name_note(weights, path);
  return weights;
}

/// `name`: of the file, for messages.
Weights from_graft(SafetensorsFile file, const Network& network, const std::string& name) {
  const ModelMetadata metadata = parse_metadata(file.metadata, name);
  if (metadata.network.backbone != network.backbone)
    fail(ErrorKind::input, "{}: a model on {}, not on {}; use `backbone` {}", name,
         metadata.network.backbone, network.backbone, metadata.network.backbone);
  if (ends_in_top(network))
    fail(ErrorKind::usage,
         "`include-top`: {} has the head that it was trained with, not {}'s own; leave the option "
         "out",
         name, network.backbone);
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
  weights.provenance = backbone_provenance(metadata);
  return weights;
}

/// A model of Graft's, or an export of one.
Weights from_own(const StoredSafetensors& own, const Network& network, const fs::path& path) {
  SafetensorsFile read;
  read.metadata = own.metadata;
  // The head's are not needed.
  for (const TensorSpec& spec : tensor_specs(network)) {
    const auto at = own.tensors.find(spec.name);
    if (at != own.tensors.end()) read.tensors.emplace(spec.name, at->second.read());
  }
  Weights weights = from_graft(std::move(read), network, printable(path));
  weights.provenance.source += " (by way of " + printable(path.filename()) + ")";
  return weights;
}

/// An ONNX graph of another program's.
Weights load_onnx(const fs::path& path, const std::shared_ptr<const OnnxFile>& file,
                  const Network& network, PixelFamily asked) {
  const std::string name = printable(path);
  const Network full = whole_backbone(network);
  const OnnxMatcher matcher(follow(file));
  Weights weights;
  weights.preprocessing = onnx_preprocessing(matcher.layers(), asked);
  weights.tensors = matcher.read(full, network.layers.size());
  std::vector<std::string> rest = matcher.left_out(full);
  if (ends_in_top(network)) rest.clear();
  weights.note =
      fmt::format("{}: took the layers of {}, by their order and shapes{}", name, network.backbone,
                  rest.empty() ? "" : ", and left out " + some_of(std::move(rest)));
  weights.provenance = provenance_of(path, "onnx", md5_of_file(path));
  return weights;
}

/// Files may hold more than the network needs.
void keep_needed(TensorMap& tensors, const Network& network) {
  TensorMap needed;
  for (const TensorSpec& spec : tensor_specs(network)) needed.insert(tensors.extract(spec.name));
  tensors = std::move(needed);
}

}  // namespace

bool begins_as_imagenet(const TensorMap& tensors) {
  // block1_conv1 of VGG16 and VGG19: the first numbers of kernel and bias.
  static constexpr std::array<std::array<float, 6>, 2> kFirst = {{
      {0.42947057F, 0.373467F, -0.061360113F, 0.73429835F, 0.093403675F, 0.06775674F},
      {0.34119523F, 0.33999205F, -0.04484424F, 0.7301776F, 0.06493629F, 0.03428847F},
  }};
  const auto kernel = tensors.find("block1_conv1.weight");
  const auto bias = tensors.find("block1_conv1.bias");
  if (kernel == tensors.end() || bias == tensors.end()) return false;
  const std::span<const float> k = kernel->second.values();
  const std::span<const float> b = bias->second.values();
  // As float16 too.
  const auto close = [](float x, float y) { return std::abs(x - y) <= 1e-3F * std::abs(y); };
  return k.size() >= 3 && b.size() >= 3 &&
         std::any_of(kFirst.begin(), kFirst.end(), [&](const auto& first) {
           return std::equal(k.begin(), k.begin() + 3, first.begin(), close) &&
                  std::equal(b.begin(), b.begin() + 3, first.begin() + 3, close);
         });
}

fs::path weights_file(const fs::path& named) {
  std::error_code error;
  const fs::path model = named / "model.safetensors";
  return fs::is_directory(named, error) && fs::exists(model, error) ? model : named;
}

bool is_graft(const std::map<std::string, std::string>& metadata) {
  return metadata.contains("graft_format");
}

FileKind require_weights_file(const fs::path& file) {
  FileKind kind = file_kind(file);
  if (kind.format == FileKind::other)
    fail(ErrorKind::input, "{}: this is {}; {}", printable(file), kind.what, kind.advice);
  if (kind.format == FileKind::unknown && file.extension() != ".safetensors")
    fail(ErrorKind::input,
         "{}: neither a Keras .h5 file (it does not begin as HDF5 does), nor a PyTorch .pth, nor "
         "safetensors, nor ONNX; is it damaged, or of another program?",
         printable(file));
  return kind;
}

Provenance provenance_of(const fs::path& path, const std::string& family, const std::string& md5) {
  if (const PublishedFile* published = recognise_published(path, md5))
    return {published->source, md5, published->licence};
  const std::string of = family == "keras" ? "Keras" : family == "onnx" ? "ONNX" : family;
  return {fmt::format("{} weights file {}", of, printable(path.filename())), md5, kNoLicence};
}

std::string default_weights(std::string_view backbone) {
  return builtin_weights(backbone).empty() ? "imagenet" : "builtin";
}

TensorMap random_tensors(const Network& network, size_t begin, size_t end, uint64_t seed,
                         Initializer initializer) {
  TensorMap tensors;
  for (const TensorSpec& spec : tensor_specs(network, begin, end)) {
    std::vector<float> values(static_cast<size_t>(spec.elements()), 0.0F);
    const bool is_matrix = spec.shape.size() > 1;
    const bool is_norm = network.layers[spec.layer].kind == LayerKind::batchnorm;
    if (is_matrix) {
      int64_t field = 1;  // of a convolution: positions of its window
      for (size_t d = 2; d < spec.shape.size(); ++d) field *= spec.shape[d];
      const int64_t fan_in = spec.shape[1] * field;
      const int64_t fan_out = spec.shape[0] * field;
      // The last layer has no ReLU behind it, and logits should start small.
      const double gain = spec.layer + 1 == network.layers.size() ? 1.0 : 2.0;
      const double deviation = std::sqrt(gain / static_cast<double>(fan_in));
      // Seeded by name, so that a layer's values do not depend on what stands before it.
      const std::string digits = content_hash(std::as_bytes(std::span(spec.name))).substr(0, 16);
      Random random(seed, std::strtoull(digits.c_str(), nullptr, 16));
      const double limit = std::sqrt(6.0 / static_cast<double>(fan_in + fan_out));
      for (float& value : values)
        value = static_cast<float>(initializer == Initializer::he_normal
                                       ? random.normal() * deviation
                                       : random.uniform(-limit, limit));
    } else if (is_norm && (spec.name.ends_with(".weight") || spec.name.ends_with(".running_var"))) {
      std::fill(values.begin(), values.end(), 1.0F);
    }
    tensors.emplace(spec.name, Tensor(spec.shape, std::move(values)));
  }
  return tensors;
}

int top_classes(const std::string& weights) {
  if (published_family(weights) || weights == "builtin" || weights == "none")
    return kImageNetClasses;
  const fs::path path = weights_file(weights);
  std::optional<int> classes;
  switch (file_kind(path).format) {
    case FileKind::hdf5:
    case FileKind::keras:
      classes = keras_top_classes(H5File(path));
      break;
    case FileKind::torch:
      classes = TorchMatcher(printable(path), read_torch(path).tensors).classes();
      break;
    case FileKind::onnx:
      classes = OnnxMatcher(follow(OnnxFile::open(path))).classes();
      break;
    case FileKind::safetensors:
      if (const StoredSafetensors file = open_safetensors(path); !is_graft(file.metadata))
        classes = TorchMatcher(printable(path), file.tensors).classes();
      break;
    default:
      break;
  }
  return classes.value_or(kImageNetClasses);
}

namespace {

/// A model of Graft's says which backbone it is on; of other files that is seen when they are read.
void require_backbone(const fs::path& path, std::string_view backbone) {
  if (require_weights_file(path).format != FileKind::safetensors) return;
  const StoredSafetensors file = open_safetensors(path);
  if (!is_graft(file.metadata)) return;
  const std::string name = printable(path);
  const std::string on = parse_metadata(file.metadata, name).network.backbone;
  if (on != backbone)
    fail(ErrorKind::input, "{}: a model on {}, not on {}; use `backbone` {}", name, on, backbone,
         on);
}

}  // namespace

void require_weights(const std::string& weights, std::string_view backbone) {
  if (weights == "none") return;
  if (const auto family = published_family(weights))
    need_published(std::string(backbone), false, *family);
  else if (weights == "builtin")
    need_builtin(std::string(backbone));
  else
    require_backbone(weights_file(weights), backbone);
}

namespace {

/// Weights that come with a record of their own are not asked about it.
void choose_preprocessing(PixelFamily asked, bool recorded, const std::string& name,
                          Weights& weights) {
  if (asked == PixelFamily::of_weights) return;
  if (recorded)
    fail(ErrorKind::usage,
         "`preprocessing`: {} says itself how pixels are prepared for it; leave the option out",
         name);
  weights.preprocessing = preprocessing_of(asked);
}

Weights load_as_recorded(const WeightsRequest& request, const Network& network) {
  Weights weights;
  const std::optional<std::string_view> family = published_family(request.weights);
  if (request.weights == "none" || request.weights == "builtin" || family)
    choose_preprocessing(request.preprocessing, /*recorded=*/true, "`weights` " + request.weights,
                         weights);
  if (request.weights == "none") {
    return {random_tensors(network, 0, network.layers.size(), request.seed),
            scratch_preprocessing(),
            {fmt::format("random (He normal, seed {})", request.seed), "", "none needed"},
            ""};
  }
  if (request.weights == "builtin") {
    const std::span<const std::byte> bytes = need_builtin(request.backbone);
    const std::string name = request.backbone + ".safetensors";
    weights = from_graft(read_safetensors(bytes, name), network, name);
    keep_needed(weights.tensors, network);
    return weights;
  }
  const Source file = family ? find_imagenet(request, *family, ends_in_top(network))
                             : Source{weights_file(request.weights), ""};
  const std::string name = printable(file.path);
  const FileKind kind = require_weights_file(file.path);
  const bool asked = request.preprocessing != PixelFamily::of_weights;
  // Of a published file it is known that it is no export.
  OwnExport own;
  switch (kind.format) {
    case FileKind::hdf5:
    case FileKind::keras: {
      const auto open = std::make_shared<H5File>(file.path, request.context.stop);
      if (!family) own = own_export(open, file.path);
      if (!own.model) weights = load_h5(file, *open, network, asked);
      break;
    }
    case FileKind::torch: {
      const TorchFile open = read_torch(file.path);
      if (!family) own = own_export(open, file.path);
      if (!own.model) weights = load_torch(file.path, open.tensors, network, asked);
      break;
    }
    case FileKind::onnx: {
      const std::shared_ptr<const OnnxFile> open = OnnxFile::open(file.path);
      own = own_export(open, file.path);
      if (!own.model) weights = load_onnx(file.path, open, network, request.preprocessing);
      break;
    }
    default: {
      const StoredSafetensors open = open_safetensors(file.path);
      own = is_graft(open.metadata) ? OwnExport{open} : own_export(open, file.path);
      if (!own.model) weights = load_torch(file.path, open.tensors, network, asked);
    }
  }
  bool recorded = own.model.has_value();
  if (own.model) weights = from_own(*own.model, network, file.path);
  if (!own.note.empty())
    weights.note =
        fmt::format("{}: {}{}{}", name, own.note, weights.note.empty() ? "" : "; ", weights.note);
  // Published files are known to have their family's.
  recorded = recorded || weights.provenance.licence != kNoLicence;
  if (recorded || kind.format != FileKind::onnx)  // else it has been asked for
    choose_preprocessing(request.preprocessing, recorded, name, weights);
  keep_needed(weights.tensors, network);
  check_finite(weights.tensors, name);
  return weights;
}

}  // namespace

Weights load_weights(const WeightsRequest& request, const Network& network) {
  Weights weights = load_as_recorded(request, network);
  if (request.resampling) weights.preprocessing.resampling = *request.resampling;
  return weights;
}

}  // namespace graft
