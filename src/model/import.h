// A classifier from whatever file holds one: Graft's own, or another program's.
#pragma once

#include <filesystem>

#include "graft/context.h"
#include "graft/weights.h"
#include "model/model_file.h"

namespace graft {

/// Reads a whole classifier: a model or run of Graft's, or a file of another program's, which
/// becomes one. What was left out goes to the reporter as notes. Throws Error(usage) that names the
/// option where the file does not tell its classes or preprocessing and `import` does not, or tells
/// another; Error(input) as open_foreign_classifier and read_model do.
ModelFile import_classifier(const std::filesystem::path& file, const ClassifierImport& import,
                            const RunContext& context);

/// What is known of a classifier before its values are read.
struct ClassifierOutline {
  Network network;
  std::vector<std::string> classes;  ///< empty: another program's file that does not say them
  bool foreign = false;
  std::string open_pixels;  ///< what it does not say of them; empty: nothing
  std::string open_size;    ///< likewise of its input's size
};
ClassifierOutline outline_classifier(const std::filesystem::path& file, const std::string& head,
                                     const RunContext& context);

/// The backbone alone of any file of weights that holds one, whole or its first blocks.
ModelFile import_backbone(const std::filesystem::path& file, const ClassifierImport& import,
                          const RunContext& context);

}  // namespace graft
