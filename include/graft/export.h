// Trained classifiers as files that other runtimes open.
//
//   graft::export_model("runs/pets", "pets.onnx", {.format = graft::ExportFormat::onnx});
//
// docs/export.md has each format's inputs, outputs, names and metadata.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/weights.h"

#pragma GCC visibility push(default)
namespace graft {

enum class ExportFormat {
  onnx,         ///< ONNX, opset 13
  keras,        ///< a whole model for Keras 3, .keras
  keras_h5,     ///< a whole model for Keras 2 and 3, .h5
  torch,        ///< a state_dict for torch.load(weights_only=True), .pth
  safetensors,  ///< the same tensors under the same names
};

/// What an ONNX graph reads.
enum class ExportInput {
  uint8,    ///< "image", (N, H, W, 3): RGB pixels, 0 to 255; preprocessing is in the graph
  float32,  ///< "input", (N, 3, H, W): what the network reads, preprocessed already (to_input)
};

struct ExportOptions {
  ExportFormat format = ExportFormat::onnx;
  /// Weights are stored as float16 and widened where they are loaded; computing is in float32,
  /// since VGG's activations pass float16's range. BatchNorm's numbers stay float32.
  bool half = false;
  ExportInput input = ExportInput::uint8;  ///< of ONNX alone; others read pixels or have no input
  /// The backbone alone: torch and safetensors under torchvision's names, keras_h5 as Keras'
  /// weights without top (`VGG16(include_top=False).load_weights(FILE)`). Other formats have whole
  /// models.
  bool without_head = false;
};

/// What was written and how it was checked.
struct ExportResult {
  uint64_t bytes = 0;               ///< of the file
  int images_compared = 0;          ///< whose logits were computed from the file as read back
  double largest_error = 0;         ///< of those logits, in parts of the image's largest
  std::vector<std::string> checks;  ///< what else was checked, a line each: "the ONNX checker"
};

/// The format that a file's name stands for: .onnx, .keras, .h5 or .hdf5, .pth or .pt,
/// .safetensors.
std::optional<ExportFormat> export_format(const std::filesystem::path& file);

/// Writes a model (a model file or a run folder) for another runtime. The file appears complete and
/// checked, by atomic rename, or not at all. Throws Error(usage) for options that the format does
/// not have, Error(input) for a model that the format cannot hold, which says why, or where the
/// logits of what was written are not the model's; Error(io), Error(memory), Error(interrupted).
/// Thread-safe for different files.
ExportResult export_model(const std::filesystem::path& model, const std::filesystem::path& file,
                          const ExportOptions& options = {}, const RunContext& context = {});

/// The same of a model that may be another program's file of a classifier, which `import` says the
/// rest of, as convert_classifier() does.
ExportResult export_model(const std::filesystem::path& model, const std::filesystem::path& file,
                          const ExportOptions& options, const ClassifierImport& import,
                          const RunContext& context = {});

}  // namespace graft
#pragma GCC visibility pop
