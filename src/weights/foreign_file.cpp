#include "weights/foreign_file.h"

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/file_kind.h"
#include "weights/h5_process.h"
#include "weights/keras_classifier.h"
#include "weights/load.h"
#include "weights/metadata.h"
#include "weights/onnx_classifier.h"
#include "weights/onnx_file.h"
#include "weights/own_export.h"
#include "weights/safetensors.h"
#include "weights/torch_classifier.h"
#include "weights/torch_file.h"

namespace graft {
namespace {

[[noreturn]] void refuse_head(const std::string& name) {
  fail(ErrorKind::usage, "`head`: {} says itself what its head is; leave the option out", name);
}

/// What a file is: an export of Graft's own, or else what another program's says.
struct Opened {
  OwnExport own;
  std::function<ForeignClassifier()> otherwise;
};

Opened open(const fs::path& path, const std::string& head, const InputSize& size,
            const std::stop_token& until) {
  const std::string name = printable(path);
  switch (require_weights_file(path).format) {
    case FileKind::hdf5:
    case FileKind::keras: {
      const auto file = std::make_shared<H5File>(path, until);
      return {own_export(file, path), [=] {
                const std::optional<ForeignGraph> graph = read_keras_classifier(file);
                if (graph && !head.empty()) refuse_head(name);
                return assemble(graph ? *graph : read_keras_weights(file, head), size);
              }};
    }
    case FileKind::torch: {
      const TorchFile file = read_torch(path);
      return {own_export(file, path), [=] {
                return assemble(read_torch_classifier(file.tensors, file.order, name, head), size);
              }};
    }
    case FileKind::onnx: {
      const std::shared_ptr<const OnnxFile> file = OnnxFile::open(path);
      return {own_export(file, path), [=] {
                if (!head.empty()) refuse_head(name);
                return read_onnx_classifier(file, size);
              }};
    }
    default: {
      const StoredSafetensors file = open_safetensors(path);
      return {own_export(file, path),
              [=] { return assemble(read_torch_classifier(file.tensors, {}, name, head), size); }};
    }
  }
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
  out.training = std::move(metadata.training);
  return out;
}

}  // namespace

ForeignClassifier open_foreign_classifier(const fs::path& path, const std::string& head,
                                          const InputSize& size, const std::stop_token& until) {
  Opened opened = open(path, head, size, until);
  const std::string& note = opened.own.note;
  if (opened.own.model) {
    if (!head.empty()) refuse_head(printable(path));
    return from_own(*std::move(opened.own.model), printable(path));
  }
  try {
    ForeignClassifier out = opened.otherwise();
    if (!note.empty()) out.notes.push_back(note);
    return out;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted || note.empty()) throw;
    fail(error.kind(), "{} ({})", error.what(), note);
  }
}

bool is_foreign(const fs::path& path) {
  const FileKind kind = require_weights_file(path);
  if (kind.format != FileKind::safetensors && kind.format != FileKind::unknown) return true;
  return !is_graft(open_safetensors(path).metadata);
}

}  // namespace graft
