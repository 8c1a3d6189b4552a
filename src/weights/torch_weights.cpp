#include "weights/torch_weights.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"

namespace graft {
namespace {

constexpr std::string_view kFeatures = "features.";
// BatchNorm's count of steps, which inference does not need.
constexpr std::string_view kSteps = ".num_batches_tracked";

/// The first convolution of a VGG: any number of 3×3 kernels over three channels.
bool is_first_convolution(const std::string& name, const StoredTensor& tensor) {
  constexpr std::string_view kName = "0.weight";
  const bool named = name == kName || name.ends_with("." + std::string(kName));
  const std::vector<int64_t>& s = tensor.shape;
  return named && s.size() == 4 && s[1] == 3 && s[2] == 3 && s[3] == 3;
}

std::string module_of(const std::string& name) {
  const size_t dot = name.rfind('.');
  return printable(dot == std::string::npos ? name : name.substr(0, dot));
}

/// timm's convolutions of the whole map are dense layers.
std::vector<int64_t> canonical_shape(const std::vector<int64_t>& shape, bool dense) {
  if (!dense || shape.size() != 4) return shape;
  const auto inputs = element_count({shape[1], shape[2], shape[3]});
  return inputs ? std::vector<int64_t>{shape[0], static_cast<int64_t>(*inputs)} : shape;
}

/// Convolutions whose weight is computed from other tensors.
void require_plain(const std::string& file, const StoredTensors& tensors) {
  for (const auto& [key, tensor] : tensors) {
    if (tensor.shape.size() != 4) continue;
    if (const std::string why = computed_from(key, tensors); !why.empty())
      fail(ErrorKind::input, "{}: {}", file, why);
  }
}

/// The number that a name begins with: 23 of "23.weight"; nothing where it is not one and a role.
std::optional<size_t> place_of(std::string_view name) {
  const size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits > 6 || name.find('.') != digits) return std::nullopt;
  return std::strtoull(std::string(name.substr(0, digits)).c_str(), nullptr, 10);
}

}  // namespace

std::string computed_from(const std::string& key, const StoredTensors& tensors) {
  const auto stem = [&](std::string_view end) {
    return key.ends_with(end) ? key.substr(0, key.size() - end.size()) : std::string();
  };
  const auto beside = [&](std::string_view end, std::string_view other) {
    const std::string name = stem(end);
    return !name.empty() && tensors.contains(name + std::string(other));
  };
  if (beside("_orig", "_mask"))
    return fmt::format(
        "a pruned network ({} beside its mask); apply the masks before it is saved, in Python: for "
        "m in model.modules(): torch.nn.utils.prune.is_pruned(m) and hasattr(m, 'weight_mask') and "
        "torch.nn.utils.prune.remove(m, 'weight')",
        clipped(printable(key)));
  const char* remove = key.find(".parametrizations.") != std::string::npos
                           ? "parametrize.remove_parametrizations(module, 'weight')"
                       : beside("weight_g", "weight_v")    ? "remove_weight_norm(module)"
                       : beside("weight_orig", "weight_u") ? "remove_spectral_norm(module)"
                                                           : nullptr;
  if (remove == nullptr) return "";
  return fmt::format(
      "weights that are computed from others ({}); make them plain before they are saved, in "
      "Python: torch.nn.utils.{}",
      clipped(printable(key)), remove);
}

TorchMatcher::TorchMatcher(std::string name, const StoredTensors& tensors)
    : name_(std::move(name)), tensors_(tensors) {
  require_plain(name_, tensors_);
  std::vector<std::string> places;
  for (const auto& [key, tensor] : tensors)
    if (is_first_convolution(key, tensor))
      places.push_back(key.substr(0, key.size() - std::string_view("0.weight").size()));
  if (places.size() > 1)
    fail(ErrorKind::input,
         "{}: it holds more than one network ({}); write the state_dict of the one that is meant "
         "on its own",
         name_, printable(fmt::format("{}", fmt::join(places, ", "))));
  if (places.empty()) {
    constexpr size_t kExamples = 5;
    std::vector<std::string> examples;
    for (const auto& [key, tensor] : tensors)
      if (examples.size() < kExamples) examples.push_back(printable(key));
    fail(ErrorKind::input,
         "{}: no VGG's tensors are in it, which torchvision and timm name features.0.weight and so "
         "on; it has {}{}",
         name_, examples.empty() ? "none" : fmt::format("{}", fmt::join(examples, ", ")),
         tensors.size() > kExamples ? ", …" : "");
  }
  prefix_ = places.front();
  const bool named = prefix_ == kFeatures || prefix_.ends_with("." + std::string(kFeatures));
  if (named)
    prefix_.resize(prefix_.size() - kFeatures.size());
  else
    features_only_ = true;
  for (const auto& [key, tensor] : tensors)  // nn.Sequential(*features, …, Linear(…))
    if (features_only_ && tensor.shape.size() == 2 && key.starts_with(prefix_))
      if (const auto place = place_of(std::string_view(key).substr(prefix_.size())))
        features_end_ = std::min(features_end_, *place);
  for (const auto& [key, tensor] : tensors)
    if (ours(key).starts_with("pre_logits.") || ours(key).starts_with("head."))
      names_ = TorchNames::timm;
}

