#include "base/limits.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <latch>
#include <system_error>
#include <thread>
#include <vector>

#include "base/progress.h"

namespace graft {
namespace {

std::optional<uint64_t> limit_of(decltype(RLIMIT_AS) resource) {
  struct rlimit limit {};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
  return limit.rlim_cur;
}

/// A column of /proc/self/statm, in bytes.
uint64_t taken(const std::filesystem::path& root, int column) {
  std::ifstream file(root / "proc/self/statm");
  uint64_t pages = 0;
  for (int i = 0; i <= column; ++i)
    if (!(file >> pages)) return 0;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::optional<uint64_t> left(std::optional<uint64_t> limit, uint64_t used) {
  if (!limit) return std::nullopt;
  return *limit - std::min(*limit, used);
}

}  // namespace

std::optional<uint64_t> address_space_limit() { return limit_of(RLIMIT_AS); }

std::optional<uint64_t> data_limit() { return limit_of(RLIMIT_DATA); }

std::optional<uint64_t> file_size_limit() { return limit_of(RLIMIT_FSIZE); }

std::optional<uint64_t> stack_limit() { return limit_of(RLIMIT_STACK); }

std::optional<uint64_t> open_file_limit() { return limit_of(RLIMIT_NOFILE); }

std::optional<uint64_t> address_space_left(const std::filesystem::path& root) {
  constexpr int kSize = 0;
  return left(limit_of(RLIMIT_AS), taken(root, kSize));
}

std::optional<uint64_t> data_left(const std::filesystem::path& root) {
  constexpr int kData = 5;
  return left(limit_of(RLIMIT_DATA), taken(root, kData));
}

bool address_space_is_scarce() {
  constexpr uint64_t kPlenty = 4'000'000'000;
  return address_space_limit().value_or(kPlenty) < kPlenty;
}

void leave_time_to_stop() {
  struct rlimit limit {};
  if (::getrlimit(RLIMIT_CPU, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
      limit.rlim_cur < limit.rlim_max || limit.rlim_cur < 2)
    return;
  // Seconds of all threads together.
  limit.rlim_cur -= std::clamp<rlim_t>(limit.rlim_cur / 10, 1, 60);
  static_cast<void>(::setrlimit(RLIMIT_CPU, &limit));
}

int startable_threads(int wanted) {
  std::latch done(1);
  std::vector<std::thread> started;
  started.reserve(static_cast<size_t>(std::max(wanted, 0)));
  try {
    for (int i = 0; i < wanted; ++i) started.emplace_back([&] { done.wait(); });
  } catch (const std::system_error&) {
    // As many as there are now.
  }
  done.count_down();
  for (std::thread& thread : started) thread.join();
  return static_cast<int>(started.size());
}

std::string system_error_text(int error) {
  std::string text = std::strerror(error);
  if (const auto bytes = file_size_limit(); error == EFBIG && bytes)
    return fmt::format("{}: the limit on file sizes (ulimit -f) is {}; raise it", text,
                       format_bytes(static_cast<double>(*bytes)));
  if (const auto files = open_file_limit(); error == EMFILE && files)
    return fmt::format("{}: the limit (ulimit -n) is {}; raise it", text, *files);
  return text;
}

}  // namespace graft
