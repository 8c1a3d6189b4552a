// ONNX models, down to the values of every tensor, the list of layers and the VGG among them.
#include "fuzz/fuzz.h"
#include "graft/network.h"
#include "weights/onnx_file.h"
#include "weights/onnx_graph.h"
#include "weights/onnx_weights.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const Network net = backbone("vgg-mini", 32, 32);
  return fuzz::expect_typed_errors([&] {
    const auto file = OnnxFile::read(fuzz::text(data, size), "fuzz");
    for (const auto& [name, tensor] : file->initializers()) {
      const StoredTensor stored = file->stored(tensor);
      fuzz::expect_typed_errors([&] {
        const Tensor read = stored.read();
        fuzz::require(read.values().size() == element_count(stored.shape) &&
                      read.shape() == stored.shape);
      });
    }
    fuzz::expect_typed_errors([&] { static_cast<void>(own_model(*file)); });
    const OnnxLayers layers = follow(file);
    for (const ForeignLayer& layer : layers.graph.layers)
      for (const auto& [role, tensor] : layer.tensors)
        fuzz::require(tensor.read().shape() == tensor.shape);
    fuzz::expect_typed_errors(
        [&] { static_cast<void>(onnx_preprocessing(layers, PixelFamily::torch)); });
    const OnnxMatcher matcher(layers);
    static_cast<void>(matcher.classes());
    static_cast<void>(matcher.left_out(net));
    static_cast<void>(matcher.read(net, 4));
  });
}
