#include "run/keep_head.h"

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "dataset/labels.h"
#include "model/import.h"
#include "weights/load.h"

namespace graft {
namespace {

/// The last layer of the backbone; empty where that is its last pooling anyway.
std::string cut_of(const Network& network) {
  std::string last;
  for (const Layer& layer : network.layers)
    if (!layer.in_head) last = layer.name;
  const int side = default_input_size(network.backbone);
  return backbone(network.backbone, side, side).layers.back().name == last ? "" : last;
}

/// As an option has them: a file with more than a list can say stays one.
std::string as_option(const std::vector<std::string>& classes, const std::string& typed) {
  const bool listed = classes.size() > 1 &&
                      std::none_of(classes.begin(), classes.end(), [](const std::string& label) {
                        return label.find(',') != std::string::npos;
                      });
  return listed ? fmt::format("{}", fmt::join(classes, ","))
                : fs::absolute(typed).lexically_normal().string();
}

/// The names of the classifier's classes, where its file does not say them.
std::vector<std::string> asked_classes(const Recipe::Model& model, int outputs,
                                       const std::vector<std::string>& data,
                                       std::vector<std::string>& notes) {
  if (!model.classes.empty()) {
    std::vector<std::string> classes = class_names(model.classes);
    if (static_cast<int>(classes.size()) != outputs)
      fail(ErrorKind::usage, "`classes`: {} names, and {} has {} classes", classes.size(),
           printable(model.weights), outputs);
    return classes;
  }
  if (static_cast<int>(data.size()) != outputs)
    fail(ErrorKind::usage,
         "{}: its {} classes are not named in it, and the images have {}; say which they are, in "
         "the "
         "order of its outputs, with `classes` A,B,…",
         printable(model.weights), outputs, data.size());
  std::vector<std::string> classes = data;
  std::sort(classes.begin(), classes.end());
  notes.push_back(
      fmt::format("the classes of {} are taken for those of the images, in alphabetical order as "
                  "Keras has them; `classes` says otherwise",
                  printable(model.weights)));
  return classes;
}

/// What is kept of the last layer.
std::string kept_note(const std::string& weights, const std::vector<std::string>& before,
                      const std::vector<std::string>& now) {
  std::vector<std::string> fresh;
  std::vector<std::string> gone;
  for (const std::string& label : before)
    if (find_label(now, label) < 0) gone.push_back(label);
  for (const std::string& label : now) {
    if (find_label(before, label) >= 0) continue;
    // Of a class under another spelling nothing would be kept.
    if (const std::string hint = near_label_hint(gone, label); !hint.empty())
      fail(ErrorKind::input, "class '{}' is not among those of {}{}", label, weights, hint);
    fresh.push_back(label);
  }
  if (fresh.empty() && gone.empty())
    return fmt::format("`head` keep: the head of all {} classes is kept", now.size());
  std::string out = fmt::format("`head` keep: of the last layer the rows of {} classes are kept",
                                now.size() - fresh.size());
  if (!fresh.empty()) out += fmt::format(", those of {} are new", label_list(fresh));
  if (!gone.empty()) out += fmt::format(", those of {} are left out", label_list(gone));
  return out;
}

/// Files with weights alone are told of their head where they are converted.
ClassifierOutline outline_of(const std::string& weights, const RunContext& context) {
  try {
    return outline_classifier(weights, "", context);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::usage) throw;
    fail(ErrorKind::usage,
         "{}: it has weights alone, which do not say how a head computes; convert it first, with "
         "'graft weights convert {} MODEL.safetensors --head \"…\"', and go on from that",
         printable(weights), printable(weights));
  }
}

}  // namespace

bool keeps_head(const Recipe& recipe) { return recipe.model.head == "keep"; }

