#include "cli/train_limits.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <optional>

#include "base/limits.h"
#include "base/memory.h"
#include "base/progress.h"
#include "graft/error.h"

namespace graft::cli {
namespace {

// Address space, measured with Debian 12's LibTorch 1.13 and OpenBLAS 0.3.21, and rounded up.
constexpr uint64_t kMegabyte = 1'000'000;
constexpr uint64_t kLibraries = 640 * kMegabyte;
constexpr uint64_t kFirstThread = 200 * kMegabyte;
// Stacks, an arena of the allocator, and a buffer of OpenBLAS, which waits for ever if it gets
// none.
constexpr uint64_t kFurtherThread = 160 * kMegabyte;
constexpr uint64_t kOpenFiles = 16;
// The pools that train, run the engine and decode images have that many threads each; one prepares
// batches.
constexpr int kPools = 7;

uint64_t taken_by(int threads) {
  return kFirstThread + static_cast<uint64_t>(threads - 1) * kFurtherThread;
}

}  // namespace

void check_limits() {
  if (const auto files = open_file_limit(); files && *files < kOpenFiles)
    fail(ErrorKind::io,
         "the limit on open files (ulimit -n) is {}, and training needs {}; raise it", *files,
         kOpenFiles);
  const std::optional<uint64_t> limit = address_space_limit();
  if (limit && *limit < kLibraries + kFirstThread)
    fail(ErrorKind::memory,
         "the limit on address space (ulimit -v) is {}, and training needs at least {}; raise it",
         format_bytes(static_cast<double>(*limit)),
         format_bytes(static_cast<double>(kLibraries + kFirstThread)));
}

ThreadLimit threads_within_limits(int wanted) {
  int threads = wanted;
  const char* reason = "processes (ulimit -u, or a control group's)";
  if (threads > 1) threads = std::clamp(startable_threads(kPools * wanted + 1) / kPools, 1, wanted);
  if (const std::optional<uint64_t> left = address_space_left()) {
    // Fewer arenas: each reserves 64 MB.
    ::mallopt(M_ARENA_MAX, 2);
    const uint64_t half = *left / 2;
    const uint64_t further = half > kFirstThread ? (half - kFirstThread) / kFurtherThread : 0;
    if (further + 1 < static_cast<uint64_t>(threads)) {
      threads = static_cast<int>(further) + 1;
      reason = "address space (ulimit -v)";
    }
  }
  if (threads == wanted) return {threads, ""};
  return {threads, fmt::format("the limit on {} leaves {} of {} threads", reason, threads, wanted)};
}

uint64_t memory_for_training(int threads, bool loaded) {
  const uint64_t available = available_memory();
  const std::optional<uint64_t> left = address_space_left();
  if (!left) return available;
  const uint64_t others = taken_by(threads) + (loaded ? 0 : kLibraries);
  const uint64_t bound = *left > others ? *left - others : 1;
  return available == 0 ? bound : std::min(available, bound);
}

}  // namespace graft::cli
