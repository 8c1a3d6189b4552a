#include "graft/context.h"

#include "base/fail.h"

#include "base/threads.h"
#include "graft/error.h"

namespace graft {

int RunContext::thread_count() const {
  if (threads < 0 || threads > kMaxThreads)
    fail(ErrorKind::usage, "`threads`: {} is not from 0 to {}", threads, kMaxThreads);
  return threads > 0 ? threads : available_processors();
}

void RunContext::check_stop() const {
  if (stop.stop_requested()) throw Error(ErrorKind::interrupted, "interrupted");
}

}  // namespace graft
