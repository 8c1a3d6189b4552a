// Downloads that end up complete and checked, or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "graft/context.h"

namespace graft {

struct Download {
  std::string url;
  std::filesystem::path target;
  std::string md5;
  uint64_t bytes = 0;
  int stall_seconds = 30;  ///< give up when next to nothing arrives in that long
  int connect_seconds = 15;
};

/// Fetches into <target>.part, going on where an earlier try stopped; checks size and MD5; then
/// renames to <target>. A file that is complete but wrong is removed. Throws Error(io) that says
/// what happened, with the address, the MD5 and where to put the file by hand.
void download(const Download& job, const RunContext& context);

}  // namespace graft
