#include "base/group_times.h"

#include <cstdlib>

namespace graft {
namespace {

std::chrono::milliseconds seconds_of(const char* variable, int otherwise) {
  const char* text = std::getenv(variable);
  const int seconds = text != nullptr ? std::atoi(text) : 0;
  return std::chrono::seconds(seconds >= 1 && seconds <= 3600 ? seconds : otherwise);
}

}  // namespace

// The job is to end within 30 s of a death: this, and the time for a verdict.
std::chrono::milliseconds group_timeout() { return seconds_of("GRAFT_GROUP_TIMEOUT", 20); }

std::chrono::milliseconds group_join_time() { return seconds_of("GRAFT_JOIN_TIMEOUT", 25); }

}  // namespace graft
