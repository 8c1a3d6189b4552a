// Classifiers in files of other programs, whichever format they have.
#pragma once

#include <filesystem>
#include <stop_token>
#include <string>

#include "weights/foreign_classifier.h"

namespace graft {

/// Reads a file that holds a whole classifier: Keras' whole models, ONNX models, and torchvision's
/// and timm's weights with their classifier. `head` is for files that have weights alone: the
/// head's language (with_head() of network.h), whose layers then take the file's further weights in
/// their order; empty where the file says it. `size`: as for assemble(). Throws Error(input) for
/// what is no such file, and says what to do; Error(usage) for a head that does not fit.
ForeignClassifier open_foreign_classifier(const std::filesystem::path& path,
                                          const std::string& head = "", const InputSize& size = {},
                                          const std::stop_token& until = {});

/// Whether a file's content is another program's, and not a model of Graft's.
bool is_foreign(const std::filesystem::path& path);

}  // namespace graft
