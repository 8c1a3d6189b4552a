#include "train/loss.h"

namespace graft {

torch::Tensor training_losses(const torch::Tensor& logits, const torch::Tensor& labels,
                              double label_smoothing, const torch::Tensor& class_weights) {
  const torch::Tensor losses =
      torch::nn::functional::cross_entropy(logits, labels,
                                           torch::nn::functional::CrossEntropyFuncOptions()
                                               .label_smoothing(label_smoothing)
                                               .reduction(torch::kNone));
  return class_weights.defined() ? losses * class_weights.index_select(0, labels) : losses;
}

}  // namespace graft
