// --shard and --merge, which several commands have.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "graft/shard.h"

namespace graft::cli {

struct ShardOptions {
  std::string shard;               ///< as typed; empty: none
  std::vector<std::string> parts;  ///< of --merge

  [[nodiscard]] bool merges() const { return !parts.empty(); }
  [[nodiscard]] std::vector<std::filesystem::path> part_paths() const {
    return {parts.begin(), parts.end()};
  }
};
/// `merged`: what becomes of the parts.
void add_shard_options(CLI::App& app, ShardOptions& options, const std::string& merged);

/// "3/8", or "auto/8": the number that a batch system has put into the environment. Throws
/// Error(usage) for what is neither, and where variables are missing or contradict each other.
Shard parse_shard(const std::string& text);

/// What a worker made, for --json.
nlohmann::json shard_json(const Shard& shard, const std::filesystem::path& part, size_t images,
                          size_t earlier);

/// Throws Error(usage) where an option was given that what `with` does leaves no room for: all but
/// those named, and those that every command has.
void refuse_options_beside(const CLI::App& app, const std::string& with,
                           const std::vector<std::string>& allowed);

}  // namespace graft::cli
