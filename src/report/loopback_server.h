// An HTTP server for browsers on the same machine that no client can hold up.
#pragma once

#include <httplib.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <thread>

namespace graft {

/// Whether a Host header names 127.0.0.1 or localhost with that port; without one, port 80.
bool names_loopback(std::string_view host, int port);

/// Listens on 127.0.0.1, on threads of its own. Only GET and HEAD of at most 16 KiB, answered
/// within seconds from the first to the last byte, one to a connection; only requests that name the
/// loopback address, so that no other site's script reads anything. stop() and the destructor cut
/// whatever is connected and return at once. Handlers are added before start(), and run on several
/// threads.
class LoopbackServer : private httplib::Server {
 public:
  LoopbackServer();
  ~LoopbackServer() override;
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  using httplib::Server::Get;
  /// False where the port cannot be bound. Throws Error(io) where no thread can be started.
  [[nodiscard]] bool start(int port);
  void stop();

 private:
  class Workers;
  bool process_and_close_socket(socket_t socket) override;

  std::unique_ptr<Workers> workers_;  // until the listening thread takes them over
  std::thread listener_;
  std::atomic<bool> ended_ = false;  // the listening thread
  std::mutex mutex_;                 // guards what follows
  std::set<socket_t> open_;
  bool stopping_ = false;
};

}  // namespace graft
