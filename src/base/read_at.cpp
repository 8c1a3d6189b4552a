#include "base/read_at.h"

#include <sys/types.h>
#include <unistd.h>

#include <cerrno>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"

namespace graft {

std::string read_at(int fd, uint64_t offset, size_t count, const std::filesystem::path& path) {
  std::string out(count, '\0');
  size_t done = 0;
  while (done < count) {
    const ssize_t got =
        ::pread(fd, out.data() + done, count - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail(ErrorKind::io, "{}: cannot read: {}", printable(path), system_error_text(errno));
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  out.resize(done);
  return out;
}

}  // namespace graft
