// safetensors files, and Graft models in them, down to a first prediction.
#include "weights/safetensors.h"
#include "engine/engine.h"
#include "fuzz/fuzz.h"
#include "graft/classifier.h"
#include "weights/load.h"
#include "weights/metadata.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  return fuzz::expect_typed_errors([&] {
    const StoredSafetensors stored = open_safetensors(fuzz::bytes(data, size), "fuzz");
    for (const auto& [name, tensor] : stored.tensors)
      fuzz::expect_typed_errors([&, &one = tensor] {
        fuzz::require(one.read().values().size() == element_count(one.shape));
      });
    SafetensorsFile file = read_safetensors(fuzz::bytes(data, size), "fuzz");
    if (!file.metadata.contains("graft_format")) return;
    const ModelMetadata metadata = parse_metadata(file.metadata, "fuzz");
    const Network& net = metadata.network;
    summarize(net, freeze_plan(net, "0"));
    check_tensors(net, net.layers.size(), file.tensors, "fuzz", "");
    check_finite(file.tensors, "fuzz");
    const Shape in = output_shapes(net).front();
    if (in.elements() > 3 * 64 * 64) return;  // a larger one is valid, and slow
    engine::Engine engine(net, 0, net.layers.size(), file.tensors, {1, 2});
    const std::vector<float> input(static_cast<size_t>(in.elements()), 0.5F);
    std::vector<float> logits(metadata.classes.size());
    engine.run(input.data(), 1, logits.data());
    fuzz::require(to_prediction(logits).ranking.size() == metadata.classes.size());
  });
}
