// What training minimises.
#pragma once

#include <torch/torch.h>

namespace graft {

/// Cross-entropies with label smoothing, (rows); `logits`: (rows, classes), `labels`: (rows).
/// `class_weights`, (classes): each row counts as much as its own class weighs, as with Keras'
/// class_weight; undefined: all alike. PyTorch's cross_entropy weighs each class's share of the
/// smoothed label instead: of a class of few images the shares that all others have in it then
/// outweigh the images, and a network learns the opposite of what it is shown.
torch::Tensor training_losses(const torch::Tensor& logits, const torch::Tensor& labels,
                              double label_smoothing, const torch::Tensor& class_weights);

}  // namespace graft
