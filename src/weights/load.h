// From --weights to tensors in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "graft/context.h"
#include "graft/network.h"
#include "graft/recipe.h"
#include "weights/file_kind.h"
#include "weights/tensor.h"

namespace graft {

struct WeightsRequest {
  std::string weights =
      "imagenet";  ///< "imagenet", "keras", "torchvision", "builtin", "none", or a file
  std::string backbone;
  PixelFamily preprocessing = PixelFamily::of_weights;
  std::optional<Resampling> resampling{};  ///< none: as the weights have it
  int input_height = 224;
  int input_width = 224;
  uint64_t seed = 0;            ///< for "none"
  std::filesystem::path cache;  ///< Graft's cache folder
  RunContext context{};
  bool download = true;  ///< may published weights be downloaded?
};

/// What is meant where the user names no weights: "builtin" for a backbone that has some inside the
/// program (weights/builtin.h), else "imagenet".
std::string default_weights(std::string_view backbone);

/// Throws what load_weights() would throw where weights are named that there cannot be: of a
/// backbone without published or built-in ones, or a file that is not there. Reads and fetches
/// nothing.
void require_weights(const std::string& weights, std::string_view backbone);

/// The file that is named, or the model of the run folder that is.
std::filesystem::path weights_file(const std::filesystem::path& named);

/// A file's kind. Throws Error(input) where it is of no kind that holds weights, and says of which.
FileKind require_weights_file(const std::filesystem::path& file);

/// Whether a safetensors file's metadata are a Graft model's.
bool is_graft(const std::map<std::string, std::string>& metadata);

/// What is recorded of a file that is not Graft's; `family` is WeightsInspection's.
Provenance provenance_of(const std::filesystem::path& path, const std::string& family,
                         const std::string& md5);

/// Whether weights begin with the kernels of Keras' ImageNet weights, which hardly ever train.
bool begins_as_imagenet(const TensorMap& tensors);

/// What a source says then of a file that is none of the published ones.
inline constexpr std::string_view kBeginsAsImageNet =
    ", whose first layer is that of Keras' ImageNet weights";

/// How many classes the top of such weights has: a file's own number, else ImageNet's 1000.
/// `weights` as in WeightsRequest. Throws as load_weights does.
int top_classes(const std::string& weights);

/// Weights for `network`, a backbone with or without top, cut anywhere. Files, by their content:
/// Keras .h5 and .keras, PyTorch .pth, safetensors and ONNX (each may be of a larger model that has
/// the backbone in it), and Graft's own (a saved model or run folder, of which the backbone is
/// taken). Throws Error(usage) for an ONNX model where `preprocessing` must be said.
/// "none" draws He-normal weights (He et al., "Delving deep into rectifiers", 2015) from the seed.
Weights load_weights(const WeightsRequest& request, const Network& network);

/// New weights for layers [begin, end), the same on every machine.
TensorMap random_tensors(const Network& network, size_t begin, size_t end, uint64_t seed,
                         Initializer initializer = Initializer::he_normal);

}  // namespace graft
