#include "graft/export.h"

#include <algorithm>

#include "base/fail.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "export/keras_file.h"
#include "export/onnx.h"
#include "export/read_back.h"
#include "export/torch_file.h"
#include "model/import.h"
#include "weights/load.h"
#include "weights/own_export.h"

namespace graft {
namespace {

void check_options(const ExportOptions& options) {
  const auto format = static_cast<int>(options.format);
  if (format < 0 || format > static_cast<int>(ExportFormat::safetensors))
    fail(ErrorKind::usage, "`format`: {} is the number of no format", format);
  if (options.input != ExportInput::uint8 && options.input != ExportInput::float32)
    fail(ErrorKind::usage, "`input`: {} is the number of no input",
         static_cast<int>(options.input));
  if (options.without_head &&
      (options.format == ExportFormat::onnx || options.format == ExportFormat::keras))
    fail(ErrorKind::usage,
         "`without-head`: a backbone alone is written as .pth, .safetensors (torchvision's names) "
         "or "
         ".h5 (Keras' weights without top); ONNX' and .keras files have whole classifiers");
  if (options.input == ExportInput::float32 && options.format != ExportFormat::onnx)
    fail(
        ErrorKind::usage,
        "`input` float is for ONNX alone: Keras' files read pixels, and state_dicts have no input");
}

/// What a format keeps in memory beside the model: ONNX's messages and HDF5's files all weights,
/// others one tensor.
void check_memory(const ModelFile& model, const ExportOptions& options) {
  uint64_t all = 0;
  uint64_t largest = 0;
  for (const TensorSpec& spec : tensor_specs(model.metadata.network)) {
    const auto bytes = static_cast<uint64_t>(spec.elements()) * sizeof(float);
    all += bytes;
    largest = std::max(largest, bytes);
  }
  const bool streamed =
      options.format == ExportFormat::torch || options.format == ExportFormat::safetensors;
  const uint64_t needed = streamed ? largest : all + largest;
  const uint64_t available = available_memory();
  if (available > 0 && needed > available)
    fail(ErrorKind::memory, "exporting takes {} of memory, and {} can be had; end other programs",
         format_bytes(static_cast<double>(needed)), format_bytes(static_cast<double>(available)));
}

/// Fails where the logits are others than rounding explains.
void require_agreement(const Comparison& comparison, bool half, const fs::path& file) {
  // The same weights are the same logits up to sums in another order. Rounded to float16, each is
  // off by 2^-12 of itself on average, and logits by some thousandths.
  const double most = half ? 0.05 : 1e-5;
  if (comparison.largest_error <= most) return;
  fail(ErrorKind::input,
       "{}: not written: the logits of what was read back differ from the model's by {:.2g} of the "
       "largest{}",
       printable(file), comparison.largest_error,
       half ? "; store the weights as fp32" : ", which is a fault of this program");
}

/// The tensors in a file that was written, which is to become `file`.
TensorMap read_back(const fs::path& written, const fs::path& file, const RunContext& context) {
  const std::optional<StoredSafetensors> own = own_export(written, context.stop).model;
  if (!own)
    fail(ErrorKind::input,
         "{}: not written: read back, it is another network, which is a fault of this program",
         printable(file));
  TensorMap out;
  for (const auto& [name, tensor] : own->tensors) out.emplace(name, tensor.read());
  return out;
}

/// Weights alone say nothing of pixels, and whoever reads them takes their family's.
void note_pixels(const Preprocessing& pixels, const ExportOptions& options, const fs::path& file,
                 const RunContext& context) {
  const bool keras = options.format == ExportFormat::keras_h5;
  if (pixels == (keras ? keras_preprocessing() : torchvision_preprocessing())) return;
  context.tell(Severity::note,
               fmt::format("note: {}: its pixels are not prepared as {} own weights take them, but "
                           "as Graft's record in the file says ('graft weights inspect {}'), which "
                           "other programs do not read",
                           printable(file), keras ? "Keras'" : "torchvision's", printable(file)));
}

}  // namespace

ExportResult export_model(const std::filesystem::path& model, const std::filesystem::path& file,
                          const ExportOptions& options, const RunContext& context) {
  return export_model(model, file, options, ClassifierImport(), context);
}

ExportResult export_model(const std::filesystem::path& model, const std::filesystem::path& file,
                          const ExportOptions& options, const ClassifierImport& import,
                          const RunContext& context) {
  check_options(options);
  if (same_file(file, weights_file(model)))
    fail(ErrorKind::usage, "{}: is the model itself; choose another name for what is exported",
         printable(file));
  const ModelFile read = options.without_head ? import_backbone(model, import, context)
                                              : import_classifier(model, import, context);
  check_memory(read, options);
  context.check_stop();
  AtomicFile target(file);
  ExportResult result;
  switch (options.format) {
    case ExportFormat::onnx:
      result.checks = write_onnx(target, read, options);
      break;
    case ExportFormat::keras:
      write_keras(target, read, options);
      break;
    case ExportFormat::keras_h5:
      options.without_head ? write_keras_trunk(target, read, options)
                           : write_keras_h5(target, read, options);
      break;
    case ExportFormat::torch:
      write_torch(target, read, options);
      break;
    case ExportFormat::safetensors:
      write_torch_safetensors(target, read, options);
      break;
  }
  target.flush();
  context.check_stop();
  const Comparison comparison =
      compare_logits(read, read_back(target.temporary(), file, context), context);
  require_agreement(comparison, options.half, file);
  result.images_compared = comparison.images;
  result.largest_error = comparison.largest_error;
  if (options.without_head) note_pixels(read.metadata.preprocessing, options, file, context);
  target.commit();
  result.bytes = fs::file_size(file);
  return result;
}

}  // namespace graft
