#include "weights/onnx_classifier.h"

#include <memory>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/onnx_file.h"
#include "weights/onnx_weights.h"

namespace graft {
ForeignClassifier read_onnx_classifier(const std::shared_ptr<const OnnxFile>& file) {
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
