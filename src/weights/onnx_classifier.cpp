#include "weights/onnx_classifier.h"

#include <memory>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/onnx_file.h"
#include "weights/onnx_weights.h"

namespace graft {
ForeignClassifier read_onnx_classifier(const std::shared_ptr<const OnnxFile>& file,
                                       const InputSize& size) {
  OnnxLayers layers = follow(file);
  if (!layers.stopped.empty()) fail(ErrorKind::input, "{}: {}", file->name(), layers.stopped);
  layers.graph.preprocessing = recognised(layers.input);
  ForeignClassifier out = assemble(layers.graph, size);
  if (!out.preprocessing && !layers.input.is_identity())
    out.behind = [input = layers.input](const Preprocessing& asked) {
      return behind(asked, input);
    };
  return out;
}

}  // namespace graft
