// What a file of weights is: inspect_weights() of graft/weights.h.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "graft/weights.h"
#include "weights/file_kind.h"
#include "weights/h5_process.h"
#include "weights/keras_classifier.h"
#include "weights/keras_h5.h"
#include "weights/load.h"
#include "weights/match.h"
#include "weights/metadata.h"
#include "weights/onnx_classifier.h"
#include "weights/onnx_file.h"
#include "weights/onnx_weights.h"
#include "weights/own_export.h"
#include "weights/pixel_family.h"
#include "weights/registry.h"
#include "weights/safetensors.h"
#include "weights/torch_classifier.h"
#include "weights/torch_file.h"
#include "weights/torch_weights.h"

namespace graft {
namespace {

/// A size that every backbone takes. Convolutions do not depend on it.
constexpr int kSide = 224;

std::string types_of(const StoredTensors& tensors) {
  std::set<std::string> types;
  for (const auto& [name, tensor] : tensors)
    if (tensor.type != ElementType::other) types.emplace(to_string(tensor.type));
  return fmt::format("{}", fmt::join(types, ", "));
}

/// Collects what is wrong with values.
class Damage {
 public:
  explicit Damage(std::vector<std::string>& out) : out_(out) {}
  ~Damage() {
    if (count_ > kMostLines) out_.push_back(fmt::format("… and {} more", count_ - kMostLines));
  }
  Damage(const Damage&) = delete;
  Damage& operator=(const Damage&) = delete;

  void add(const std::string& line) {
    if (++count_ <= kMostLines) out_.push_back(line);
  }
  void look(const std::string& name, std::span<const float> values) {
    const auto odd = std::count_if(values.begin(), values.end(),
                                   [](float value) { return !std::isfinite(value); });
    if (odd > 0)
      add(fmt::format("{}: {} of {} values are NaN or infinite", printable(name), odd,
                      values.size()));
  }

