#include "run/training_limits.h"

#include "graft/train.h"

#include <fmt/format.h>
#include <link.h>
#include <malloc.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/fail.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/progress.h"

namespace graft {
namespace {

// Address space, measured with Debian 12's LibTorch 1.13 and OpenBLAS 0.3.21, and rounded up.
constexpr uint64_t kMegabyte = 1'000'000;
constexpr uint64_t kLibraries = 640 * kMegabyte;
constexpr uint64_t kFirstThread = 200 * kMegabyte;
// Stacks, an arena of the allocator, and a buffer of OpenBLAS, which waits for ever if it gets
// none.
constexpr uint64_t kFurtherThread = 160 * kMegabyte;
// Data that is written, of which reserved addresses are no part; with room for what the libraries
// take after their first products.
constexpr uint64_t kDataOfLibraries = 160 * kMegabyte;
constexpr uint64_t kDataOfThread = 64 * kMegabyte;
constexpr uint64_t kOpenFiles = 16;
constexpr uint64_t kStack = 512 * 1024;  // 128 kB are enough, 96 are not
// The pools that train, run the engine and decode images have that many threads each; one prepares
// batches.
constexpr int kPools = 7;

constexpr std::string_view kAddressSpace = "the limit on address space (ulimit -v)";
constexpr std::string_view kData = "the limit on data (ulimit -d)";
constexpr std::string_view kProcesses = "the limit on processes (ulimit -u, or a control group's)";

uint64_t taken_by(int threads) {
  return kFirstThread + static_cast<uint64_t>(threads - 1) * kFurtherThread;
}

bool training_libraries_are_loaded() {
  return ::dl_iterate_phdr(
             [](dl_phdr_info* library, size_t, void*) {
               return std::string_view(library->dlpi_name).find("libtorch_cpu") !=
                              std::string_view::npos
                          ? 1
                          : 0;
             },
             nullptr) != 0;
}

}  // namespace

void check_training_limits() {
  if (const auto files = open_file_limit(); files && *files < kOpenFiles)
    fail(ErrorKind::io,
         "the limit on open files (ulimit -n) is {}, and training needs {}; raise it", *files,
         kOpenFiles);
  const auto need = [](std::optional<uint64_t> limit, uint64_t least, std::string_view name) {
    if (limit && *limit < least)
      fail(ErrorKind::memory, "{} is {}, and training needs at least {}; raise it", name,
           format_bytes(static_cast<double>(*limit)), format_bytes(static_cast<double>(least)));
  };
  need(address_space_limit(), kLibraries + kFirstThread, kAddressSpace);
  need(data_limit(), kDataOfLibraries + kDataOfThread, kData);
  need(stack_limit(), kStack, "the limit on the stack (ulimit -s)");
}

ThreadLimit threads_within_limits(int wanted) {
  wanted = std::max(wanted, 1);
  int threads = wanted;
  std::string_view reason = kProcesses;
  if (threads > 1) threads = std::clamp(startable_threads(kPools * wanted + 1) / kPools, 1, wanted);
  if (const std::optional<uint64_t> left = address_space_left()) {
    // Fewer arenas: each reserves 64 MB.
    ::mallopt(M_ARENA_MAX, 2);
    const uint64_t half = *left / 2;
    const uint64_t further = half > kFirstThread ? (half - kFirstThread) / kFurtherThread : 0;
    if (further + 1 < static_cast<uint64_t>(threads)) {
      threads = static_cast<int>(further) + 1;
      reason = kAddressSpace;
    }
  }
  if (threads == wanted) return {threads, ""};
  return {threads, fmt::format("{} leaves {} of {} threads", reason, threads, wanted)};
}

MemoryLeft memory_for_training(int threads) {
  const bool loaded = training_libraries_are_loaded();
  MemoryLeft memory{available_memory(), {}};
  const auto bound = [&](std::optional<uint64_t> left, uint64_t others, std::string_view limit) {
    if (!left) return;
    const uint64_t bytes = *left > others ? *left - others : 1;
    if (memory.bytes == 0 || bytes < memory.bytes) memory = {bytes, limit};
  };
  bound(address_space_left(), taken_by(threads) + (loaded ? 0 : kLibraries), kAddressSpace);
  bound(data_left(),
        static_cast<uint64_t>(threads) * kDataOfThread + (loaded ? 0 : kDataOfLibraries), kData);
  return memory;
}

}  // namespace graft
