#include "model/import.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "dataset/labels.h"
#include "model/backbone_file.h"
#include "weights/foreign_file.h"
#include "weights/load.h"
#include "weights/metadata.h"
#include "weights/pixel_family.h"
#include "weights/registry.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

/// What a file does not say and nobody was told: all of it in one message.
class Questions {
 public:
  /// `what` follows "does not say".
  void add(std::string what) { open_.push_back(std::move(what)); }
  /// Throws Error(usage) where there are any.
  void require_none(const std::string& file) const {
    if (!open_.empty())
      fail(ErrorKind::usage, "{}: the file does not say {}", file, fmt::join(open_, "; nor "));
  }

 private:
  std::vector<std::string> open_;
};

std::vector<std::string> labels_of(const ForeignClassifier& found,
                                   const std::vector<std::string>& asked, const std::string& name,
                                   Questions& questions) {
  if (asked.empty()) {
    if (found.labels.empty())
      questions.add(
          fmt::format("the names of its {} classes, which `classes` A,B,… does, in the order of "
                      "its outputs (Keras' flow_from_directory and image_dataset_from_directory "
                      "order the folders' names alphabetically)",
                      found.classes()));
    return found.labels;
  }
  if (static_cast<int>(asked.size()) != found.classes())
    fail(ErrorKind::usage, "`classes`: {} names, and {} has {} classes", asked.size(), name,
         found.classes());
  std::vector<std::string> out;
  for (const std::string& label : asked) {
    require_label(label, "`classes`");
    out.push_back(canonical_label(label));
  }
  require_distinct(out, "`classes`");
  return out;
}

/// Of a model of Graft's, or an export of one.
void require_nothing_said(const ClassifierImport& import, const std::string& name) {
  if (!import.classes.empty() || import.preprocessing != PixelFamily::of_weights ||
      !import.head.empty() || import.input != InputSize())
    fail(ErrorKind::usage,
         "{}: a model of Graft's, which says its classes, its head and its preprocessing itself; "
         "leave `classes`, `head`, `input-size` and `preprocessing` out",
         name);
}

/// Whether size and pixels are those that torchvision's and timm's own networks have, so that they
/// are not asked for.
bool is_assumed(const ForeignClassifier& found) {
  return found.family == "torchvision" || found.family == "timm";
}

/// A head without its flatten, behind means of the maps, in the head's language.
std::string averaged_head(const Network& network) {
  std::string out = "gap";
  for (const Layer& layer : network.layers) {
    if (!layer.in_head || layer.name == network.layers.back().name) continue;
    if (layer.kind == LayerKind::dense) out += fmt::format(" dense:{}", layer.outputs);
    if (layer.kind == LayerKind::dropout) out += fmt::format(" dropout:{}", layer.rate);
  }
  return out;
}

/// What must be said of the input's size, after "does not say"; empty: nothing.
std::string open_size(const ForeignClassifier& found) {
  constexpr int kTorchSide = 224;
  const Network& network = found.network;
  const bool assumed = is_assumed(found);
  if (found.size != ForeignClassifier::Size::least ||
      (assumed && network.input_height == kTorchSide))
    return "";
  std::string out = fmt::format(
      "the size of its images, which `input-size` does (its head is for those of {} "
      "pixels a side, or some more that give the same maps",
      network.input_height);
  const std::vector<Shape> shapes = output_shapes(network);
  for (const Layer& layer : network.layers) {
    if (!assumed || layer.kind != LayerKind::flatten) continue;
    const Shape& map = shapes[layer.source()];
    out += map.height == 1 ? fmt::format(
                                 "; if it stands on means of the maps, "
                                 "AdaptiveAvgPool2d(1), say `head` \"{}\"",
                                 averaged_head(network))
                           : fmt::format(
                                 "; if its maps are averaged to {}x{}, "
                                 "AdaptiveAvgPool2d({}), Graft cannot have its head",
                                 map.height, map.width, map.height);
  }
  return out + ")";
}

