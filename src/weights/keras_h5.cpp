#include "weights/keras_h5.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/flattened_order.h"
#include "weights/h5_process.h"
#include "weights/keras_classifier.h"
#include "weights/keras_layout.h"
#include "weights/keras_names.h"
#include "weights/keras_trunk.h"
#include "weights/keras_walk.h"
#include "weights/match.h"
#include "weights/norm_epsilon.h"

namespace graft {
namespace {

/// block<N>_conv<N> and its _bn: a layer of some VGG, if not of the one at hand. A file with more
/// of them than a network has is not that network's.
bool is_vgg_layer(std::string_view name) {
  const auto skip = [&](std::string_view word) {
    if (!name.starts_with(word)) return false;
    name.remove_prefix(word.size());
    return true;
  };
  const auto skip_number = [&] {
    const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
    name.remove_prefix(digits);
    return digits > 0;
  };
  return skip("block") && skip_number() && skip("_conv") && skip_number() &&
         (name.empty() || name == "_bn");
}

KerasFront front_of(const KerasModel& model, const KerasLocator& locator, H5File& file) {
  return front_of_keras_model(
      model, file.name(), [&](const KerasPath& path) { return own_values(file, locator, path); });
}

/// The weights of one model in the file, by canonical name.
struct Found {
  bool by_order = false;                  // its layers bear other names
  std::map<std::string, size_t> indices;  // into H5File::weights()
  ShapeMap shapes;
  std::map<std::string, std::string> problems;  // by layer: the first that cannot be read
  std::set<size_t> placed;                      // all indices of the model's own layers
};

class Matcher {
 public:
  /// The file and the network outlive the object.
  Matcher(H5File& file, std::string name, const Network& full, size_t needed_end)
      : name_(std::move(name)),
        full_(full),
        needed_end_(needed_end),
        file_(file),
        layout_(file.weights(), file.layer_order()) {
    for (size_t i = 0; i < file_.weights().size(); ++i) sort_in(i);
    const std::map<std::string, std::vector<KerasPart>> parts = layout_.parts();
    for (auto& [model, found] : models_)
      if (const auto at = parts.find(model); at != parts.end()) add_norms(at->second, found);
    if (std::none_of(models_.begin(), models_.end(),
                     [&](const auto& model) { return fits(model.second, full_, needed_end_); }))
      for (auto& [model, found] : by_order(full_, needed_end_))
        models_.insert_or_assign(model, std::move(found));
  }

  /// What the file has of the network, without reading values.
  [[nodiscard]] KerasContents contents() const {
    if (models_.empty()) return {};
    const Found& found = choose();
    return {found.shapes, left_out(found), found.by_order};
  }

  KerasWeights read() {
    const Found& found = choose();
    for (const TensorSpec& spec : tensor_specs(full_, 0, needed_end_))
      if (const auto at = found.problems.find(full_.layers[spec.layer].name);
          at != found.problems.end())
        refuse(at->second);
    check_tensors(full_, needed_end_, found.shapes, name_, hint(found.shapes));
    KerasWeights out;
    std::map<size_t, std::string> wanted;
    std::vector<size_t> order;
    for (const TensorSpec& spec : tensor_specs(full_, 0, needed_end_)) {
      order.push_back(found.indices.at(spec.name));
      wanted.emplace(order.back(), spec.name);
    }
    const std::map<size_t, double> epsilons = look_at_model(order, out);
    file_.read(order, [&](size_t index, std::span<const float> values) {
      const std::string& name = wanted.at(index);
      out.tensors.emplace(name, to_canonical(name, file_.weights()[index].shape, values));
    });
    set_epsilons(found, epsilons, out.tensors);
    out.left_out = left_out(found);
    out.by_order = found.by_order;
    return out;
  }