 private:
  static constexpr size_t kMostLines = 10;
  std::vector<std::string>& out_;
  size_t count_ = 0;
};

void look_at_values(const StoredTensors& tensors, WeightsInspection& out) {
  Damage damage(out.damage);
  for (const auto& [name, tensor] : tensors) {
    if (tensor.type == ElementType::other) continue;
    try {
      damage.look(name, tensor.read().values());
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input) throw;
      damage.add(error.what());
    }
  }
}

/// The backbones that a file fits, or how it differs from the nearest.
void match(const ShapesFor& shapes, WeightsInspection& out) {
  for (const Fit& fit : fitting_backbones(shapes, kSide, kSide))
    out.fits.push_back({fit.backbone, fit.last_layer, fit.whole});
  std::stable_sort(out.fits.begin(), out.fits.end(),
                   [](const auto& a, const auto& b) { return a.whole && !b.whole; });
  if (!out.fits.empty() && out.fits.front().whole) out.fits.resize(1);
  if (!out.fits.empty()) return;
  for (const std::string& name : backbone_names()) {
    const Network network = backbone(name, kSide, kSide);
    std::vector<std::string> rows =
        tensor_differences(network, network.layers.size(), shapes(network));
    if (out.nearest.empty() || rows.size() < out.differences.size()) {
      out.nearest = name;
      out.differences = std::move(rows);
    }
  }
}

/// The backbone to look at the rest of the file with.
Network best(const WeightsInspection& out) {
  return backbone(out.fits.empty() ? out.nearest : out.fits.front().backbone, kSide, kSide,
                  /*include_top=*/true);
}

void take_classifier(const ForeignClassifier& whole, int height, int width,
                     WeightsInspection& out) {
  out.convertible = true;
  out.classes = whole.classes();
  out.input_height = height;
  out.input_width = width;
  out.preprocessing_unknown = !whole.preprocessing;
  out.preprocessing = whole.preprocessing.value_or(Preprocessing{});
  if (whole.resampling) out.preprocessing.resampling = *whole.resampling;
}

void add_note(WeightsInspection& out, const std::string& note) {
  out.note += (out.note.empty() ? "" : "; ") + note;
}

/// `name`: the file's, which the error may begin with.
void note_why_not_whole(const Error& error, const std::string& name, WeightsInspection& out) {
  if (out.left_out.empty()) return;
  std::string why = error.what();
  const std::string prefix = name + ": ";
  if (why.starts_with(prefix)) why.erase(0, prefix.size());
  add_note(out, "its classifier cannot be taken whole: " + why);
}

void inspect_torch(const StoredTensors& tensors, std::span<const std::string> order,
                   const std::string& name, WeightsInspection& out) {
  const TorchMatcher matcher(name, tensors);
  out.family = matcher.names() == TorchNames::timm ? "timm" : "torchvision";
  out.types = types_of(tensors);
  match(matcher.convolutions(), out);
  out.classes = matcher.classes();
  out.left_out = matcher.left_out(best(out));
  out.preprocessing = torchvision_preprocessing();
  look_at_values(tensors, out);
  if (out.fits.empty() || (out.left_out.empty() && !out.classes)) return;
  try {
    const ForeignGraph graph = read_torch_classifier(tensors, order, name, "");
    take_classifier(assemble(graph), graph.height, graph.width, out);
    for (const std::string& note : graph.notes) add_note(out, note);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    note_why_not_whole(error, name, out);
  }
}

/// What a classifier's weights alone do not say.
void say_what_weights_need(const std::shared_ptr<H5File>& file, WeightsInspection& out) {
  try {
    if (!out.left_out.empty()) read_keras_weights(file, "");
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    note_why_not_whole(error, file->name(), out);
  }
}

/// What the configuration of a whole model says; a file without one, or with layers that Graft has
/// not, stays what its weights say.
void inspect_keras_classifier(const std::shared_ptr<H5File>& file, WeightsInspection& out) {
  try {
    const std::optional<ForeignGraph> graph = read_keras_classifier(file);
    if (!graph) {
      // Of a classifier's weights alone nobody knows it; a backbone's, and those of a published
      // classifier, are taken for Keras' own.
      out.preprocessing_unknown = !out.left_out.empty() && !out.classes;
      say_what_weights_need(file, out);
      return;
    }
    take_classifier(assemble(*graph), graph->height, graph->width, out);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    note_why_not_whole(error, file->name(), out);
    try {
      const KerasFront front = front_in(*file);
      if (front.preprocessing) out.preprocessing = *front.preprocessing;
      if (front.resampling) out.preprocessing.resampling = *front.resampling;
      out.preprocessing_unknown = !front.problem.empty();
    } catch (const Error& inner) {  // then it is not said
      if (inner.kind() == ErrorKind::interrupted) throw;
    }
  }
}

/// Whether a backbone's pixels are taken for those of Keras' own weights, which it does not have.
bool assumes_pixels(H5File& file, const Network& network) {
  constexpr size_t kFirst = 2;  // input and first convolution
  try {
    const KerasWeights first = read_keras_h5(file, network, kFirst);
    return !first.front.preprocessing && !begins_as_imagenet(first.tensors);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    return false;  // damaged, which is said elsewhere
  }
}

void inspect_keras(const std::shared_ptr<H5File>& file, WeightsInspection& out) {
  out.family = "keras";
  match(
      [&](const Network& network) {
        ShapeMap shapes;
        // The last pooling that fits decides, so that first blocks are found by their order too.
        for (size_t end = network.layers.size(); end > 1 && shapes.empty(); --end)
          if (network.layers[end - 1].kind == LayerKind::maxpool)
            shapes = keras_contents(*file, network, end).shapes;
        std::erase_if(shapes, [](const auto& item) { return !is_backbone_tensor(item.first); });
        return shapes;
      },
      out);
  out.classes = keras_top_classes(*file);
  const Network network = best(out);
  const std::string until = out.fits.empty() ? network.layers.at(1).name : out.fits.front().until;
  const KerasContents contents = keras_contents(*file, network, *find_layer(network, until) + 1);
  if (contents.shapes.empty())
    fail(
        ErrorKind::input,
        "{}: a Keras file without a VGG: no layers in it are named block1_conv1 and so on, or have "
        "the shapes of one's; Graft takes VGG11 to VGG19 and vgg-mini alone",
        file->name());
  out.by_order = contents.by_order;
  out.left_out = contents.left_out;
  std::set<std::string> types;
  for (const H5Weight& weight : file->weights())
    if (weight.bits > 0)
      types.insert(fmt::format("{}float{}", weight.bfloat16 ? "b" : "", weight.bits));
  out.types = fmt::format("{}", fmt::join(types, ", "));
  out.preprocessing = keras_preprocessing();
  inspect_keras_classifier(file, out);
  if (!out.convertible && !out.preprocessing_unknown && assumes_pixels(*file, network))
    add_note(out,
             "it does not say how pixels were prepared, and is taken for prepared as Keras' "
             "own weights are; `preprocessing` says otherwise");
  Damage damage(out.damage);
  read_all_weights(*file, [&](const std::string& layer, const std::string& problem,
                              std::span<const float> values) {
    if (problem.empty())
      damage.look(layer, values);
    else if (problem.find("not floating-point") == std::string::npos)
      damage.add(problem);
  });
}

void inspect_graft(const fs::path& path, const StoredSafetensors& file, WeightsInspection& out) {
  const ModelMetadata metadata = parse_metadata(file.metadata, printable(path));
  const Network& network = metadata.network;
  out.family = "graft";
  out.types = types_of(file.tensors);
  std::string last;
  for (const Layer& layer : network.layers)
    if (!layer.in_head) last = layer.name;
  const Network whole = backbone(network.backbone, kSide, kSide);
  out.fits.push_back({network.backbone, last, last == whole.layers.back().name});
  if (!metadata.classes.empty()) out.classes = static_cast<int>(metadata.classes.size());
  out.labels = metadata.classes;
  out.preprocessing = metadata.preprocessing;
  out.input_height = network.input_height;
  out.input_width = network.input_width;
  look_at_values(file.tensors, out);
  out.source = metadata.provenance.source;
  out.licence = metadata.provenance.licence;
}

void inspect_onnx(const std::shared_ptr<const OnnxFile>& file, WeightsInspection& out) {
  const OnnxMatcher matcher(follow(file));
  const ForeignGraph& graph = matcher.layers().graph;
  out.family = "onnx";
  out.types = matcher.types();
  out.by_order = true;
  match(matcher.convolutions(), out);
  out.classes = matcher.classes();
  out.left_out = matcher.left_out(best(out));
  look_at_values(matcher.tensors(), out);
  out.input_height = graph.height;
  out.input_width = graph.width;
  const std::optional<Preprocessing> told = recognised(matcher.layers().input);
  out.preprocessing_unknown = !told;
  out.preprocessing = told.value_or(Preprocessing{});
  out.crop_unknown = told && has_torch_colours(*told);
  if (out.left_out.empty()) return;
  try {
    take_classifier(read_onnx_classifier(file), graph.height, graph.width, out);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    note_why_not_whole(error, file->name(), out);
  }
}

std::string format_name(FileKind::Format format) {
  switch (format) {
    case FileKind::hdf5:
      return "Keras HDF5 (.h5)";
    case FileKind::keras:
      return "Keras (.keras)";
    case FileKind::torch:
      return "PyTorch file (.pth)";
    case FileKind::onnx:
      return "ONNX";
    default:
      return "safetensors";
  }
}

}  // namespace

