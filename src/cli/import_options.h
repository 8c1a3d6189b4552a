// What a command is told of another program's classifier, whose file does not say it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "graft/weights.h"

namespace graft::cli {

struct ImportArguments {
  std::string classes;
  PixelFamily preprocessing = PixelFamily::of_weights;
  std::string head;
  InputSize input;
  std::optional<Resampling> resampling;

  [[nodiscard]] ClassifierImport import() const;
  [[nodiscard]] bool any() const;
};

/// --classes, --preprocessing, --head.
void add_import_options(CLI::App& app, ImportArguments& arguments);

}  // namespace graft::cli
