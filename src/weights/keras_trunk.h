// Whether the backbone that a Keras model has in it computes as Graft's does.
#pragma once

#include <set>
#include <span>
#include <string>

#include "weights/h5_message.h"
#include "weights/keras_model.h"
#include "weights/keras_values.h"

namespace graft {

/// Throws Error(input) that names a layer where one of those that have the weights `taken`
/// (indices), or that stand between them, is not VGG's: another activation, stride, padding or
/// pooling.
void require_vgg_layers(const KerasModel& model, const KerasLocator& locator,
                        const std::set<size_t>& taken, const std::string& file);

/// The epsilon of each BatchNormalization, by the indices of its weights.
std::map<size_t, double> norm_epsilons(const KerasModel& model, const KerasLocator& locator);

}  // namespace graft
