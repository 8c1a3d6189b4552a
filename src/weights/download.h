// Downloads that end up complete and checked, or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "graft/context.h"

namespace graft {

struct Download {
  std::string url;
  std::filesystem::path target;
  std::string hash;  ///< "MD5 …" or "SHA-256 …", for messages
  uint64_t bytes = 0;
  uint64_t tolerance = 0;                                      ///< by how much `bytes` may be off
  std::function<bool(const std::filesystem::path&)> is_right;  ///< compares the hash
  int stall_seconds = 30;  ///< give up when next to nothing arrives in that long
  int connect_seconds = 15;
};

/// Fetches into <target>.part, going on where an earlier try stopped; checks size and hash; then
/// renames to <target>. A file that is complete but wrong is removed. Throws Error(io) that says
/// what happened, with the address, the hash and where to put the file by hand.
void download(const Download& job, const RunContext& context);

}  // namespace graft
