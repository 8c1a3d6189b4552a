#include "weights/keras_values.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "weights/keras_names.h"

namespace graft {
namespace {

constexpr std::string_view kVariables = "/vars/";

bool flag(const nlohmann::json& config, const char* key) {
  const auto at = config.find(key);
  return at == config.end() || !at->is_boolean() || at->get<bool>();
}

/// A class's name as Keras writes it in file names (keras/src/utils/naming.py: to_snake_case).
std::string snake_case(const std::string& name) {
  const auto upper = [&](size_t i) {
    return i < name.size() && std::isupper(static_cast<unsigned char>(name[i])) != 0;
  };
  const auto is_lower = [&](size_t i) {
    return i < name.size() && std::islower(static_cast<unsigned char>(name[i])) != 0;
  };
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    // Before a capital that begins a word ("2D" begins none), or that follows a small letter.
    if (i > 0 && upper(i) && (is_lower(i + 1) || is_lower(i - 1))) out += '_';
    out += static_cast<char>(std::tolower(static_cast<unsigned char>(name[i])));
  }
  return out;
}

/// Lists of layers in a group, which are no layers themselves.
bool is_container(std::string_view name) {
  return name == "layers" || name == "_layers" || name == "_layer_checkpoint_dependencies" ||
         name == "_functional";
}

/// "layers/functional/layers/conv2d_1" → "functional/conv2d_1".
std::string without_containers(std::string_view path) {
  std::string out;
  for (const std::string& part : path_parts(path))
    if (!is_container(part)) out += (out.empty() ? "" : "/") + part;
  return out;
}

/// Whether every layer with weights, in models within it too, is among the names.
bool has_all(const KerasModel& model, const std::set<std::string>& names) {
  return std::all_of(model.layers.begin(), model.layers.end(), [&](const KerasNode& layer) {
    if (layer.model != nullptr) return has_all(*layer.model, names);
    return keras_roles(layer).empty() || names.contains(printable(layer.name));
  });
}

}  // namespace

std::vector<std::string> keras_roles(const KerasNode& layer) {
  std::vector<std::string> roles;
  if (layer.kind == "Conv2D" || layer.kind == "Dense") {
    roles.emplace_back("weight");
    if (flag(layer.config, "use_bias")) roles.emplace_back("bias");
  } else if (layer.kind == "BatchNormalization") {
    if (flag(layer.config, "scale")) roles.emplace_back("weight");
    if (flag(layer.config, "center")) roles.emplace_back("bias");
    roles.emplace_back("running_mean");
    roles.emplace_back("running_var");
  }
  return roles;
}

KerasLocator::KerasLocator(const KerasModel& model, std::span<const H5Weight> weights,
                           std::string file)
    : model_(model), weights_(weights), file_(std::move(file)) {
  for (size_t i = 0; i < weights_.size(); ++i) {
    const std::string& path = weights_[i].path;
    const size_t at = path.rfind(kVariables);
    const std::string number = at == std::string::npos ? "" : path.substr(at + kVariables.size());
    constexpr size_t kMostDigits = 6;
    if (number.empty() || number.size() > kMostDigits ||
        number.find_first_not_of("0123456789") != std::string::npos)
      continue;
    numbered_ = true;
    groups_[without_containers(path.substr(0, at))].emplace(std::stoul(number), i);
  }
}

void KerasLocator::refuse(const KerasNode& layer, const std::string& why) const {
  fail(ErrorKind::input, "{}: layer {} ({}) {}", file_, clipped(printable(layer.name)),
       clipped(printable(layer.kind)), why);
}

std::vector<size_t> KerasLocator::of(const KerasPath& path) const {
  if (numbered_) return by_number(path);
  std::vector<size_t> found = by_name(path);
  return found.empty() && path.size() > 1 ? by_order(path) : found;
}

std::vector<size_t> KerasLocator::by_number(const KerasPath& path) const {
  std::string group;
  const KerasModel* model = &model_;
  for (const KerasNode* layer : path) {
    const std::string stem =
        snake_case(layer->model != nullptr && layer->kind == "Model" ? std::string("Functional")
                                                                     : layer->kind);
    // Its place among the layers of its class, and how many there are.
    size_t place = 0;
    size_t count = 0;
    for (const KerasNode& other : model->layers) {
      if (&other == layer) place = count;
      if (other.kind == layer->kind) ++count;
    }
    const std::string prefix = group.empty() ? "" : group + "/";
    const auto numbered = [&](size_t number) {
      return prefix + stem + (number == 0 ? "" : "_" + std::to_string(number));
    };
    const auto exists = [&](const std::string& name) {
      const auto at = groups_.lower_bound(name);
      return at != groups_.end() && (at->first == name || at->first.starts_with(name + "/"));
    };
    group = numbered(place);
    // Keras 2.13 counts some layers twice, which leaves numbers out: then their order counts.
    constexpr size_t kMostNumber = 4000;
    if (!exists(numbered(count - 1)) || !exists(group)) {
      std::vector<std::string> there;
      for (size_t number = 0; number < kMostNumber && there.size() < count; ++number)
        if (exists(numbered(number))) there.push_back(numbered(number));
      if (there.size() == count) group = there.at(place);
    }
    model = layer->model.get();
  }
  std::vector<size_t> out;
  if (const auto at = groups_.find(group); at != groups_.end())
    for (const auto& [number, index] : at->second) out.push_back(index);
  return out;
}