WeightsInspection inspect_weights(const fs::path& named) {
  const fs::path path = weights_file(named);
  const std::string name = printable(path);
  const FileKind kind = require_weights_file(path);
  WeightsInspection out;
  out.format = format_name(kind.format);
  // Where it is an export of Graft's own, that tells all; else what the format's reader finds.
  const auto look = [&](const OwnExport& own, const std::function<void()>& otherwise) {
    if (!own.model) {
      out.note = own.note;
      return otherwise();
    }
    inspect_graft(path, *own.model, out);
    out.convertible = !out.labels.empty();
  };
  switch (kind.format) {
    case FileKind::hdf5:
    case FileKind::keras: {
      const auto file = std::make_shared<H5File>(path);
      look(own_export(file, path), [&] { inspect_keras(file, out); });
      break;
    }
    case FileKind::torch: {
      const TorchFile file = read_torch(path);
      look(own_export(file, path), [&] { inspect_torch(file.tensors, file.order, name, out); });
      break;
    }
    case FileKind::onnx: {
      const std::shared_ptr<const OnnxFile> file = OnnxFile::open(path);
      look(own_export(file, path), [&] { inspect_onnx(file, out); });
      break;
    }
    default: {
      const StoredSafetensors file = open_safetensors(path);
      if (is_graft(file.metadata))
        inspect_graft(path, file, out);
      else
        look(own_export(file, path), [&] { inspect_torch(file.tensors, {}, name, out); });
    }
  }
  std::error_code error;
  out.bytes = fs::file_size(path, error);
  out.md5 = md5_of_file(path);
  if (out.source.empty()) {
    const Provenance provenance = provenance_of(path, out.family, out.md5);
    out.source = provenance.source;
    out.licence = provenance.licence;
    if ((out.family == "torchvision" || out.family == "timm") &&
        recognise_published(path, out.md5) == nullptr)
      add_note(out,
               "it does not say how pixels were prepared, and is taken for prepared as "
               "torchvision's own weights are; `preprocessing` says otherwise");
  }
  return out;
}

}  // namespace graft