  [[nodiscard]] std::optional<KerasPlaces> places() const {
    for (const auto& [model, found] : models_) {
      if (!fits(found, full_, needed_end_)) continue;
      KerasPlaces out;
      for (const TensorSpec& spec : tensor_specs(full_, 0, needed_end_))
        out.backbone.emplace(spec.name, found.indices.at(spec.name));
      std::string last;
      for (size_t i = 0; i < file_.weights().size(); ++i) {
        const H5Weight& weight = file_.weights()[i];
        const std::string role = keras_role(weight.name);
        if (found.placed.contains(i) || !weight.problem.empty()) continue;
        const KerasPlace where = layout_.place_of(weight);
        if (out.rest.empty() || where.model + "/" + where.layer != last)
          out.rest.push_back({where.layer, {}});
        last = where.model + "/" + where.layer;
        out.rest.back().roles.emplace(role, i);
      }
      return out;
    }
    return std::nullopt;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a usable Keras weights file: {}", name_, why);
  }

  /// What the file's description of the model says of the backbone, if it has one that is Keras'
  /// own: a class of somebody's may describe itself as it likes, and its layers' names count.
  /// Returns the epsilon of each BatchNorm's weights.
  std::map<size_t, double> look_at_model(const std::vector<size_t>& taken, KerasWeights& out) {
    if (file_.description().empty()) return {};
    std::optional<KerasModel> model;
    try {
      model = parse_keras_model(file_.description(), name_);
    } catch (const Error&) {
      return {};
    }
    const KerasLocator locator(*model, file_.weights(), name_);
    require_vgg_layers(*model, locator, {taken.begin(), taken.end()}, name_);
    out.front = front_of(*model, locator, file_);
    return norm_epsilons(*model, locator);
  }

  /// BatchNorms compute at the network's epsilon what they did at the file's.
  void set_epsilons(const Found& found, const std::map<size_t, double>& told,
                    TensorMap& tensors) const {
    for (const Layer& layer : full_.layers) {
      const auto weight = tensors.find(layer.name + ".weight");
      if (layer.kind != LayerKind::batchnorm || weight == tensors.end()) continue;
      const auto at = told.find(found.indices.at(weight->first));
      weight->second = with_epsilon(weight->second, tensors.at(layer.name + ".running_var"),
                                    at == told.end() ? kKerasEpsilon : at->second, layer.epsilon);
    }
  }

  [[nodiscard]] bool is_ours(const std::string& layer) const {
    return find_layer(full_, layer).has_value() || is_vgg_layer(layer);
  }

  /// The place of a weight in a backbone, or nothing. Where the backbone was saved as a layer of
  /// a larger model (layer "vgg16", weight "block1_conv1/kernel:0"), the weight's own path says it.
  [[nodiscard]] std::optional<KerasPlace> place(const H5Weight& weight) const {
    if (is_ours(weight.layer)) return KerasPlace{"", weight.layer};
    const size_t leaf = weight.name.rfind('/');
    if (leaf == std::string::npos || leaf == 0) return std::nullopt;
    const size_t before = weight.name.rfind('/', leaf - 1);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    const std::string parent = weight.name.substr(begin, leaf - begin);
    if (layout_.is_single(weight.layer)) {
      for (const std::string& layer : {parent, without_repeat(parent)})
        if (is_ours(layer)) return KerasPlace{"", layer};
      return std::nullopt;
    }
    std::string model = weight.layer;
    if (begin > 1) model += "/" + weight.name.substr(0, begin - 1);
    for (const std::string& layer : {parent, without_repeat(parent)})
      if (is_ours(layer)) return KerasPlace{model, layer};
    return std::nullopt;
  }

  void sort_in(size_t index) {
    const H5Weight& weight = file_.weights()[index];
    const std::optional<KerasPlace> where = place(weight);
    if (!where) return;
    Found& found = models_[where->model];
    found.placed.insert(index);
    if (!weight.problem.empty()) {
      found.problems.emplace(where->layer, weight.problem);
      return;
    }
    const std::string role = keras_role(weight.name);
    if (role.empty()) {
      found.problems.emplace(
          where->layer,
          fmt::format("weight '{}' of layer {} is of no known kind", weight.name, where->layer));
      return;
    }
    const std::string name = where->layer + "." + role;
    if (!found.indices.emplace(name, index).second)
      found.problems.emplace(where->layer,
                             fmt::format("layer {} has two weights of one kind", where->layer));
    found.shapes.emplace(name, canonical_shape(weight.shape));
  }

