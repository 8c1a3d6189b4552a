#include "export/read_back.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "engine/engine.h"

namespace graft {
namespace {

constexpr int kImages = 4;

/// Noise on a coarse grid, brought to the input size: like photos more than white noise is.
Image synthetic_image(int width, int height, int number) {
  constexpr int kGrid = 9;
  Image grid{kGrid, kGrid, {}};
  Random random(static_cast<uint64_t>(number));
  for (int i = 0; i < kGrid * kGrid * 3; ++i)
    grid.pixels.push_back(static_cast<uint8_t>(random.below(256)));
  return resize(grid, width, height, Resampling::bilinear);
}

std::vector<float> logits_of(const Network& network, const TensorMap& tensors,
                             std::span<const float> inputs, const RunContext& context) {
  engine::Engine engine(network, 0, network.layers.size(), tensors,
                        // Buffers of one image: inputs may be large.
                        {.threads = context.thread_count(), .max_batch = 1});
  std::vector<float> logits(static_cast<size_t>(kImages * engine.output_elements()));
  engine.run(inputs.data(), kImages, logits.data());
  return logits;
}

}  // namespace

Comparison compare_logits(const ModelFile& model, const TensorMap& read,
                          const RunContext& context) {
  const Network& network = model.metadata.network;
  const auto elements = static_cast<size_t>(output_shapes(network).front().elements());
  std::vector<float> inputs(kImages * elements);
  for (int i = 0; i < kImages; ++i)
    to_input(synthetic_image(network.input_width, network.input_height, i),
             model.metadata.preprocessing, &inputs[static_cast<size_t>(i) * elements]);
  const std::vector<float> want = logits_of(network, model.tensors, inputs, context);
  const std::vector<float> got = logits_of(network, read, inputs, context);
  const size_t classes = want.size() / kImages;
  Comparison out{kImages, 0};
  for (size_t begin = 0; begin < want.size(); begin += classes) {
    double largest = 0;
    double error = 0;
    for (size_t i = begin; i < begin + classes; ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(want[i])));
      error = std::max(error, std::abs(static_cast<double>(want[i]) - got[i]));
    }
    // A difference that is no number is one.
    if (!(error <= 0)) out.largest_error = std::max(out.largest_error, error / largest);
    if (std::isnan(error)) out.largest_error = error;
  }
  return out;
}

}  // namespace graft
