#include "weights/foreign_file.h"

#include <optional>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/file_kind.h"
#include "weights/keras_classifier.h"
#include "weights/load.h"
#include "weights/metadata.h"
#include "weights/onnx_classifier.h"
#include "weights/own_export.h"
#include "weights/safetensors.h"
#include "weights/torch_classifier.h"
#include "weights/torch_file.h"

namespace graft {
namespace {

ForeignGraph read(const fs::path& path, const std::string& head, const std::stop_token& until) {
  const std::string name = printable(path);
  const FileKind kind = require_weights_file(path);
  std::optional<ForeignGraph> graph;
  if (kind.format == FileKind::hdf5 || kind.format == FileKind::keras) {
    graph = read_keras_classifier(path, until);
    if (!graph) return read_keras_weights(path, head, until);
  } else {
    const StoredTensors held =
        kind.format == FileKind::torch ? read_torch(path).tensors : open_safetensors(path).tensors;
    graph = read_torch_classifier(held, name);
  }
  if (!graph)
    fail(ErrorKind::input,
         "{}: it has weights, but does not say how a head computes with them, which is neither "
         "torchvision's nor timm's; take its backbone alone with `without-head`",
         name);
  if (!head.empty())
    fail(ErrorKind::usage, "`head`: {} says itself what its head is; leave the option out", name);
  return *std::move(graph);
}

ForeignClassifier from_own(StoredSafetensors own, const std::string& name) {
  ModelMetadata metadata = parse_metadata(own.metadata, name);
  if (metadata.classes.empty())
    fail(ErrorKind::input, "{}: a backbone without a head, which cannot classify", name);
  ForeignClassifier out;
  for (const TensorSpec& spec : tensor_specs(metadata.network))
    out.tensors.push_back(std::move(own.tensors.at(spec.name)));
  out.network = std::move(metadata.network);
  out.size = ForeignClassifier::Size::told;
  out.preprocessing = metadata.preprocessing;
  out.labels = std::move(metadata.classes);
  out.family = "graft";
  out.provenance = std::move(metadata.provenance);
  out.test_views = metadata.test_views;
  return out;
}

}  // namespace

ForeignClassifier open_foreign_classifier(const fs::path& path, const std::string& head,
                                          const std::stop_token& until) {
  OwnExport own = own_export(path, until);
  const bool onnx = require_weights_file(path).format == FileKind::onnx;
  if (!head.empty() && (own.model || onnx))
    fail(ErrorKind::usage, "`head`: {} says itself what its head is; leave the option out",
         printable(path));
  if (own.model) return from_own(*std::move(own.model), printable(path));
  try {
    ForeignClassifier out = onnx ? read_onnx_classifier(path) : assemble(read(path, head, until));
    if (!own.note.empty()) out.notes.push_back(own.note);
    return out;
  } catch (const Error& error) {
    if (own.note.empty() || error.kind() == ErrorKind::interrupted) throw;
    fail(error.kind(), "{} ({})", error.what(), own.note);
  }
}

bool is_foreign(const fs::path& path) {
  const FileKind kind = require_weights_file(path);
  if (kind.format != FileKind::safetensors && kind.format != FileKind::unknown) return true;
  return !is_graft(open_safetensors(path).metadata);
}

}  // namespace graft