  /// BatchNorms beside convolutions that bear a VGG's names, where their own are Keras' defaults
  /// (batch_normalization_3): one for each convolution is that one's. Others between convolutions
  /// are a difference to every network.
  void add_norms(const std::vector<KerasPart>& layers, Found& found) const {
    std::map<size_t, std::string> names;  // of convolutions' kernels
    for (const auto& [name, index] : found.indices)
      if (file_.weights()[index].shape.size() == 4)
        names.emplace(index, name.substr(0, name.rfind('.')));
    std::vector<std::pair<std::string, int64_t>> convolutions;  // and how many outputs
    std::vector<const KerasPart*> norms;
    for (const KerasPart& part : layers) {
      const auto weight = part.roles.find("weight");
      const auto variance = part.roles.find("running_var");
      if (variance != part.roles.end() && !found.placed.contains(variance->second) &&
          file_.weights()[variance->second].shape.size() == 1)
        norms.push_back(&part);
      else if (weight != part.roles.end() && names.contains(weight->second))
        convolutions.emplace_back(names.at(weight->second),
                                  file_.weights()[weight->second].shape.back());
    }
    bool each = !convolutions.empty() && norms.size() >= convolutions.size();
    for (size_t i = 0; each && i < convolutions.size(); ++i)
      each =
          file_.weights()[norms[i]->roles.at("running_var")].shape.back() == convolutions[i].second;
    if (!each && !norm_between(layers, found)) return;
    norms.resize(std::min(norms.size(), convolutions.size()));
    for (size_t i = 0; i < norms.size(); ++i)
      for (const auto& [role, index] : norms[i]->roles) {
        const std::string name =
            (each ? convolutions[i].first + "_bn" : norms[i]->layer) + "." + role;
        found.indices.emplace(name, index);
        found.shapes.emplace(name, canonical_shape(file_.weights()[index].shape));
        if (each) found.placed.insert(index);
      }
  }

  static bool is_norm(const KerasPart& part) { return part.roles.contains("running_var"); }

  /// Whether a BatchNorm that is not the model's stands in front of its last convolution, as far as
  /// the file has its layers in their order.
  [[nodiscard]] bool norm_between(const std::vector<KerasPart>& layers, const Found& found) const {
    if (layout_.is_numbered()) return false;
    bool norm = false;
    for (const KerasPart& part : layers) {
      const auto weight = part.roles.find("weight");
      const bool placed = weight != part.roles.end() && found.placed.contains(weight->second);
      norm = norm || (is_norm(part) && !found.placed.contains(part.roles.at("running_var")));
      if (norm && placed && file_.weights()[weight->second].shape.size() == 4) return true;
    }
    return false;
  }

  /// The model in the file that is the network; if none is, the one that is most like it.
  [[nodiscard]] const Found& choose() const {
    if (models_.empty()) refuse(no_layer());
    const Found* best = &models_.begin()->second;
    size_t least = SIZE_MAX;
    std::vector<std::string> fitting;
    for (const auto& model : models_) {
      const size_t differences = tensor_differences(full_, needed_end_, model.second.shapes).size();
      if (differences == 0) fitting.push_back(model.first);
      if (differences < least) {
        best = &model.second;
        least = differences;
      }
    }
    if (fitting.size() > 1)
      refuse(
          fmt::format("it holds {} more than once (in its layers {}); save the one that is meant "
                      "on its own, in Keras with model.get_layer('{}').save('model.h5')",
                      full_.backbone, fmt::join(fitting, ", "), fitting.back()));
    return *best;
  }

  [[nodiscard]] std::string no_layer() const {
    constexpr size_t kExamples = 5;
    std::vector<std::string> names;
    for (const H5Weight& weight : file_.weights())
      if (names.empty() || names.back() != weight.layer) names.push_back(weight.layer);
    const bool more = names.size() > kExamples;
    if (more) names.resize(kExamples);
    std::string other;
    for (const std::string& name : backbone_names()) {
      const Network network = backbone(name, full_.input_height, full_.input_width);
      if (name != full_.backbone && !by_order(network, network.layers.size()).empty())
        other = fmt::format(" (these are weights of {}: use `backbone` {})", name, name);
    }
    return fmt::format(
        "no layer in it is one of {}'s, by name (block1_conv1 and so on) or by order and shapes; "
        "it has {}{}{}",
        full_.backbone, names.empty() ? "no weights" : fmt::format("{}", fmt::join(names, ", ")),
        more ? ", …" : "", other);
  }

