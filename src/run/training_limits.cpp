#include "run/training_limits.h"

#include "graft/train.h"

#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

#include "base/fail.h"
#include "base/limits.h"
#include "base/memory.h"
#include "base/progress.h"

namespace graft {
namespace {

// Address space, measured with Debian 12's LibTorch 1.13 and OpenBLAS 0.3.21, and rounded up. The
// program itself and what `graft` loads too is part of the libraries.
constexpr uint64_t kMegabyte = 1'000'000;
constexpr uint64_t kLibraries = 660 * kMegabyte;
constexpr uint64_t kProgram = 100 * kMegabyte;
constexpr uint64_t kFirstThread = 260 * kMegabyte;
// Stacks, an arena of the allocator, and a buffer of OpenBLAS, which waits for ever if it gets
// none.
constexpr uint64_t kFurtherThread = 160 * kMegabyte;
// Data that is written, of which reserved addresses are no part; with room for what the libraries
// take after their first products.
constexpr uint64_t kDataOfLibraries = 220 * kMegabyte;
constexpr uint64_t kDataOfProgram = 32 * kMegabyte;
constexpr uint64_t kDataOfThread = 64 * kMegabyte;
constexpr uint64_t kSmallestTraining = 60 * kMegabyte;
constexpr uint64_t kOpenFiles = 16;
constexpr uint64_t kStack = 512 * 1024;  // 128 kB are enough, 96 are not
// The pools that train, run the engine and decode images have that many threads each; one prepares
// batches.
constexpr int kPools = 7;

constexpr std::string_view kAddressSpace = "the limit on address space (ulimit -v)";
constexpr std::string_view kData = "the limit on data (ulimit -d)";
constexpr uint64_t kUsualStack = 8 << 20;
constexpr std::string_view kStacks =
    "the size of stacks (ulimit -s) or a limit on processes or memory";
constexpr std::string_view kProcesses = "the limit on processes (ulimit -u, or a control group's)";

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

/// A limit on memory, and what is taken of it beside a training's own data.
struct Bound {
  std::string_view name;
  uint64_t limit = 0;
  uint64_t others = 0;  ///< libraries and one thread
  uint64_t further_thread = 0;
};

/// By what libraries are known to take rather than by what is left at this moment, so that a plan
/// and its run, and every run again, come to one answer. A program that trains among other things
/// (Python) may have taken more.
std::vector<Bound> bounds() {
  const bool loaded = training_libraries_are_loaded();
  const auto others = [&](uint64_t limit, std::optional<uint64_t> left, uint64_t libraries,
                          uint64_t program) {
    const uint64_t used = limit - std::min(limit, left.value_or(limit));
    return loaded ? std::max(libraries, used) : libraries + used - std::min(used, program);
  };
  std::vector<Bound> out;
  if (const auto limit = address_space_limit())
    out.push_back({kAddressSpace, *limit,
                   others(*limit, address_space_left(), kLibraries, kProgram) + kFirstThread,
                   kFurtherThread});
  if (const auto limit = data_limit())
    out.push_back({kData, *limit,
                   others(*limit, data_left(), kDataOfLibraries, kDataOfProgram) + kDataOfThread,
                   kDataOfThread});
  return out;
}

}  // namespace

void check_training_limits() {
  if (const auto files = open_file_limit(); files && *files < kOpenFiles)
    fail(ErrorKind::io,
         "the limit on open files (ulimit -n) is {}, and training needs {}; raise it", *files,
         kOpenFiles);
  const auto need = [](std::optional<uint64_t> limit, uint64_t least, std::string_view name) {
    if (limit && *limit < least)
      fail(ErrorKind::memory,
           "{} is {}, and training's libraries alone take {}; raise it to {} or more", name,
           format_bytes(static_cast<double>(*limit)), format_bytes(static_cast<double>(least)),
           format_bytes(static_cast<double>(least + kSmallestTraining)));
  };
  need(address_space_limit(), kLibraries + kFirstThread, kAddressSpace);
  need(data_limit(), kDataOfLibraries + kDataOfThread, kData);
  need(stack_limit(), kStack, "the limit on the stack (ulimit -s)");
}

MemoryLeft memory_for_training() {
  MemoryLeft memory{available_memory(), {}, 0};
  for (const Bound& bound : bounds()) {
    const uint64_t bytes = bound.limit > bound.others ? bound.limit - bound.others : 1;
    if (memory.bytes == 0 || bytes < memory.bytes) memory = {bytes, bound.name, bound.others};
  }
  return memory;
}

ThreadLimit threads_within_limits(int wanted, const TrainPlan& plan) {
  wanted = std::max(wanted, 1);
  int threads = wanted;
  std::string_view reason = kProcesses;
  if (threads > 1) threads = std::clamp(startable_threads(kPools * wanted + 1) / kPools, 1, wanted);
  // Addresses for stacks of that size may be what there is too little of.
  if (stack_limit().value_or(0) > kUsualStack) reason = kStacks;
  for (const Bound& bound : bounds()) {
    const uint64_t needed = bound.others + plan.memory.required();
    const uint64_t further = (bound.limit - std::min(bound.limit, needed)) / bound.further_thread;
    if (further + 1 < static_cast<uint64_t>(threads)) {
      threads = static_cast<int>(further) + 1;
      reason = bound.name;
    }
  }
  if (threads == wanted) return {threads, ""};
  return {threads, fmt::format("{} leaves {} of {} threads", reason, threads, wanted)};
}

}  // namespace graft
