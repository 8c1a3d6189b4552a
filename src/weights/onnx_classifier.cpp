#include "weights/onnx_classifier.h"

#include <memory>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/metadata.h"
#include "weights/onnx_file.h"
#include "weights/onnx_weights.h"

namespace graft {
namespace {

ForeignClassifier from_own(const StoredSafetensors& own, const std::string& name) {
  ModelMetadata metadata = parse_metadata(own.metadata, name);
  if (metadata.classes.empty())
    fail(ErrorKind::input, "{}: a backbone without a head, which cannot classify", name);
  ForeignClassifier out;
  for (const TensorSpec& spec : tensor_specs(metadata.network))
    out.tensors.push_back(own.tensors.at(spec.name));
  out.network = std::move(metadata.network);
  out.size = ForeignClassifier::Size::told;
  out.preprocessing = metadata.preprocessing;
  out.labels = std::move(metadata.classes);
  out.family = "onnx";
  out.provenance = std::move(metadata.provenance);
  out.test_views = metadata.test_views;
  return out;
}

}  // namespace

ForeignClassifier read_onnx_classifier(const fs::path& path) {
  const std::shared_ptr<const OnnxFile> file = OnnxFile::open(path);
  if (const std::optional<StoredSafetensors> own = own_export(file))
    return from_own(*own, file->name());
  OnnxLayers layers = follow(file);
  if (!layers.stopped.empty())
    fail(ErrorKind::input, "{}: {}; its backbone alone can be taken with `without-head`",
         file->name(), layers.stopped);
  layers.graph.preprocessing = recognised(layers.input);
  ForeignClassifier out = assemble(layers.graph);
  if (!out.preprocessing && !layers.input.is_identity())
    out.behind = [input = layers.input](const Preprocessing& asked) {
      return behind(asked, input);
    };
  return out;
}

}  // namespace graft