  /// Layers with weights that are not the chosen model's.
  [[nodiscard]] std::vector<std::string> left_out(const Found& chosen) const {
    std::set<std::string> holders;  // of the chosen one's layers: models that are layers
    for (const size_t index : chosen.placed)
      if (const H5Weight& w = file_.weights()[index]; !is_layer_itself(w)) holders.insert(w.layer);
    std::vector<std::string> out;
    for (size_t i = 0; i < file_.weights().size(); ++i) {
      if (chosen.placed.contains(i)) continue;
      const H5Weight& weight = file_.weights()[i];
      std::string name = weight.layer;
      // Beside the backbone inside a model that is a layer.
      if (holders.contains(name)) name += "/" + weight.name.substr(0, weight.name.rfind('/'));
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
    }
    return out;
  }

  /// Whether a weight is of its layer itself and not of one inside it.
  [[nodiscard]] bool is_layer_itself(const H5Weight& weight) const {
    return layout_.place_of(weight).model.empty();
  }

  [[nodiscard]] static bool fits(const Found& found, const Network& network, size_t end) {
    return tensor_differences(network, end, found.shapes).empty();
  }

  /// Models whose layers bear other names (conv2d_3, base_block1_conv1), and which are layers
  /// [0, end) of a network by the order and the shapes of their convolutions and BatchNorms. Its
  /// flat layers are not looked for, since any head may stand there.
  [[nodiscard]] std::map<std::string, Found> by_order(const Network& network, size_t end) const {
    while (network.layers[end - 1].kind == LayerKind::dense ||
           network.layers[end - 1].kind == LayerKind::flatten)
      --end;
    std::map<std::string, Found> out;
    for (const auto& [model, layers] : layout_.parts()) {
      std::vector<KerasPart> convolutions;
      std::vector<KerasPart> norms;
      for (const KerasPart& part : layers) {
        const auto weight = part.roles.find("weight");
        if (is_norm(part))
          norms.push_back(part);
        else if (weight != part.roles.end() && file_.weights()[weight->second].shape.size() == 4)
          convolutions.push_back(part);
      }
      // The first may have others in front: of one channel to three, for instance.
      for (size_t first = 0; first < convolutions.size() && !out.contains(model); ++first)
        if (Found found = from(network, std::span(convolutions).subspan(first), norms);
            fits(found, network, end) && !norm_between(layers, found))
          out.emplace(model, std::move(found));
    }
    return out;
  }

  /// The network's convolutions and BatchNorms taken from lists of them; nothing where it is clear
  /// that they are another network's.
  [[nodiscard]] Found from(const Network& network, std::span<const KerasPart> convolutions,
                           std::span<const KerasPart> norms) const {
    Found found;
    found.by_order = true;
    size_t conv = 0;
    size_t norm = 0;
    for (const Layer& layer : network.layers) {
      const bool is_conv = layer.kind == LayerKind::conv;
      if (!is_conv && layer.kind != LayerKind::batchnorm) continue;
      size_t& next = is_conv ? conv : norm;
      const std::span<const KerasPart> list = is_conv ? convolutions : norms;
      if (next == list.size()) break;
      for (const auto& [role, index] : list[next].roles) {
        found.indices.emplace(layer.name + "." + role, index);
        found.shapes.emplace(layer.name + "." + role,
                             canonical_shape(file_.weights()[index].shape));
        found.placed.insert(index);
      }
      ++next;
    }
    // A head may have some BatchNorms; one for each convolution makes it another network. What ends
    // within the backbone ends with the list.
    const bool whole =
        conv == count(network, LayerKind::conv) && norm == count(network, LayerKind::batchnorm);
    if (norms.size() - norm >= conv || (!whole && conv < convolutions.size())) return {};
    return found;
  }

