#include "model/import.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "dataset/labels.h"
#include "model/backbone_file.h"
#include "weights/foreign_file.h"
#include "weights/load.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

Preprocessing preprocessing_of(PixelFamily family) {
  if (family == PixelFamily::torch) return torchvision_preprocessing();
  return family == PixelFamily::unit ? unit_preprocessing() : keras_preprocessing();
}

std::vector<std::string> labels_of(const ForeignClassifier& found,
                                   const std::vector<std::string>& asked, const std::string& name) {
  if (asked.empty()) {
    if (found.labels.empty())
      fail(ErrorKind::usage,
           "{}: a classifier of {} classes, whose names it does not say; give them in the order of "
           "its outputs with `classes` A,B,… (Keras' flow_from_directory and "
           "image_dataset_from_directory order the folders' names alphabetically)",
           name, found.classes());
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

/// The input's size, where the file does not say it: of torchvision's own networks it is known.
void settle_size(ForeignClassifier& found, const InputSize& asked, const std::string& name,
                 const RunContext& context) {
  using Size = ForeignClassifier::Size;
  Network& network = found.network;
  if (asked == InputSize()) {
    if (found.size == Size::least && (found.family == "keras" || found.family == "onnx"))
      fail(ErrorKind::usage,
           "{}: it does not say the size of its images, and its head is for those of {} pixels a "
           "side "
           "or some more, which give the same maps; say it with `input-size`",
           name, network.input_height);
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

}  // namespace

ModelFile import_classifier(const fs::path& named, const ClassifierImport& import,
                            const RunContext& context) {
  const fs::path file = weights_file(named);
  const std::string name = printable(file);
  if (!is_foreign(file)) {
    if (!import.classes.empty() || import.preprocessing != PixelFamily::of_weights ||
        !import.head.empty() || import.input != InputSize())
      fail(ErrorKind::usage,
           "{}: a model of Graft's, which says its classes, its head and its preprocessing itself; "
           "leave `classes`, `head`, `input-size` and `preprocessing` out",
           name);
    ModelFile own = read_model(model_file(file));
    if (import.resampling) own.metadata.preprocessing.resampling = *import.resampling;
    return own;
  }
  ForeignClassifier found = open_foreign_classifier(file, import.head, context.stop);
  settle_size(found, import.input, name, context);
  ModelFile model;
  model.metadata.network = found.network;
  model.metadata.classes = labels_of(found, import.classes, name);
  const bool asked = import.preprocessing != PixelFamily::of_weights;
  if (found.preprocessing && asked && (found.family == "keras" || found.family == "onnx"))
    fail(ErrorKind::usage,
         "`preprocessing`: {} says itself what its model does with pixels; leave the option out",
         name);
  if (!found.preprocessing && !asked)
    fail(ErrorKind::usage,
         "{}: it does not say how pixels were prepared for it; say it with `preprocessing` keras "
         "(vgg16.preprocess_input), unit (pixels / 255) or torch",
         name);
  model.metadata.preprocessing =
      asked ? preprocessing_of(import.preprocessing) : *found.preprocessing;
  if (asked && found.behind)
    model.metadata.preprocessing = found.behind(model.metadata.preprocessing);
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
  for (const std::string& note : found.notes)
    context.tell(Severity::note, "note: " + name + ": " + note);
  context.check_stop();
  model.tensors = found.read(name);
  model.metadata.provenance =
      found.provenance ? *found.provenance : provenance_of(file, found.family, md5_of_file(file));
  return model;
}

ClassifierOutline outline_classifier(const fs::path& named, const std::string& head,
                                     const RunContext& context) {
  const fs::path file = weights_file(named);
  if (is_foreign(file)) {
    ForeignClassifier found = open_foreign_classifier(file, head, context.stop);
    return {std::move(found.network), std::move(found.labels), true};
  }
  // Its values are mapped, and not looked at.
  ModelMetadata metadata = parse_metadata(open_safetensors(file).metadata, printable(file));
  if (metadata.classes.empty())
    fail(ErrorKind::input,
         "{}: a backbone without a head, and no classifier to go on from; leave `head` keep out",
         printable(file));
  return {std::move(metadata.network), std::move(metadata.classes), false};
}

ModelFile import_backbone(const fs::path& named, const ClassifierImport& import,
                          const RunContext& context) {
  const fs::path file = weights_file(named);
  if (!is_foreign(file)) return without_head(read_model(model_file(file)));
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
  model.metadata.preprocessing = weights.preprocessing;
  model.metadata.provenance = weights.provenance;
  model.tensors = std::move(weights.tensors);
  return model;
}

}  // namespace graft
