#include "weights/foreign_head.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "base/fail.h"

namespace graft {
namespace {

std::optional<LayerKind> kind_of(const ForeignPart& part) {
  const auto weight = part.tensors.find("weight");
  if (const auto variance = part.tensors.find("running_var"); variance != part.tensors.end())
    return variance->second.shape.size() == 1 ? std::optional(LayerKind::batchnorm) : std::nullopt;
  if (weight == part.tensors.end()) return std::nullopt;
  if (weight->second.shape.size() == 4) return LayerKind::conv;
  if (weight->second.shape.size() == 2) return LayerKind::dense;
  return std::nullopt;
}

std::string described(const std::vector<ForeignPart>& parts) {
  std::vector<std::string> out;
  for (const ForeignPart& part : parts) {
    const std::optional<LayerKind> kind = kind_of(part);
    const auto weight = part.tensors.find("weight");
    const std::string shape =
        kind && *kind != LayerKind::batchnorm && weight != part.tensors.end()
            ? fmt::format(" {} to {}", weight->second.shape[1], weight->second.shape[0])
            : "";
    out.push_back(fmt::format("{} ({}{})", part.name, kind ? to_string(*kind) : "unknown", shape));
  }
  return out.empty() ? "none" : fmt::format("{}", fmt::join(out, ", "));
}

/// The parts with BatchNorms behind the layers whose outputs they normalise: files that number
/// layers by class have them in front of all.
std::vector<ForeignPart> with_norms_in_place(const std::vector<ForeignPart>& parts) {
  std::vector<ForeignPart> out;
  std::vector<ForeignPart> norms;
  const auto extent = [](const ForeignPart& norm) {
    return norm.tensors.at("running_var").shape.at(0);
  };
  for (const ForeignPart& part : parts) {
    const std::optional<LayerKind> kind = kind_of(part);
    const bool first = std::all_of(out.begin(), out.end(), [](const ForeignPart& p) {
      return kind_of(p) == LayerKind::batchnorm;
    });
    if (kind == LayerKind::batchnorm && first) {
      norms.push_back(part);
      continue;
    }
    if (first && (kind == LayerKind::dense || kind == LayerKind::conv)) {
      // In front of all stays what fits there.
      const int64_t inputs = part.tensors.at("weight").shape[1];
      while (!norms.empty() && extent(norms.front()) == inputs) {
        out.push_back(norms.front());
        norms.erase(norms.begin());
      }
    }
    out.push_back(part);
    if (kind != LayerKind::dense && kind != LayerKind::conv) continue;
    const int64_t outputs = part.tensors.at("weight").shape[0];
    if (!norms.empty() && extent(norms.front()) == outputs) {
      out.push_back(norms.front());
      norms.erase(norms.begin());
    }
  }
  out.insert(out.begin(), norms.begin(), norms.end());
  return out;
}

/// The number at the end of a module's name ("classifier.3"), and what stands before it.
std::optional<std::pair<std::string, int>> numbered(const std::string& name) {
  const size_t digits = name.find_last_not_of("0123456789") + 1;
  if (digits == name.size() || digits == 0 || name[digits - 1] != '.' || name.size() - digits > 6)
    return std::nullopt;
  return std::pair(name.substr(0, digits), std::stoi(name.substr(digits)));
}

/// How many modules without weights stand between two layers of a Sequential; nothing where their
/// names do not say.
std::optional<int> room_between(const std::string& a, const std::string& b) {
  const auto first = numbered(a);
  const auto second = numbered(b);
  if (!first || !second || first->first != second->first || second->second <= first->second)
    return std::nullopt;
  return second->second - first->second - 1;
}

/// Numbers of modules say where there can be no ReLU, which words may claim.
void refuse_without_room(const ForeignGraph& graph, const Network& whole, size_t first,
                         const std::vector<ForeignPart>& parts) {
  size_t k = 0;
  for (size_t i = first; i < whole.layers.size(); ++i) {
    if (tensor_specs(whole, i, i + 1).empty()) continue;
    if (k + 1 >= parts.size()) return;
    const ForeignPart& part = parts[k];
    const ForeignPart& next = parts[k + 1];
    ++k;
    const std::optional<int> room = room_between(part.name, next.name);
    if (!whole.layers[i].relu || room.value_or(1) > 0) continue;
    if (kind_of(next) == LayerKind::batchnorm)
      fail(ErrorKind::usage,
           "`head`: the words have a ReLU between {} and {}, and in {} nothing stands there; write "
           "batchnorm right behind {}:N, without dropout:0",
           part.name, next.name, graph.file, to_string(whole.layers[i].kind));
    fail(ErrorKind::input,
         "{}: nothing stands between {} and {}, and a layer of a head of Graft's has a ReLU before "
         "the next one",
         graph.file, part.name, next.name);
  }
}

/// Words that the parts may be those of.
std::string suggestion(const Network& backbone, const std::vector<ForeignPart>& found) {
  const std::vector<ForeignPart> parts = with_norms_in_place(found);
  const int64_t channels = output_shapes(backbone).back().channels;
  std::string out;
  for (size_t i = 0; i + 1 < std::max<size_t>(parts.size(), 1); ++i) {
    const std::optional<LayerKind> kind = kind_of(parts[i]);
    if (!kind) continue;
    if (*kind == LayerKind::batchnorm) {
      // Of more numbers than there are channels only behind a flatten.
      const bool flat = parts[i].tensors.at("running_var").shape.at(0) != channels;
      if (flat && out.find("conv") == std::string::npos && out.find("dense") == std::string::npos)
        out += " flatten";
      // With room for a ReLU in front of it and none behind.
      const bool behind_relu = i > 0 && kind_of(parts[i - 1]) != LayerKind::batchnorm &&
                               room_between(parts[i - 1].name, parts[i].name).value_or(0) > 0 &&
                               (i + 1 == parts.size() ||
                                room_between(parts[i].name, parts[i + 1].name).value_or(1) == 0 ||
                                i + 2 >= parts.size());
      out += behind_relu ? " dropout:0 batchnorm" : " batchnorm";
    } else {
      const std::vector<int64_t>& shape = parts[i].tensors.at("weight").shape;
      if (*kind == LayerKind::dense && out.find("dense") == std::string::npos &&
          out.find("flatten") == std::string::npos)
        out += shape[1] == channels ? " gap" : " flatten";
      out += fmt::format(" {}:{}", to_string(*kind), shape[0]);
    }
  }
  if (out.find("dense") == std::string::npos && out.find("flatten") == std::string::npos &&
      !parts.empty())
    if (const auto weight = parts.back().tensors.find("weight");
        weight != parts.back().tensors.end() && weight->second.shape.size() == 2)
      out += weight->second.shape[1] == channels ? " gap" : " flatten";
  return out.empty() ? "gap" : out.substr(1);
}

/// Of a file with a BatchNorm that may stand on either side of a ReLU.
const char* said_of_norms(const std::vector<ForeignPart>& parts) {
  const bool any = std::any_of(parts.begin(), parts.end(), [](const ForeignPart& part) {
    return kind_of(part) == LayerKind::batchnorm;
  });
  return any ? ", a batchnorm right behind one stands in front of its ReLU, and behind it with "
               "dropout:0 between"
             : "";
}

/// Whether layers of the head have a ReLU is what words say of a file whose names do not.
void note_relus(ForeignGraph& graph, size_t first) {
  std::vector<const ForeignLayer*> layers;
  for (size_t i = first; i < graph.layers.size(); ++i)
    if (!graph.layers[i].tensors.empty()) layers.push_back(&graph.layers[i]);
  std::vector<std::string> names;
  for (size_t i = 0; i + 1 < layers.size(); ++i)
    if (layers[i]->relu && layers[i]->kind != LayerKind::batchnorm &&
        !room_between(layers[i]->name, layers[i + 1]->name))
      names.push_back(layers[i]->name);
  if (!names.empty())
    graph.notes.push_back(
        fmt::format("a ReLU is taken to stand behind {}, as `head` has it behind "
                    "each conv and dense; the file does not say so",
                    fmt::join(names, ", ")));
}

/// Which of the two orders was taken, of which the file says nothing.
void note_norms(ForeignGraph& graph, const Network& whole) {
  for (const Layer& layer : whole.layers) {
    if (!layer.in_head || layer.kind != LayerKind::batchnorm || !layer.relu) continue;
    const Layer& before = whole.layers[layer.source()];
    const std::string word = fmt::format("{}:{}", to_string(before.kind), before.outputs);
    graph.notes.push_back(
        fmt::format("`head` \"{} batchnorm\" puts the ReLU behind the BatchNorm, and the file does "
                    "not say where it is; for a ReLU in front ({}(…, activation='relu'), "
                    "BatchNormalization) write \"{} dropout:0 batchnorm\"",
                    word, before.kind == LayerKind::conv ? "Conv2D" : "Dense", word));
  }
}

}  // namespace

void append_head(ForeignGraph& graph, const Network& backbone, const std::string& words,
                 const std::vector<ForeignPart>& parts, double epsilon) {
  for (const ForeignPart& part : parts)
    if (!kind_of(part))
      fail(ErrorKind::input,
           "{}: layer {} is of no kind that a head of Graft's has, or lacks some of its weights "
           "(BatchNorm without scale, a layer in front of the network){}",
           graph.file, part.name,
           graph.family == "keras" ? ": save the whole model, model.save('model.keras')" : "");
  if (words.empty())
    fail(ErrorKind::usage,
         "{}: it has weights, but does not say how a head computes with them. {} the head, whose "
         "layers are {}, with "
         "`head`, perhaps \"{}\" (dense and conv carry a ReLU, the last dense is implied{}); or "
         "take the backbone alone with `without-head`",
         graph.file,
         graph.family == "keras"
             ? "Save the whole model (in Keras with model.save('model.keras')), or describe"
             : "Describe",
         described(parts), suggestion(backbone, parts), said_of_norms(parts));
  constexpr int kAnyClasses = 2;
  const Network whole = with_head(backbone, words, kAnyClasses);
  const size_t first = graph.layers.size();
  std::map<LayerKind, std::deque<const ForeignPart*>> waiting;
  for (const ForeignPart& part : parts)
    if (const std::optional<LayerKind> kind = kind_of(part)) waiting[*kind].push_back(&part);
  for (size_t i = backbone.layers.size(); i < whole.layers.size(); ++i) {
    const Layer& layer = whole.layers[i];
    ForeignLayer made{.name = layer.name,
                      .kind = layer.kind,
                      .outputs = layer.outputs,
                      .rate = layer.rate,
                      .epsilon = layer.kind == LayerKind::batchnorm ? epsilon : 0,
                      .relu = layer.relu};
    if (!tensor_specs(whole, i, i + 1).empty()) {
      std::deque<const ForeignPart*>& queue = waiting[layer.kind];
      if (queue.empty())
        fail(ErrorKind::usage,
             "`head`: it has more {} layers than {}, whose layers behind the backbone are {}",
             to_string(layer.kind), graph.file, described(parts));
      const ForeignPart& part = *queue.front();
      queue.pop_front();
      made.name = part.name;
      made.tensors = part.tensors;
      if (layer.kind != LayerKind::batchnorm) {
        const int64_t outputs = part.tensors.at("weight").shape[0];
        constexpr int64_t kMostOutputs = 1 << 20;
        const bool last = i + 1 == whole.layers.size();
        if (outputs > kMostOutputs || (!last && outputs != layer.outputs))
          fail(ErrorKind::usage,
               "`head`: {}:{} is layer {} of {}, which has {} outputs; its layers behind the "
               "backbone are {}: perhaps \"{}\"",
               to_string(layer.kind), layer.outputs, part.name, graph.file, outputs,
               described(parts), suggestion(backbone, parts));
        made.outputs = static_cast<int>(outputs);
      }
    }
    graph.layers.push_back(std::move(made));
  }
  refuse_without_room(graph, whole, backbone.layers.size(), parts);
  note_relus(graph, first);
  note_norms(graph, whole);
  for (const auto& [kind, queue] : waiting)
    if (!queue.empty())
      fail(ErrorKind::usage,
           "`head`: {} has a {} layer more, {}, than the words say; its layers behind the backbone "
           "are {}",
           graph.file, to_string(kind), queue.front()->name, described(parts));
}

}  // namespace graft