Network keep_head(Recipe& recipe, const std::vector<std::string>& classes,
                  std::vector<std::string>& notes, const RunContext& context) {
  Recipe::Model& model = recipe.model;
  if (model.weights.empty() || model.weights == "imagenet" || model.weights == "builtin" ||
      model.weights == "none")
    fail(ErrorKind::usage,
         "`head` keep goes on from a classifier; name its file or run with `weights`");
  ClassifierOutline outline = outline_of(model.weights, context);
  if (!outline.open_pixels.empty() && model.preprocessing == PixelFamily::of_weights)
    fail(ErrorKind::usage, "{}: the file does not say {}", printable(model.weights),
         outline.open_pixels);
  if (!outline.open_size.empty() && model.input == InputSize())
    fail(ErrorKind::usage, "{}: the file does not say {}", printable(model.weights),
         outline.open_size);
  Network& network = outline.network;
  const std::string cut = cut_of(network);
  const std::string usual = Recipe::Model().backbone;
  if (model.backbone != usual && model.backbone != network.backbone)
    fail(ErrorKind::usage, "`backbone`: {} is on {}; leave the option out, `head` keep knows it",
         printable(model.weights), network.backbone);
  if (!model.until.empty() && model.until != cut && find_layer(network, model.until) &&
      cut_of(cut_after(network, model.until)) != cut)
    fail(ErrorKind::usage, "`until`: {} has its head behind {}; leave the option out",
         printable(model.weights), cut.empty() ? "its last pooling" : cut);
  model.backbone = network.backbone;
  model.until = cut;
  if (model.input != InputSize() &&
      model.input != InputSize{network.input_height, network.input_width}) {
    Network sized = network;
    sized.input_height = model.input.height;
    sized.input_width = model.input.width;
    const std::vector<TensorSpec> before = tensor_specs(network);
    const std::vector<TensorSpec> after = tensor_specs(sized);
    for (size_t i = 0; i < before.size(); ++i)
      if (before[i].shape != after[i].shape)
        fail(ErrorKind::usage,
             "`input-size`: layer {} of {} is for images of {}x{}; leave the option out",
             network.layers[before[i].layer].name, printable(model.weights), network.input_height,
             network.input_width);
    network = std::move(sized);
  }
  model.input = {network.input_height, network.input_width};
  if (!outline.foreign && !model.classes.empty())
    fail(ErrorKind::usage, "`classes`: {} is a model of Graft's, which says them; leave it out",
         printable(model.weights));
  const std::vector<std::string> before =
      outline.foreign && (outline.classes.empty() || !model.classes.empty())
          ? asked_classes(model, network.layers.back().outputs, classes, notes)
          : outline.classes;
  if (outline.foreign) model.classes = as_option(before, model.classes);
  if (std::none_of(classes.begin(), classes.end(),
                   [&](const std::string& label) { return find_label(before, label) >= 0; }))
    fail(ErrorKind::usage,
         "`head` keep: none of the classes {} is one of the data's, {}; say the classifier's own "
         "with `classes`, or leave `head` out to train a new one",
         label_list(before), label_list(classes));
  notes.push_back(kept_note(printable(model.weights), before, classes));
  network.layers.back().outputs = static_cast<int>(classes.size());
  return std::move(network);
}

Weights load_kept(const Recipe& recipe, const Network& network,
                  const std::vector<std::string>& classes, const RunContext& context) {
  ClassifierImport import;
  import.classes = class_names(recipe.model.classes);
  import.preprocessing = recipe.model.preprocessing;
  import.resampling = recipe.model.resampling;
  if (is_foreign_model(recipe.model.weights))
    import.input = {network.input_height, network.input_width};
  ModelFile model = import_classifier(recipe.model.weights, import, context);
  Weights out;
  out.preprocessing = model.metadata.preprocessing;
  out.provenance = model.metadata.provenance;
  out.provenance.source += fmt::format(" (by way of {}, with its head)",
                                       printable(fs::path(recipe.model.weights).filename()));
  out.tensors = std::move(model.tensors);
  const size_t last = network.layers.size() - 1;
  TensorMap fresh = random_tensors(network, last, last + 1, recipe.seed, recipe.model.init);
  for (auto& [name, tensor] : fresh) {
    const auto at = out.tensors.find(name);
    if (at == out.tensors.end())
      fail(ErrorKind::input, "{}: has no tensor {}", printable(recipe.model.weights), name);
    const std::span<const float> before = at->second.values();
    std::vector<float> values(tensor.values().begin(), tensor.values().end());
    const size_t row = values.size() / classes.size();
    for (size_t k = 0; k < classes.size(); ++k)
      if (const int from = find_label(model.metadata.classes, classes[k]); from >= 0)
        std::copy_n(before.begin() + static_cast<int64_t>(static_cast<size_t>(from) * row), row,
                    values.begin() + static_cast<int64_t>(k * row));
    at->second = Tensor(tensor.shape(), std::move(values));
  }
  for (const TensorSpec& spec : tensor_specs(network)) need_tensor(out.tensors, spec);
  return out;
}

}  // namespace graft