/// The input's size, where the file does not say it: of torchvision's own networks it is known.
void settle_size(ForeignClassifier& found, const InputSize& asked, const std::string& name,
                 const RunContext& context, Questions& questions) {
  using Size = ForeignClassifier::Size;
  Network& network = found.network;
  if (asked == InputSize()) {
    if (std::string what = open_size(found); !what.empty()) questions.add(std::move(what));
    if (found.size == Size::open)
      context.tell(Severity::note,
                   fmt::format("note: {}: any input size will do, and {}x{} is taken; `input-size` "
                               "says otherwise",
                               name, network.input_height, network.input_width));
    return;
  }
  const std::vector<TensorSpec> before = tensor_specs(network);
  network.input_height = asked.height;
  network.input_width = asked.width;
  const std::vector<TensorSpec> after = tensor_specs(network);  // throws where maps vanish
  for (size_t i = 0; i < before.size(); ++i)
    if (before[i].shape != after[i].shape)
      fail(ErrorKind::usage, "`input-size`: layer {} of {} is not for images of {}x{}",
           network.layers[before[i].layer].name, name, asked.height, asked.width);
}

/// What must be said of pixels and is not, after "does not say"; empty: nothing.
std::string open_pixels(const ForeignClassifier& found, PixelFamily asked) {
  if (asked != PixelFamily::of_weights) return "";
  if (!found.preprocessing)
    return fmt::format("how pixels were prepared, which `preprocessing` does: {}{}", kPixelFamilies,
                       found.behind ? "; its own arithmetic comes behind that, so that raw is what "
                                      "a model has that is given numbers from 0 to 255"
                                    : "");
  return found.family == "onnx" && has_torch_colours(*found.preprocessing) ? kOpenCrop : "";
}

/// How pixels are prepared, as the file says it or the user does.
void settle_pixels(ForeignClassifier& found, PixelFamily asked, const std::string& name,
                   Questions& questions) {
  if (std::string what = open_pixels(found, asked); !what.empty()) {
    questions.add(std::move(what));
    return;
  }
  if (asked == PixelFamily::of_weights) return;
  const bool crop = found.preprocessing && has_torch_colours(*found.preprocessing);
  if (found.preprocessing && !is_assumed(found) && !(crop && is_torch(asked)))
    fail(ErrorKind::usage, "`preprocessing`: {} says itself what its model does with pixels; {}",
         name,
         crop ? "torch or torch-stretched say whether images are cropped" : "leave the option out");
  found.preprocessing = preprocessing_of(asked);
  if (found.behind) found.preprocessing = found.behind(*found.preprocessing);
}

/// Whether the backbone alone could be taken from a file that is refused as a whole.
bool holds_backbone(const fs::path& file, const RunContext& context) {
  // Whether the pixels must be said is no matter.
  for (const PixelFamily family : {PixelFamily::of_weights, PixelFamily::unit}) try {
      ClassifierImport import;
      import.preprocessing = family;
      import_backbone(file, import, {.stop = context.stop});
      return true;
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::interrupted) throw;
      if (error.kind() != ErrorKind::usage) return false;
    }
  return false;
}

/// A model that could be written and not read again.
void require_readable(const Preprocessing& preprocessing, const std::string& name) {
  for (const std::array<float, 3>* values : {&preprocessing.scale, &preprocessing.shift})
    for (const float value : *values)
      if (!(std::abs(value) <= kMostPixelScale))
        fail(ErrorKind::input,
             "{}: it multiplies or shifts pixels by {:.3g}; Graft's models do so by at most {:.0e}",
             name, value, kMostPixelScale);
}

ForeignClassifier open_with_advice(const fs::path& file, const std::string& head,
                                   const InputSize& size, const RunContext& context) {
  try {
    return open_foreign_classifier(file, head, size, context.stop);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::input || !holds_backbone(file, context)) throw;
    fail(error.kind(), "{}; its backbone alone can be taken with `without-head`", error.what());
  }
}

}  // namespace

