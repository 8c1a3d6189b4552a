#include "model/logits.h"

#include <algorithm>
#include <cmath>

#include "base/fail.h"

namespace graft {

void check_logits(std::span<const float> logits) {
  const auto bad =
      std::find_if(logits.begin(), logits.end(), [](float v) { return !std::isfinite(v); });
  if (bad != logits.end())
    fail(
        ErrorKind::input,
        "the model answers with {} for a class, where a finite number belongs: its weights are too "
        "large or damaged; train it again, with a smaller `lr`",
        *bad);
}

std::vector<double> softmax(std::span<const float> logits) {
  check_logits(logits);
  const double most = *std::max_element(logits.begin(), logits.end());
  std::vector<double> out;
  double sum = 0;
  for (const float logit : logits) {
    out.push_back(std::exp(logit - most));
    sum += out.back();
  }
  for (double& p : out) p /= sum;
  return out;
}

void mirror_input(std::span<const float> input, int width, float* out) {
  const auto row = static_cast<size_t>(width);
  for (size_t begin = 0; begin < input.size(); begin += row)
    std::reverse_copy(&input[begin], &input[begin] + row, out + begin);
}

void average_views(std::span<float> logits, std::span<const float> of_mirrored) {
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = (logits[i] + of_mirrored[i]) / 2;
}

}  // namespace graft