  [[nodiscard]] static size_t count(const Network& network, LayerKind kind) {
    return static_cast<size_t>(std::count_if(network.layers.begin(), network.layers.end(),
                                             [&](const Layer& l) { return l.kind == kind; }));
  }

  /// A hint for the common mistakes, from the shapes alone.
  [[nodiscard]] std::string hint(const ShapeMap& found) const {
    const auto first = found.find("block1_conv1.weight");
    // Theano's files hold (64, 3, 3, 3), which read as H, W, I, O becomes (3, 3, 64, 3).
    if (first != found.end() && first->second == std::vector<int64_t>{3, 3, 64, 3})
      return " (kernels in Theano's order, th_dim_ordering, which are also flipped; use the "
             "tf_dim_ordering file)";
    return fit_hint(
        [&](const Network&) {
          ShapeMap convolutions = found;
          std::erase_if(convolutions, [](const auto& item) {
            return !is_vgg_layer(std::string_view(item.first).substr(0, item.first.rfind('.')));
          });
          return convolutions;
        },
        full_);
  }

  [[nodiscard]] Tensor to_canonical(const std::string& name, const std::vector<int64_t>& shape,
                                    std::span<const float> in) const {
    Tensor tensor(canonical_shape(shape), canonical_values(shape, in));
    if (shape.size() != 2) return tensor;
    const std::optional<Shape> map = flattened_map(name.substr(0, name.rfind('.')), shape[0]);
    return map ? channels_first(tensor, *map) : tensor;
  }

  /// The map that a dense layer of `inputs` reads through `flatten`.
  [[nodiscard]] std::optional<Shape> flattened_map(const std::string& layer, int64_t inputs) const {
    const std::optional<size_t> at = find_layer(full_, layer);
    if (at && *at >= 2 && full_.layers[*at - 1].kind == LayerKind::flatten) {
      const Shape map = output_shapes(full_)[*at - 2];
      if (map.elements() == inputs) return map;
    }
    return std::nullopt;
  }

  std::string name_;
  const Network& full_;
  size_t needed_end_;
  H5File& file_;
  std::map<std::string, Found> models_;
  KerasLayout layout_;
};

}  // namespace

KerasWeights read_keras_h5(H5File& file, const Network& full, size_t needed_end) {
  return Matcher(file, file.name(), full, needed_end).read();
}

KerasFront front_in(H5File& file) {
  if (file.description().empty()) return {};
  const KerasModel model = parse_keras_model(file.description(), file.name());
  const KerasLocator locator(model, file.weights(), file.name());
  return front_of(model, locator, file);
}

std::optional<KerasPlaces> find_backbone(H5File& file, const Network& full, size_t end) {
  return Matcher(file, "", full, end).places();
}

KerasContents keras_contents(H5File& file, const Network& full, size_t needed_end) {
  return Matcher(file, file.name(), full, needed_end).contents();
}

void read_all_weights(H5File& file, const std::function<void(const std::string&, const std::string&,
                                                             std::span<const float>)>& take) {
  for (size_t i = 0; i < file.weights().size(); ++i) {
    const H5Weight& weight = file.weights()[i];
    const std::string name = weight.layer + ": " + weight.name;
    if (!weight.problem.empty()) {
      take(name, weight.problem, {});
      continue;
    }
    const std::array<size_t, 1> wanted = {i};
    file.read(wanted, [&](size_t, std::span<const float> values) { take(name, "", values); });
  }
}

bool is_backbone_tensor(std::string_view name) {
  return is_vgg_layer(name.substr(0, name.rfind('.')));
}

std::optional<int> keras_top_classes(const H5File& file) {
  std::set<int64_t> found;
  for (const H5Weight& weight : file.weights()) {
    const bool named =
        weight.layer == "predictions" || weight.name.find("predictions/") != std::string::npos;
    if (named && weight.shape.size() == 2) found.insert(weight.shape[1]);
  }
  constexpr int64_t kMaxClasses = 1'000'000;
  if (found.size() != 1 || *found.begin() > kMaxClasses) return std::nullopt;
  return static_cast<int>(*found.begin());
}

}  // namespace graft
