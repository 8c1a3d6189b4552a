// The head's language: words separated by blanks or commas.
#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/words.h"
#include "graft/network.h"

namespace graft {
namespace {

// Keras' BatchNormalization default is 1e-3; PyTorch's 1e-5 is what the head trains with.
constexpr double kHeadEpsilon = 1e-5;
constexpr int kMostUnits = 1 << 20;
constexpr size_t kMostWords = 500;  // with a backbone's layers within what a model file may hold

constexpr const char* kWords =
    "conv:N, maxpool, gap, gmp, stats, batchnorm, flatten, dense:N, dropout:P, or the preset "
    "default";

const std::vector<std::string> kNames = {"conv",      "maxpool", "gap",   "gmp",     "stats",
                                         "batchnorm", "flatten", "dense", "dropout", "default"};

int parse_units(std::string_view word, std::string_view argument) {
  int value = 0;
  const char* end = argument.data() + argument.size();
  const auto [at, error] = std::from_chars(argument.data(), end, value);
  if (error != std::errc() || at != end || value < 1 || value > kMostUnits)
    fail(ErrorKind::usage, "`head`: '{}' needs a whole number from 1 to {}, as in '{}:256'",
         clipped(word), kMostUnits, word.substr(0, word.find(':')));
  return value;
}

double parse_rate(std::string_view word, std::string_view argument) {
  double value = -1;
  const char* end = argument.data() + argument.size();
  const auto [at, error] = std::from_chars(argument.data(), end, value);
  if (error != std::errc() || at != end || !(value >= 0 && value < 1))
    fail(ErrorKind::usage,
         "`head`: '{}' needs a fraction from 0 up to, not including, 1, as in "
         "'dropout:0.2'",
         clipped(word));
  return value;
}

/// Appends layers with names that are free in the network.
class HeadBuilder {
 public:
  explicit HeadBuilder(Network& network) : network_(network) {
    flat_ = output_shapes(network).back().flat;
    for (const Layer& layer : network.layers) names_.insert(layer.name);
  }

  void add(const std::string& word) {
    const size_t colon = word.find(':');
    const std::string_view name = std::string_view(word).substr(0, colon);
    const bool has_argument = colon != std::string::npos;
    const std::string_view argument =
        has_argument ? std::string_view(word).substr(colon + 1) : std::string_view();
    const std::optional<LayerKind> kind = layer_kind(name);
    if (!kind || *kind == LayerKind::input)
      fail(ErrorKind::usage, "`head`: unknown word '{}'{}; words are: {}", clipped(word),
           did_you_mean(name, kNames), kWords);
    const bool wants =
        *kind == LayerKind::conv || *kind == LayerKind::dense || *kind == LayerKind::dropout;
    if (wants && !has_argument)
      fail(ErrorKind::usage, "`head`: '{}' needs a value, as in '{}:{}'", clipped(word), name,
           *kind == LayerKind::dropout ? "0.2" : "256");
    if (!wants && has_argument)
      fail(ErrorKind::usage, "`head`: '{}' takes no value; write '{}'", clipped(word), name);
    add(*kind, word, argument);
  }

  void add_predictions(int classes) {
    require_flat("the last Dense to the classes");
    push({.kind = LayerKind::dense, .name = "predictions", .outputs = classes});
  }

 private:
  void add(LayerKind kind, const std::string& word, std::string_view argument) {
    switch (kind) {
      case LayerKind::conv:
        require_maps(word);
        push({.kind = kind,
              .name = fmt::format("head_conv{}", ++convolutions_),
              .outputs = parse_units(word, argument),
              .relu = true});
        break;
      case LayerKind::maxpool:
        require_maps(word);
        push({.kind = kind, .name = fmt::format("head_pool{}", ++poolings_)});
        break;
      case LayerKind::gap:
      case LayerKind::gmp:
      case LayerKind::stats:
      case LayerKind::flatten:
        require_maps(word);
        push({.kind = kind, .name = std::string(to_string(kind))});
        flat_ = true;
        break;
      case LayerKind::batchnorm:
        add_batchnorm();
        break;
      case LayerKind::dense:
        require_flat("'" + clipped(word) + "'");
        push({.kind = kind,
              .name = fmt::format("fc{}", ++denses_),
              .outputs = parse_units(word, argument),
              .relu = true});
        break;
      case LayerKind::dropout:
        push({.kind = kind,
              .name = fmt::format("dropout{}", ++dropouts_),
              .rate = parse_rate(word, argument)});
        break;
      case LayerKind::input:
        break;
    }
  }

  void add_batchnorm() {
    Layer& before = network_.layers.back();
    const bool follows = before.in_head && before.relu;
    push({.kind = LayerKind::batchnorm,
          .name = follows ? before.name + "_bn" : fmt::format("batchnorm{}", ++batchnorms_),
          .epsilon = kHeadEpsilon,
          .relu = follows});
    if (follows) network_.layers[network_.layers.size() - 2].relu = false;
  }

  void require_maps(std::string_view word) const {
    if (flat_)
      fail(ErrorKind::usage,
           "`head`: '{}' works on maps, but what comes before it is a flat "
           "vector; move it before gap, gmp, stats or flatten",
           clipped(word));
  }

  void require_flat(const std::string& what) const {
    if (!flat_)
      fail(ErrorKind::usage,
           "`head`: {} needs a flat vector; put one of gap, gmp, stats or "
           "flatten before it",
           what);
  }

  void push(Layer layer) {
    layer.in_head = true;
    while (!names_.insert(layer.name).second) layer.name = "head_" + layer.name;
    append(network_, std::move(layer));
  }

  Network& network_;
  std::set<std::string> names_;
  bool flat_ = false;
  int convolutions_ = 0, poolings_ = 0, denses_ = 0, dropouts_ = 0, batchnorms_ = 0;
};

}  // namespace

std::string_view default_head(const Network& backbone) {
  if (backbone.layers.empty()) fail(ErrorKind::usage, "a head on a network without layers");
  // Large maps were measured at 18×18, middle ones at 7×7 (docs/recipes.md); the limits are chosen.
  constexpr int64_t kLargeSide = 8;
  constexpr int64_t kMiddleSide = 6;
  const Shape shape = output_shapes(backbone).back();
  if (shape.flat) return "dense:256 dropout:0.5";
  const int64_t side = std::min(shape.height, shape.width);
  if (side < kMiddleSide) return "stats batchnorm dense:256 dropout:0.5";
  if (side < kLargeSide) return "batchnorm conv:256 batchnorm stats dropout:0.5";
  return "batchnorm conv:128 batchnorm maxpool conv:256 batchnorm maxpool gap dropout:0.3";
}

Network with_head(Network network, std::string_view language, int classes) {
  if (network.layers.empty()) fail(ErrorKind::usage, "a head on a network without layers");
  if (language == "default") language = default_head(network);
  if (classes < 2) fail(ErrorKind::usage, "a classifier needs at least 2 classes, not {}", classes);
  if (language == "keep")
    fail(ErrorKind::usage, "`head` keep is for 'graft train', with a classifier as `weights`");
  const std::vector<std::string> words = split_words(std::string(language));
  if (words.size() > kMostWords)
    fail(ErrorKind::usage, "`head`: {} words; a head has at most {}", words.size(), kMostWords);
  HeadBuilder builder(network);
  for (const std::string& word : words) builder.add(word);
  builder.add_predictions(classes);
  check_extents(network);  // throws, too, where a map shrinks to nothing
  return network;
}

}  // namespace graft