ModelFile import_classifier(const fs::path& named, const ClassifierImport& import,
                            const RunContext& context) {
  const fs::path file = weights_file(named);
  const std::string name = printable(file);
  if (!is_foreign(file)) {
    require_nothing_said(import, name);
    ModelFile own = read_model(model_file(file));
    if (import.resampling) own.metadata.preprocessing.resampling = *import.resampling;
    return own;
  }
  ForeignClassifier found = open_with_advice(file, import.head, import.input, context);
  if (found.family == "graft") require_nothing_said(import, name);
  Questions questions;
  settle_size(found, import.input, name, context, questions);
  ModelFile model;
  model.metadata.network = found.network;
  model.metadata.classes = labels_of(found, import.classes, name, questions);
  settle_pixels(found, import.preprocessing, name, questions);
  questions.require_none(name);
  require_readable(*found.preprocessing, name);
  model.metadata.preprocessing = *found.preprocessing;
  const std::optional<Resampling> resampling =
      import.resampling ? import.resampling : found.resampling;
  if (resampling)
    model.metadata.preprocessing.resampling = *resampling;
  else if (found.family == "keras")
    context.tell(
        Severity::note,
        fmt::format("note: {}: images will be brought to {}x{} antialiased (bilinear); say "
                    "`resampling` bilinear-noaa for a model trained with Keras' "
                    "image_dataset_from_directory, nearest with load_img or "
                    "flow_from_directory",
                    name, found.network.input_height, found.network.input_width));
  model.metadata.test_views = found.test_views;
  model.metadata.training = found.training;
  if (!import.resampling && !found.resampling_note.empty())
    found.notes.push_back(found.resampling_note);
  for (const std::string& note : found.notes)
    context.tell(Severity::note, "note: " + name + ": " + note);
  context.check_stop();
  model.tensors = found.read(name);
  model.metadata.provenance =
      found.provenance ? *found.provenance : provenance_of(file, found.family, md5_of_file(file));
  if (is_assumed(found) && import.preprocessing == PixelFamily::of_weights &&
      recognise_published(file, model.metadata.provenance.md5) == nullptr)
    context.tell(Severity::note,
                 fmt::format("note: {}: pixels are prepared as for torchvision's own weights, with "
                             "its centre crop; `preprocessing` torch-stretched, unit or another "
                             "says otherwise",
                             name));
  return model;
}

ClassifierOutline outline_classifier(const fs::path& named, const std::string& head,
                                     const RunContext& context) {
  const fs::path file = weights_file(named);
  if (is_foreign(file)) {
    ForeignClassifier found = open_with_advice(file, head, InputSize(), context);
    std::string open = open_pixels(found, PixelFamily::of_weights);
    std::string size = open_size(found);
    return {std::move(found.network), std::move(found.labels), found.family != "graft",
            std::move(open), std::move(size)};
  }
  // Its values are mapped, and not looked at.
  ModelMetadata metadata = parse_metadata(open_safetensors(file).metadata, printable(file));
  if (metadata.classes.empty())
    fail(ErrorKind::input,
         "{}: a backbone without a head, and no classifier to go on from; leave `head` keep out",
         printable(file));
  return {std::move(metadata.network), std::move(metadata.classes), false, "", ""};
}

ModelFile import_backbone(const fs::path& named, const ClassifierImport& import,
                          const RunContext& context) {
  const fs::path file = weights_file(named);
  if (!is_foreign(file)) return without_head(read_model_or_backbone(model_file(file)));
  const std::string name = printable(file);
  const WeightsInspection about = inspect_weights(file);
  if (about.fits.empty())
    fail(ErrorKind::input,
         "{}: the weights of no backbone are in it; 'graft weights inspect {}' shows what is "
         "nearest",
         name, name);
  const WeightsInspection::Fit& fit = about.fits.front();
  const int side = default_input_size(fit.backbone);
  ModelFile model;
  model.metadata.network = cut_after(backbone(fit.backbone, side, side), fit.until);
  WeightsRequest request;
  request.weights = file.string();
  request.backbone = fit.backbone;
  request.preprocessing = import.preprocessing;
  request.input_height = request.input_width = side;
  request.context = context;
  Weights weights = load_weights(request, model.metadata.network);
  if (!weights.note.empty()) context.tell(Severity::note, "note: " + weights.note);
  require_readable(weights.preprocessing, name);
  model.metadata.preprocessing = weights.preprocessing;
  model.metadata.provenance = weights.provenance;
  model.tensors = std::move(weights.tensors);
  return model;
}

}  // namespace graft
