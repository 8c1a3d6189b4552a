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
#include "weights/match.h"
#include "weights/metadata.h"
#include "weights/onnx_classifier.h"
#include "weights/onnx_file.h"
#include "weights/onnx_weights.h"
#include "weights/own_export.h"
#include "weights/safetensors.h"
#include "weights/torch_classifier.h"
#include "weights/torch_file.h"
#include "weights/torch_weights.h"

namespace graft {
namespace {

[[noreturn]] void refuse_head(const std::string& name) {
  fail(ErrorKind::usage, "`head`: {} says itself what its head is; leave the option out", name);
}

/// What a file is: an export of Graft's own, or else what another program's says.
struct Opened {
  OwnExport own;
  std::function<ForeignClassifier()> otherwise;
  std::function<bool()> has_backbone;  ///< whether that could be taken alone
};

bool holds_torch_backbone(const StoredTensors& tensors, const std::string& name) {
  constexpr int kSide = 224;  // convolutions do not depend on it
  const TorchMatcher matcher(name, tensors);
  return !fitting_backbones(matcher.convolutions(), kSide, kSide).empty();
}

bool holds_onnx_backbone(const std::shared_ptr<const OnnxFile>& file) {
  constexpr int kSide = 224;
  const OnnxMatcher matcher(follow(file));
  return !fitting_backbones(matcher.convolutions(), kSide, kSide).empty();
}

/// Whether there is advice to give where the whole is not taken.
bool holds_backbone(const Opened& opened) {
  try {
    return opened.has_backbone();
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::interrupted) throw;
    return false;
  }
}

Opened open(const fs::path& path, const std::string& head, const std::stop_token& until) {
  const std::string name = printable(path);
  switch (require_weights_file(path).format) {
    case FileKind::hdf5:
    case FileKind::keras: {
      const auto file = std::make_shared<H5File>(path, until);
      return {own_export(file, path),
              [=] {
                const std::optional<ForeignGraph> graph = read_keras_classifier(file);
                if (graph && !head.empty()) refuse_head(name);
                return assemble(graph ? *graph : read_keras_weights(file, head));
              },
              [=] { return holds_keras_backbone(*file); }};
    }
    case FileKind::torch: {
      const TorchFile file = read_torch(path);
      return {own_export(file, path),
              [=] { return assemble(read_torch_classifier(file.tensors, file.order, name, head)); },
              [=] { return holds_torch_backbone(file.tensors, name); }};
    }
    case FileKind::onnx: {
      const std::shared_ptr<const OnnxFile> file = OnnxFile::open(path);
      return {own_export(file, path),
              [=] {
                if (!head.empty()) refuse_head(name);
                return read_onnx_classifier(file);
              },
              [=] { return holds_onnx_backbone(file); }};
    }
    default: {
      const StoredSafetensors file = open_safetensors(path);
      return {own_export(file, path),
              [=] { return assemble(read_torch_classifier(file.tensors, {}, name, head)); },
              [=] { return holds_torch_backbone(file.tensors, name); }};
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
  return out;
}

}  // namespace

ForeignClassifier open_foreign_classifier(const fs::path& path, const std::string& head,
                                          const std::stop_token& until) {
  Opened opened = open(path, head, until);
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
    if (error.kind() == ErrorKind::interrupted) throw;
    std::string why = error.what();
    if (error.kind() == ErrorKind::input && why.find("`without-head`") == std::string::npos &&
        holds_backbone(opened))
      why += "; its backbone alone can be taken with `without-head`";
    if (!note.empty()) why += " (" + note + ")";
    fail(error.kind(), "{}", why);
  }
}

bool is_foreign(const fs::path& path) {
  const FileKind kind = require_weights_file(path);
  if (kind.format != FileKind::safetensors && kind.format != FileKind::unknown) return true;
  return !is_graft(open_safetensors(path).metadata);
}

}  // namespace graft
