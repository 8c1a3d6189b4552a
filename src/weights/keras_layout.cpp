#include "weights/keras_layout.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "weights/keras_names.h"

namespace graft {

namespace {

/// The number of a layer of Keras' default name: 0 of "conv2d", 3 of "conv2d_3".
std::optional<size_t> default_number(const std::string& name, const std::string& stem) {
  constexpr size_t kMostDigits = 6;
  if (name == stem) return 0;
  if (!name.starts_with(stem + "_")) return std::nullopt;
  const std::string digits = name.substr(stem.size() + 1);
  if (digits.empty() || digits.size() > kMostDigits ||
      digits.find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  return std::stoul(digits);
}

}  // namespace

void require_known_order(std::span<const H5Weight> weights, const std::string& file) {
  std::map<std::vector<int64_t>, std::string> seen;
  for (const H5Weight& weight : weights) {
    const size_t vars = weight.path.find("/vars/");
    if (vars == std::string::npos || weight.shape.size() < 2) continue;
    const std::string place = weight.path.substr(0, vars);
    const size_t slash = place.rfind('/');
    const std::string around = slash == std::string::npos ? "" : place.substr(0, slash);
    const std::string name = slash == std::string::npos ? place : place.substr(slash + 1);
    if (around.ends_with("layers") || around.ends_with("_layer_checkpoint_dependencies") ||
        name.starts_with("block"))
      continue;
    const auto [at, fresh] = seen.emplace(weight.shape, name);
    if (!fresh)
      fail(ErrorKind::input,
           "{}: its layers '{}' and '{}' have one form and stand in alphabetical order, as Keras "
           "stores those of a class of one's own, so that the file does not say which computes "
           "first; build the model with keras.Sequential or keras.Model(inputs, outputs), load "
           "these weights into its layers, and save it whole (model.save('model.keras'))",
           file, clipped(printable(at->second)), clipped(printable(name)));
  }
}

KerasLayout::KerasLayout(std::span<const H5Weight> weights, std::span<const std::string> order)
    : weights_(weights) {
  for (const std::string& name : order) rank_.emplace(name, rank_.size());
  std::map<std::string, std::set<std::string>> parents;
  for (const H5Weight& weight : weights_) {
    parents[weight.layer].insert(
        weight.name.substr(0, std::min(weight.name.rfind('/'), weight.name.size())));
    numbered_ = numbered_ || weight.path.find("/vars/") != std::string::npos;
  }
  for (const auto& [layer, names] : parents)
    if (names.size() == 1) single_.insert(layer);
}

KerasPlace KerasLayout::place_of(const H5Weight& weight) const {
  if (is_single(weight.layer)) return {"", weight.layer};
  const size_t leaf = weight.name.rfind('/');
  if (leaf == std::string::npos || leaf == 0) return {"", weight.layer};
  const size_t before = weight.name.rfind('/', leaf - 1);
  const size_t begin = before == std::string::npos ? 0 : before + 1;
  std::string parent = weight.name.substr(begin, leaf - begin);
  if (parent == weight.layer || without_repeat(parent) == weight.layer) return {"", weight.layer};
  std::string model = weight.layer;
  if (begin > 1) model += "/" + weight.name.substr(0, begin - 1);
  return {model, std::move(parent)};
}

std::map<std::string, std::vector<KerasPart>> KerasLayout::parts() const {
  std::map<std::string, std::vector<KerasPart>> out;
  // In a model that is a layer those of a BatchNorm that do not train stand behind all others.
  std::map<std::pair<std::string, std::string>, size_t> known;
  for (size_t i = 0; i < weights_.size(); ++i) {
    const H5Weight& weight = weights_[i];
    const std::string role = keras_role(weight.name);
    if (role.empty() || !weight.problem.empty()) continue;
    KerasPlace where = place_of(weight);
    std::vector<KerasPart>& model = out[where.model];
    const auto [at, fresh] = known.try_emplace({where.model, where.layer}, model.size());
    if (fresh) model.push_back({std::move(where.layer), {}});
    model[at->second].roles.emplace(role, i);
  }
  for (auto& [name, model] : out)
    if (!name.empty() && !numbered_) sort(model);
  return out;
}

void KerasLayout::sort(std::vector<KerasPart>& model) const {
  const auto rank = [&](const KerasPart& part) {
    const auto exact = rank_.find(part.layer);
    return exact != rank_.end() ? exact : rank_.find(without_repeat(part.layer));
  };
  if (std::all_of(model.begin(), model.end(),
                  [&](const KerasPart& part) { return rank(part) != rank_.end(); })) {
    std::stable_sort(model.begin(), model.end(), [&](const KerasPart& a, const KerasPart& b) {
      return rank(a)->second < rank(b)->second;
    });
    return;
  }
  // Keras numbers layers as they are made.
  for (const char* stem : {"conv2d", "batch_normalization"}) {
    std::vector<size_t> places;
    std::vector<KerasPart> parts;
    for (size_t i = 0; i < model.size(); ++i)
      if (default_number(model[i].layer, stem)) {
        places.push_back(i);
        parts.push_back(model[i]);
      }
    std::stable_sort(parts.begin(), parts.end(), [&](const KerasPart& a, const KerasPart& b) {
      return default_number(a.layer, stem) < default_number(b.layer, stem);
    });
    for (size_t i = 0; i < places.size(); ++i) model[places[i]] = std::move(parts[i]);
  }
}

}  // namespace graft