/// A name without the prefix, as torchvision has it; empty: it is not the VGG's.
std::string TorchMatcher::ours(const std::string& name) const {
  if (!name.starts_with(prefix_)) return "";
  std::string rest = name.substr(prefix_.size());
  if (!features_only_) return rest;
  const std::optional<size_t> place = place_of(rest);
  return place && *place < features_end_ ? std::string(kFeatures) + rest : "";
}

ShapeMap TorchMatcher::shapes(const Network& full) const {
  std::map<std::string, std::string> canonical;
  for (const auto& [ours_name, theirs] : torch_names(full, names_))
    canonical.emplace(theirs, ours_name);
  ShapeMap out;
  for (const auto& [key, tensor] : tensors_) {
    const std::string theirs = ours(key);
    const auto at = canonical.find(theirs);
    if (at != canonical.end())
      out.emplace(at->second, canonical_shape(tensor.shape, !theirs.starts_with(kFeatures)));
    else if (theirs.starts_with(kFeatures) && !theirs.ends_with(kSteps))
      out.emplace(theirs, tensor.shape);  // of a VGG that is not this one
  }
  return out;
}

ShapesFor TorchMatcher::convolutions() const {
  return [this](const Network& network) {
    ShapeMap found = shapes(network);
    std::erase_if(found, [&](const auto& item) {
      const size_t dot = item.first.rfind('.');
      const std::optional<size_t> layer = find_layer(network, item.first.substr(0, dot));
      return layer && network.layers[*layer].kind == LayerKind::dense;
    });
    return found;
  };
}

TensorMap TorchMatcher::read(const Network& full, size_t needed_end) const {
  check_tensors(full, needed_end, shapes(full), name_, fit_hint(convolutions(), full));
  const std::map<std::string, std::string> theirs = torch_names(full, names_);
  TensorMap out;
  for (const TensorSpec& spec : tensor_specs(full, 0, needed_end)) {
    std::string name = theirs.at(spec.name);
    if (features_only_) name.erase(0, kFeatures.size());
    const Tensor tensor = tensors_.at(prefix_ + name).read();
    // timm's convolution over the whole map has its numbers in the order of a dense layer's.
    const auto owner = std::make_shared<const Tensor>(tensor);
    out.emplace(spec.name, Tensor(spec.shape, owner->values(), owner));
  }
  return out;
}

const StoredTensor* TorchMatcher::find(const std::string& canonical, const Network& full) const {
  const std::map<std::string, std::string> names = torch_names(full, names_);
  const auto theirs = names.find(canonical);
  if (theirs == names.end()) return nullptr;
  const size_t skipped = features_only_ ? kFeatures.size() : 0;
  if (theirs->second.size() < skipped) return nullptr;
  const auto at = tensors_.find(prefix_ + theirs->second.substr(skipped));
  return at == tensors_.end() ? nullptr : &at->second;
}

std::string TorchMatcher::module(const Layer& layer, const Network& full) const {
  const std::map<std::string, std::string> names = torch_names(full, names_);
  const auto theirs = names.find(layer.name + ".weight");
  return theirs == names.end() ? layer.name : module_of(prefix_ + theirs->second);
}

std::optional<int> TorchMatcher::classes() const {
  // Every VGG's classifier has the same form.
  const Network full = backbone("vgg16", 224, 224, /*include_top=*/true);
  const std::string last = torch_names(full, names_).at(full.layers.back().name + ".weight");
  const auto at = tensors_.find(prefix_ + last);
  constexpr int64_t kMaxClasses = 1'000'000;
  if (features_only_ || at == tensors_.end() || at->second.shape.empty() ||
      at->second.shape[0] < 1 || at->second.shape[0] > kMaxClasses)
    return std::nullopt;
  return static_cast<int>(at->second.shape[0]);
}

std::vector<std::string> TorchMatcher::behind_features() const {
  std::vector<std::string> out;
  for (const auto& [key, tensor] : tensors_)
    if (!ours(key).starts_with(kFeatures)) out.push_back(key);
  return out;
}

std::vector<std::string> TorchMatcher::left_out(const Network& full) const {
  std::set<std::string> known;
  for (const auto& [canonical, theirs] : torch_names(full, names_)) known.insert(theirs);
  std::vector<std::string> out;
  for (const auto& [key, tensor] : tensors_) {
    const std::string theirs = ours(key);
    if (theirs.starts_with(kFeatures) || known.contains(theirs)) continue;
    std::string module = module_of(key);
    if (out.empty() || out.back() != module) out.push_back(std::move(module));
  }
  return out;
}

}  // namespace graft
