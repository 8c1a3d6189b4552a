// Keras' whole models: a classifier with its head.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "weights/foreign_classifier.h"
#include "weights/keras_values.h"

namespace graft {

class H5File;

/// Reads what model.save('….h5') or model.save('….keras') wrote: a VGG, inlined or as a model
/// within the model, with what stands before and behind it. Nothing where the file has weights
/// alone, without a description of the model. Throws as parse_keras_model, walk_keras_model and
/// H5File do. The graph's tensors keep the file open.
std::optional<ForeignGraph> read_keras_classifier(const std::shared_ptr<H5File>& file);

/// The same of a file with weights alone (.weights.h5): its head is what `words` say, as
/// append_head() takes them. Throws Error(input) where no VGG is in it.
ForeignGraph read_keras_weights(const std::shared_ptr<H5File>& file, const std::string& words);

/// A weight in canonical layout, but for the order behind a flatten; keeps the file open.
StoredTensor stored_h5_weight(const std::shared_ptr<H5File>& file, size_t index);

/// What a layer in front of the network has learned, for walk_keras_model(); weights that are many
/// or cannot be read have no values.
std::vector<std::vector<float>> own_values(H5File& file, const KerasLocator& locator,
                                           const KerasPath& path);

}  // namespace graft
