#include "weights/keras_layout.h"

#include <algorithm>
#include <utility>

#include "weights/keras_names.h"

namespace graft {

KerasLayout::KerasLayout(std::span<const H5Weight> weights) : weights_(weights) {
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
  return out;
}

}  // namespace graft