/// Of a layer of the outermost model all in its group; of others those whose names say so. A number
/// at a name's end may be one that Keras 2 put behind it, but not where all names are the layers'.
std::vector<size_t> KerasLocator::by_name(const KerasPath& path) const {
  std::vector<size_t> out;
  std::vector<size_t> repeated;
  std::set<std::string> parents;
  const std::string own = printable(path.back()->name);
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i].layer != printable(path.front()->name)) continue;
    if (path.size() == 1) {
      out.push_back(i);
      continue;
    }
    const std::vector<std::string> parts = path_parts(weights_[i].name);
    if (parts.size() < 2) continue;
    const std::string& parent = parts[parts.size() - 2];
    parents.insert(parent);
    if (parent == own) out.push_back(i);
    if (without_repeat(parent) == own) repeated.push_back(i);
  }
  if (path.size() == 1) return out;
  const bool exact = has_all(*path.front()->model, parents);
  std::vector<size_t>& found = exact ? out : repeated;
  if (!exact && repeated.empty()) found = out;
  // Several layers of one name: their order says which is meant.
  const size_t roles = keras_roles(*path.back()).size();
  if (roles > 0 && found.size() > roles) found.clear();
  return found;
}

/// In a model that is a layer, whose weights bear other names: all that train come first, then the
/// others (keras/src/legacy/saving/legacy_h5_format.py: _legacy_weights).
std::vector<size_t> KerasLocator::by_order(const KerasPath& path) const {
  std::vector<size_t> there;
  for (size_t i = 0; i < weights_.size(); ++i)
    if (weights_[i].layer == printable(path.front()->name)) there.push_back(i);
  std::vector<std::pair<const KerasNode*, size_t>> training;
  std::vector<std::pair<const KerasNode*, size_t>> frozen;
  const auto list = [&](const auto& self, const KerasModel& model, bool trains) -> void {
    for (const KerasNode& layer : model.layers) {
      const auto at = layer.config.find("trainable");
      const bool own = trains && (at == layer.config.end() || *at != false);
      if (layer.model != nullptr) self(self, *layer.model, own);
      const std::vector<std::string> roles = keras_roles(layer);
      for (size_t r = 0; r < roles.size(); ++r)
        (own && !roles[r].starts_with("running") ? training : frozen).emplace_back(&layer, r);
    }
  };
  list(list, *path.front()->model, true);
  training.insert(training.end(), frozen.begin(), frozen.end());
  if (training.size() != there.size()) return {};
  std::map<size_t, size_t> found;
  for (size_t i = 0; i < there.size(); ++i)
    if (training[i].first == path.back()) found.emplace(training[i].second, there[i]);
  std::vector<size_t> out;
  for (const auto& [role, index] : found) out.push_back(index);
  return out;
}

std::map<std::string, size_t> KerasLocator::roles_of(const KerasPath& path) const {
  const KerasNode& layer = *path.back();
  const std::vector<std::string> roles = keras_roles(layer);
  const std::vector<size_t> found = of(path);
  std::map<std::string, size_t> out;
  // Names say it, where they do, else the order.
  if (!numbered_)
    for (const size_t index : found)
      if (const std::string role = keras_role(weights_[index].name); !role.empty())
        out.emplace(role, index);
  if (out.size() != found.size() || found.size() != roles.size() ||
      !std::all_of(roles.begin(), roles.end(), [&](const auto& r) { return out.contains(r); })) {
    if (found.size() != roles.size())
      refuse(layer, fmt::format("has {} weights in the file where its description says {}",
                                found.size(), roles.size()));
    out.clear();
    for (size_t i = 0; i < roles.size(); ++i) out.emplace(roles[i], found[i]);
  }
  for (const auto& [role, index] : out)
    if (!weights_[index].problem.empty()) refuse(layer, weights_[index].problem);
  return out;
}

}  // namespace graft
