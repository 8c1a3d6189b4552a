#include "weights/torch_classifier.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "weights/foreign_head.h"
#include "weights/match.h"
#include "weights/torch_weights.h"

namespace graft {
namespace {

// Convolutions do not depend on it.
constexpr int kSide = 224;
constexpr double kTorchDropout = 0.5;  // torchvision/models/vgg.py

StoredTensor flattened(StoredTensor tensor) {
  if (tensor.shape.size() != 4) return tensor;
  // timm's convolution over the whole map has its numbers in the order of a dense layer's.
  const std::vector<int64_t> shape = {tensor.shape[0],
                                      tensor.shape[1] * tensor.shape[2] * tensor.shape[3]};
  tensor.shape = shape;
  tensor.read = [read = std::move(tensor.read), shape] {
    const auto owner = std::make_shared<const Tensor>(read());
    return Tensor(shape, owner->values(), owner);
  };
  return tensor;
}

/// Names with numbers in them in the order of the numbers: classifier.2 before classifier.10.
bool in_order(const std::string& a, const std::string& b) {
  size_t i = 0;
  size_t j = 0;
  const auto digit = [](const std::string& text, size_t at) {
    return at < text.size() && text[at] >= '0' && text[at] <= '9';
  };
  const auto number = [&](const std::string& text, size_t& at) {
    std::string out;
    for (; digit(text, at); ++at)
      if (!out.empty() || text[at] != '0') out += text[at];
    return out;
  };
  while (i < a.size() && j < b.size()) {
    if (digit(a, i) && digit(b, j)) {
      const std::string m = number(a, i);
      const std::string n = number(b, j);
      if (m.size() != n.size()) return m.size() < n.size();
      if (m != n) return m < n;
    } else if (a[i] != b[j]) {
      return a[i] < b[j];
    } else {
      ++i;
      ++j;
    }
  }
  return a.size() - i < b.size() - j;
}

bool is_role(std::string_view leaf) {
  return leaf == "weight" || leaf == "bias" || leaf == "running_mean" || leaf == "running_var";
}

/// What stands behind the features.
struct Behind {
  std::vector<ForeignPart> parts;
  std::vector<std::string> stray;  ///< tensors that are no layer's: buffers
};

Behind behind(const TorchMatcher& matcher, const StoredTensors& tensors,
              std::span<const std::string> order, const std::string& file) {
  constexpr size_t kMostTensors = 2000;
  std::vector<std::string> names = matcher.behind_features();
  if (names.size() > kMostTensors)
    fail(ErrorKind::input, "{}: {} tensors behind its features; a head has at most {}", file,
         names.size(), kMostTensors);
  if (order.empty()) {
    std::sort(names.begin(), names.end(), in_order);
  } else {
    const std::set<std::string> known(names.begin(), names.end());
    names.clear();
    std::copy_if(order.begin(), order.end(), std::back_inserter(names),
                 [&](const std::string& name) { return known.contains(name); });
  }
  Behind out;
  for (const std::string& name : names) {
    const StoredTensor& tensor = tensors.at(name);
    if (tensor.type == ElementType::other) continue;  // counts of steps
    if (const std::string why = computed_from(name, tensors); !why.empty())
      fail(ErrorKind::input, "{}: {}", file, why);
    const size_t dot = name.rfind('.');
    const std::string leaf = dot == std::string::npos ? name : name.substr(dot + 1);
    if (!is_role(leaf)) {
      out.stray.push_back(clipped(printable(name)));
      continue;
    }
    const std::string module = printable(dot == std::string::npos ? name : name.substr(0, dot));
    auto at = std::find_if(out.parts.begin(), out.parts.end(),
                           [&](const ForeignPart& part) { return part.name == module; });
    if (at == out.parts.end()) at = out.parts.insert(at, ForeignPart{module, {}});
    at->tensors.emplace(
        leaf, matcher.names() == TorchNames::timm && leaf == "weight" ? flattened(tensor) : tensor);
  }
  return out;
}

/// Without an order of the file's, two layers of one form are told apart by numbers alone.
void require_order(const std::vector<ForeignPart>& parts, const std::string& file) {
  const auto stem = [](const std::string& name) {
    return name.substr(0, name.find_last_not_of("0123456789") + 1);
  };
  for (const ForeignPart& a : parts)
    for (const ForeignPart& b : parts) {
      const auto first = a.tensors.find("weight");
      const auto second = b.tensors.find("weight");
      if (&a == &b || first == a.tensors.end() || second == b.tensors.end() ||
          first->second.shape != second->second.shape || stem(a.name) == stem(b.name))
        continue;
      fail(
          ErrorKind::input,
          "{}: layers {} and {} have one form, and a safetensors file has no order that says which "
          "comes first; write the state_dict as a .pth file, in Python: "
          "torch.save(model.state_dict(), 'weights.pth')",
          file, clipped(printable(a.name)), clipped(printable(b.name)));
    }
}

/// Dense layers in the order in which each reads what the one before makes, from one that reads
/// `channels` or a multiple of them, where their shapes allow one order alone; else as they are.
void put_in_order(std::vector<ForeignPart>& parts, int64_t channels) {
  const auto shape = [](const ForeignPart& part) {
    const auto weight = part.tensors.find("weight");
    return weight == part.tensors.end() || weight->second.shape.size() != 2 ? std::vector<int64_t>()
                                                                            : weight->second.shape;
  };
  std::vector<ForeignPart> rest = parts;
  std::vector<ForeignPart> out;
  while (!rest.empty()) {
    const auto fits = [&](const ForeignPart& part) {
      const std::vector<int64_t> s = shape(part);
      if (s.empty()) return false;
      return out.empty() ? s[1] % channels == 0 : s[1] == shape(out.back())[0];
    };
    auto at = std::find_if(rest.begin(), rest.end(), fits);
    if (at != rest.end() && std::find_if(at + 1, rest.end(), fits) != rest.end())
      // Of several a square one comes before the one that leads away from it.
      at = std::find_if(rest.begin(), rest.end(), [&](const ForeignPart& part) {
        return fits(part) && !out.empty() && shape(part)[0] == shape(part)[1];
      });
    if (at == rest.end()) return;
    out.push_back(*at);
    rest.erase(at);
  }
  parts = std::move(out);
}

/// torchvision's classifier as the file has it; nothing where it is another.
std::optional<std::vector<ForeignLayer>> torchvision_top(const TorchMatcher& matcher,
                                                         const Network& full,
                                                         const std::vector<ForeignPart>& parts) {
  std::vector<ForeignLayer> out;
  size_t used = 0;
  for (const Layer& layer : full.layers) {
    if (layer.kind == LayerKind::flatten) out.push_back({.name = layer.name, .kind = layer.kind});
    if (layer.kind != LayerKind::dense) continue;
    ForeignLayer made{.name = matcher.module(layer, full), .kind = layer.kind, .relu = layer.relu};
    for (const char* role : {"weight", "bias"})
      if (const StoredTensor* tensor = matcher.find(layer.name + "." + role, full))
        made.tensors.emplace(role, flattened(*tensor));
    const auto weight = made.tensors.find("weight");
    constexpr int64_t kMostOutputs = 1 << 20;
    if (weight == made.tensors.end() || weight->second.shape.size() != 2 ||
        weight->second.shape[0] < 1 || weight->second.shape[0] > kMostOutputs)
      return std::nullopt;
    made.outputs = static_cast<int>(weight->second.shape[0]);
    out.push_back(std::move(made));
    ++used;
    if (layer.relu)
      out.push_back({.name = "dropout", .kind = LayerKind::dropout, .rate = kTorchDropout});
  }
  // A classifier of another form is not taken in half.
  if (used != parts.size()) return std::nullopt;
  return out;
}

/// Whether the first dense layer of torchvision's classifier reads its maps of 7x7.
bool has_torchvision_maps(const std::vector<ForeignLayer>& top, const Network& trunk) {
  constexpr int64_t kMap = 7 * 7;
  for (const ForeignLayer& layer : top)
    if (layer.kind == LayerKind::dense)
      return layer.tensors.at("weight").shape[1] == output_shapes(trunk).back().channels * kMap;
  return false;
}

}  // namespace

ForeignGraph read_torch_classifier(const StoredTensors& tensors, std::span<const std::string> order,
                                   const std::string& file, const std::string& words) {
  constexpr double kTorchEpsilon = 1e-5;  // BatchNorm's default, which the file does not say
  const TorchMatcher matcher(file, tensors);
  const std::vector<Fit> fits = fitting_backbones(matcher.convolutions(), kSide, kSide);
  if (fits.empty())
    fail(ErrorKind::input,
         "{}: its features are not those of a VGG; 'graft weights inspect' says what differs",
         file);
  const Fit* fit = &fits.front();
  for (const Fit& other : fits)
    if (other.whole && !fit->whole) fit = &other;
  const Network full = backbone(fit->backbone, kSide, kSide, /*include_top=*/true);
  const Network trunk = cut_after(backbone(fit->backbone, kSide, kSide), fit->last_layer);
  ForeignGraph graph;
  graph.file = file;
  graph.family = matcher.names() == TorchNames::timm ? "timm" : "torchvision";
  graph.preprocessing = torchvision_preprocessing();
  for (const Layer& layer : trunk.layers) {
    if (layer.kind == LayerKind::input) continue;
    ForeignLayer made{.name = matcher.module(layer, full),
                      .kind = layer.kind,
                      .outputs = layer.outputs,
                      .epsilon = layer.epsilon,
                      .relu = layer.relu};
    for (const char* role : {"weight", "bias", "running_mean", "running_var"})
      if (const StoredTensor* tensor = matcher.find(layer.name + "." + role, full))
        made.tensors.emplace(role, *tensor);
    graph.layers.push_back(std::move(made));
  }
  Behind rest = behind(matcher, tensors, order, file);
  if (!rest.stray.empty())
    graph.notes.push_back(fmt::format("left out {}, which no layer has (buffers of the model)",
                                      fmt::join(rest.stray, ", ")));
  std::optional<std::vector<ForeignLayer>> top;
  if (fit->whole) top = torchvision_top(matcher, full, rest.parts);
  if (top && !words.empty() && has_torchvision_maps(*top, trunk))
    fail(ErrorKind::usage, "`head`: {} has torchvision's classifier; leave the option out", file);
  if (top && words.empty()) {
    for (ForeignLayer& layer : *top) graph.layers.push_back(std::move(layer));
    return graph;
  }
  if (order.empty()) put_in_order(rest.parts, output_shapes(trunk).back().channels);
  if (order.empty() && !words.empty()) require_order(rest.parts, file);
  append_head(graph, trunk, words, rest.parts, kTorchEpsilon);
  return graph;
}

}  // namespace graft
