// A network as a straight list of layers, and everything that derives from that list.
//
// Names are Keras': block1_conv1 … block5_pool, flatten, fc1, fc2, predictions. Activations are
// (N, C, H, W), convolution weights (out, in / groups, kernel, kernel), dense weights (out, in)
// with their input in C, H, W order. A ReLU is not a layer of its own: it is a flag of the layer
// that it follows. All functions are pure and thread-safe; bad arguments throw graft::Error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#pragma GCC visibility push(default)
namespace graft {

enum class LayerKind {
  input,
  conv,
  batchnorm,  ///< over channels
  maxpool,    ///< rows and columns that fill no window are dropped (Keras "valid")
  gap,        ///< global average pooling → (C)
  gmp,        ///< global max pooling → (C)
  stats,      ///< mean, maximum and population standard deviation of each map → (3C)
  flatten,    ///< (C, H, W) → (C·H·W)
  dense,
  dropout,
};

std::string_view to_string(LayerKind kind);
/// The kind with that name, or nothing.
std::optional<LayerKind> layer_kind(std::string_view name);

/// The square window that a convolution or a pooling moves over maps.
struct Window {
  int kernel = 0;   ///< rows and columns; 0: the layer has no window
  int stride = 1;   ///< from one window to the next, in rows and in columns
  int padding = 0;  ///< rows and columns of zeros around the maps, on each side
  int groups = 1;   ///< conv: channels are divided among so many, each convolved by itself

  bool operator==(const Window&) const = default;
};

/// The window that layers of a kind have unless they state another: VGG's 3×3 of a convolution
/// (stride 1, padding 1) and 2×2 of a pooling (stride 2).
Window usual_window(LayerKind kind);

struct Layer {
  LayerKind kind = LayerKind::input;
  std::string name;
  int outputs = 0;       ///< conv and dense: output channels or units
  double rate = 0;       ///< dropout: fraction of units dropped, [0, 1)
  double epsilon = 0;    ///< batchnorm: added to the variance
  bool relu = false;     ///< a ReLU follows (conv, batchnorm, dense)
  bool in_head = false;  ///< belongs to the new head rather than to the backbone
  Window window{};       ///< conv and maxpool
  /// The layers whose outputs it reads, as indices into Network::layers, all before it; none for
  /// the input layer.
  std::vector<size_t> inputs{};

  /// The layer that it reads, where it is one.
  [[nodiscard]] size_t source() const { return inputs.at(0); }
};

/// Extent of one image's activations. Flat vectors have height = width = 1 and flat = true.
struct Shape {
  int64_t channels = 0;
  int64_t height = 1;
  int64_t width = 1;
  bool flat = false;

  [[nodiscard]] int64_t elements() const { return channels * height * width; }
  bool operator==(const Shape&) const = default;
};

/// "(64, 224, 224)" or "(4096)".
std::string to_string(const Shape& shape);

struct Network {
  std::string backbone;       ///< "vgg16", …
  int input_height = 0;       ///< pixels
  int input_width = 0;        ///< pixels
  std::vector<Layer> layers;  ///< layers[0] is the input layer
};

/// One tensor that a network needs, under its canonical name, e.g. "block1_conv1.weight".
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
  size_t layer = 0;       ///< index into Network::layers
  bool trainable = true;  ///< false for BatchNorm's running statistics

  [[nodiscard]] int64_t elements() const;
};

/// Names accepted by backbone(): vgg11 … vgg19, their _bn forms, vgg-mini.
std::vector<std::string> backbone_names();

/// The size of input that a backbone is meant for where the user names none: 224, vgg-mini's 112.
int default_input_size(std::string_view backbone);

/// A backbone. With `include_top` it ends in flatten, fc1, fc2 and predictions (1000 classes,
/// logits), else in block5_pool. Throws Error(usage) for an unknown name or an input below 32.
Network backbone(std::string_view name, int height, int width, bool include_top = false);

/// Appends a layer. What it leaves open is filled in: the window that is usual for its kind, and as
/// its input the layer before it.
void append(Network& network, Layer layer);

/// The same network without the layers behind `layer`. Throws Error(usage) that lists the names.
Network cut_after(Network network, std::string_view layer);

/// Appends a head to a backbone: `language` is the head's description, e.g.
/// "flatten dense:4096 dense:1072 dropout:0.2"; words: conv:N (3×3, ReLU), maxpool, gap, gmp,
/// stats, batchnorm, flatten, dense:N (ReLU), dropout:P. The last Dense to the classes
/// ("predictions", logits) is added; a dense on maps is refused with a hint. batchnorm right after
/// conv:N or dense:N stands before that layer's ReLU. At most 500 words. Throws Error(usage).
Network with_head(Network network, std::string_view language, int classes);

/// The head that the word `default` stands for, found by measurement (docs/recipes.md): behind maps
/// of at least 8 by 8 pixels small convolutions that learn what the missing blocks would have
/// computed, else the maps' statistics and one hidden layer.
std::string_view default_head(const Network& backbone);

/// Output shape of every layer. Throws Error(usage) where a map would shrink to nothing.
std::vector<Shape> output_shapes(const Network& network);

/// Throws Error(usage) where an output or the weights of a layer have more numbers than any machine
/// holds (2^40). Sizes of networks that pass can be multiplied by batches and bytes in 64 bits.
void check_extents(const Network& network);

/// The tensors that layers [begin, end) need, in the order of the layers.
std::vector<TensorSpec> tensor_specs(const Network& network, size_t begin, size_t end);
std::vector<TensorSpec> tensor_specs(const Network& network);

/// Multiply-adds for one image and layer, counted as two operations each; other layers are 0.
std::vector<double> layer_flops(const Network& network);

/// Index of the layer with that name, or nothing.
std::optional<size_t> find_layer(const Network& network, std::string_view name);

/// Throws Error(input) unless the list is a network that this program can run: kinds in a possible
/// order, unique names, sizes within limits, nothing said of a layer that does not belong to its
/// kind, windows that there are kernels for (the usual ones), each layer reading the one before it.
/// For lists that come from files.
void validate(const Network& network);

/// Which layers train: those from `first_trainable` on. Everything before is frozen.
struct FreezePlan {
  size_t first_trainable = 0;
};

/// Reads --fine-tune: "0" freezes the whole backbone, "N" unfreezes its last N layers counted as
/// Keras counts (input, poolings and BatchNorm included; N at or above their number means all),
/// a layer's name unfreezes from that layer on, "all" everything. The head always trains.
FreezePlan freeze_plan(const Network& network, std::string_view fine_tune);

/// The first layer whose output is not a pure function of image and frozen weights: at or after
/// first_trainable, the first that has parameters or is random. What lies before can be computed
/// once for each image.
size_t frozen_prefix_end(const Network& network, const FreezePlan& plan);

/// One row of a summary.
struct SummaryRow {
  std::string name;
  std::string kind;
  Shape output;
  int64_t parameters = 0;
  int64_t trainable = 0;
};

struct Summary {
  std::vector<SummaryRow> rows;
  int64_t parameters = 0;
  int64_t trainable = 0;
  [[nodiscard]] int64_t non_trainable() const { return parameters - trainable; }
};

Summary summarize(const Network& network, const FreezePlan& plan);

}  // namespace graft
#pragma GCC visibility pop
