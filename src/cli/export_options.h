// The options of `graft export`, read alike by the program that parses and the one that exports.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "cli/common.h"
#include "cli/import_options.h"
#include "graft/export.h"

namespace graft::cli {

struct ExportArguments {
  CommonOptions common;
  std::string model;
  std::filesystem::path output;  ///< given, or made of the model's name
  ExportOptions options;
  ClassifierImport import;  ///< of another program's MODEL
  bool json = false;
};

/// Parses `graft export …` (argv[0] is "export") and calls `run`. Returns the exit code.
int run_export_app(int argc, char** argv, const std::function<int(const ExportArguments&)>& run);

}  // namespace graft::cli
