#include "graft/context.h"

#include "base/threads.h"
#include "graft/error.h"

namespace graft {

int RunContext::thread_count() const { return threads > 0 ? threads : available_processors(); }

void RunContext::check_stop() const {
  if (stop.stop_requested()) throw Error(ErrorKind::interrupted, "interrupted");
}

}  // namespace graft
