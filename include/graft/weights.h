// Pretrained weights: what is published, fetching it, checking it, and a model's for reuse.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"
#include "graft/image.h"
#include "graft/recipe.h"

#pragma GCC visibility push(default)
namespace graft {

/// A file of ImageNet weights that Keras or torchvision publishes.
struct PublishedWeights {
  std::string family;  ///< "keras" or "torchvision"
  std::string backbone;
  bool include_top = false;
  std::string file;  ///< its name in a folder of weights
  std::string url;
  std::string md5;     ///< 32 hex digits; empty: its publisher gives none
  std::string sha256;  ///< 64 hex digits, or as many as its publisher gives; empty: none
  uint64_t bytes = 0;  ///< its size; where `exact_size` is false to some KB
  bool exact_size = true;
  double top1 = 0;      ///< published top-1 accuracy on ImageNet's validation images, 0 to 1
  std::string source;   ///< "Keras VGG19 ImageNet (no top)", …
  std::string licence;  ///< licence family
};

/// All that Graft knows (keras/src/applications/vgg16.py, vgg19.py; torchvision/models/vgg.py). A
/// backbone that has Keras' files and torchvision's has Keras' first. timm's vgg*.tv_in1k are
/// torchvision's weights under other names.
const std::vector<PublishedWeights>& published_weights();
/// The file for a backbone, whose name may be as others write it ("VGG-16"): the first of
/// published_weights() with top where it is asked for, the smallest without. An empty `family` is
/// any. Null: there is none.
const PublishedWeights* find_published_weights(std::string_view backbone, bool include_top,
                                               std::string_view family = {});

/// Where they lie once downloaded, in a folder of Graft's caches; empty: $XDG_CACHE_HOME/graft.
std::filesystem::path weights_path(const PublishedWeights& weights,
                                   const std::filesystem::path& cache = {});

/// "MD5 6d6bbae1…" or "SHA-256 397923af…", with all digits that are published.
std::string published_hash(const PublishedWeights& weights);

enum class WeightsState { absent, good, wrong_size, wrong_hash };
/// Compares size and hash.
WeightsState check_weights(const PublishedWeights& weights,
                           const std::filesystem::path& cache = {});
/// Compares the size alone: absent, good as far as that tells, or wrong_size.
WeightsState check_weights_size(const PublishedWeights& weights,
                                const std::filesystem::path& cache = {});
/// Which published file one is, by its hash; null: none. Throws Error(io).
const PublishedWeights* recognise_weights(const std::filesystem::path& file);

/// Downloads a file that is absent, going on where an earlier try stopped, from its address or
/// $GRAFT_WEIGHTS_URL. It appears complete and checked, or not at all. Throws Error(io) that
/// says what happened, and where to put the file by hand.
void download_weights(const PublishedWeights& weights, const std::filesystem::path& cache = {},
                      const RunContext& context = {});
/// Copies a published file that was fetched by hand to where it is looked for, whatever its name,
/// atomically, and returns which one it is. Throws Error(input) where it is none of them.
const PublishedWeights& import_weights(const std::filesystem::path& file,
                                       const std::filesystem::path& cache = {});

/// What a file of weights is, and what of it Graft can use.
struct WeightsInspection {
  /// "PyTorch file (.pth)", "safetensors", "Keras HDF5 (.h5)", "Keras (.keras)", "ONNX"
  std::string format;
  std::string family;  ///< who names tensors so: "keras", "torchvision", "timm", "graft"; "onnx"
  std::string types;   ///< of its values, "float32" or "bfloat16, float32"; empty: not known
  uint64_t bytes = 0;
  std::string md5;
  std::string source;   ///< as a model trained on it records it
  std::string licence;  ///< likewise
  /// A backbone that the file fits, and the last layer that it has weights up to. Fewer blocks than
  /// a backbone has may fit several.
  struct Fit {
    std::string backbone;
    std::string until;
    bool whole = false;  ///< nothing is missing
  };
  std::vector<Fit> fits;       ///< a whole one first; empty: none
  bool by_order = false;       ///< layers bear other names, and are known by order and shapes alone
  bool convertible = false;    ///< a whole classifier, which convert_classifier() takes
  std::optional<int> classes;  ///< outputs of its classifier, where it is one that Graft reads
  std::vector<std::string> labels;    ///< of a model of Graft's
  std::vector<std::string> left_out;  ///< layers that are not the backbone's
  /// Where nothing fits: the backbone that is nearest, and what would be missing, in the way, or of
  /// another shape, a line each.
  std::string nearest;
  std::vector<std::string> differences;
  int input_height = 0;  ///< of the model, in pixels; 0: the file does not say
  int input_width = 0;
  Preprocessing preprocessing;  ///< how pixels will be prepared for it
  /// Whether that must be said, as the file does not tell it: `preprocessing` is then of no
  /// meaning.
  bool preprocessing_unknown = false;
  /// Likewise whether its `crop_ratio` must: the file has torchvision's mean and deviation alone.
  bool crop_unknown = false;
  /// Tensors that cannot be read, or hold NaN or infinity, a line each; many are counted in the
  /// last.
  std::vector<std::string> damage{};
  /// Why a classifier in it is not taken whole, or why what it says of itself is passed over.
  std::string note{};
};

/// Looks into a file, or the model of a run folder: at all its values too, a tensor at a time.
/// Throws Error(input) for what holds no weights that Graft reads, and says what it is.
WeightsInspection inspect_weights(const std::filesystem::path& file);

/// How a model's backbone is stored on its own.
struct ConvertOptions {
  bool half = false;                   ///< as fp16; else as float32
  bool fold_batchnorm = false;         ///< into the convolutions: vgg16_bn becomes vgg16
  std::optional<std::string> source;   ///< to be recorded instead of the model's
  std::optional<std::string> licence;  ///< likewise
};

/// What another program's file of a classifier may not say of it.
struct ClassifierImport {
  std::vector<std::string> classes;  ///< names in the order of the outputs
  PixelFamily preprocessing = PixelFamily::of_weights;
  /// How images were brought to the input size, where not as the file has it or Graft does it.
  std::optional<Resampling> resampling{};
  /// Of files with weights alone: the layers behind the backbone, in the language of with_head().
  std::string head;
  InputSize input;  ///< where the file leaves it open
};
/// Writes the backbone of a model (a file or run folder), or of another program's weights, as a
/// file to start other trainings from, atomically, and returns the backbone's name. Throws
/// Error(input).
std::string convert_weights(const std::filesystem::path& model, const std::filesystem::path& file,
                            const ConvertOptions& options = {}, const ClassifierImport& import = {},
                            const RunContext& context = {});

/// The names in "cat,dog,horse", or in a text file of that name, one a line; empty for an empty
/// text. Throws Error(usage) where a name is empty or stands twice, Error(io).
std::vector<std::string> class_names(const std::string& text);
/// Whether a file, or a run folder, is another program's.
bool is_foreign_model(const std::filesystem::path& file);
/// Writes a whole classifier, of Graft's or from another program's file, as a model of Graft's,
/// atomically, and returns its backbone's name. `options.fold_batchnorm` is refused. Notes go to
/// the reporter. Throws Error(usage) for what must be said and is not, Error(input).
std::string convert_classifier(const std::filesystem::path& model,
                               const std::filesystem::path& file, const ConvertOptions& options,
                               const ClassifierImport& import = {}, const RunContext& context = {});

}  // namespace graft
#pragma GCC visibility pop
