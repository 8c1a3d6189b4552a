#include "base/socket_bytes.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace graft {

bool send_bytes(int socket, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
  return true;
}

bool receive_bytes(int socket, std::span<std::byte> bytes, const std::function<void()>& wait) {
  while (!bytes.empty()) {
    if (wait) wait();
    const ssize_t done = ::read(socket, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(done));
  }
  return true;
}

}  // namespace graft
