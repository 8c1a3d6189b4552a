// Configuration files, as `graft train --config` reads them.
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/file.h"
#include "cli/train_options.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const fs::path file =
      fs::temp_directory_path() / ("graft-fuzz-" + std::to_string(::getpid()) + ".toml");
  write_file_atomic(file, fuzz::text(data, size));
  std::vector<std::string> arguments = {"train", "data", "--config", file.string()};
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  const int code = cli::run_train_app(static_cast<int>(pointers.size()), pointers.data(),
                                      [](const cli::TrainOptions& options) {
                                        fuzz::require(!to_toml(options.config_of_run).empty());
                                        return 0;
                                      });
  fuzz::require(code >= 0 && code <= 2);
  fs::remove(file);
  return 0;
}
