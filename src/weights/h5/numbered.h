// The layout of Keras' .weights.h5 (Keras 2.13 and later, and inside .keras): groups that stand for
// layers by class and number, layers/conv2d_3/vars/0.
#pragma once

#include <hdf5.h>

#include <cstddef>
#include <string>
#include <vector>

namespace graft {

/// One dataset, named as model.save('model.h5') would have: `layer` is the layer of the whole
/// model, `name` the path inside it, with the roles kernel, bias, gamma, beta, moving_mean and
/// moving_variance in place of numbers. Layers bear their own names where the file has them (Keras
/// 3.10 and later keep them in an attribute), else class and number.
struct NumberedWeight {
  std::string layer;
  std::string name;
  std::string path;  ///< of the dataset
};

/// All of a file in the order in which the model has them among layers of one class; none: the file
/// is of another layout. Throws Error(input) where there are more than `most`.
std::vector<NumberedWeight> numbered_weights(hid_t file, size_t most);

}  // namespace graft
