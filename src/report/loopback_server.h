// An HTTP server for browsers on the same machine that no client can hold up.
#pragma once

#include <httplib.h>
#include <csignal>

#include <atomic>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "base/descriptor.h"

namespace graft {

/// Whether a Host header names 127.0.0.1 or localhost with that port; without one, port 80.
bool names_loopback(std::string_view host, int port);

/// What the process does on SIGPIPE: httplib::Server's constructor makes it ignored for good, which
/// is the program's to decide. Sockets are written to with MSG_NOSIGNAL.
class KeptSigpipe {
 protected:
  KeptSigpipe();
  void restore() const;

 private:
  struct sigaction before_ {};
};

/// Listens on 127.0.0.1, on two threads of its own: one accepts, one moves bytes whenever any
/// connection is ready, so that a client that stands still holds up no other. Only GET and HEAD of
/// at most 16 KiB, answered within seconds from the first to the last byte, one to a connection;
/// only requests that name the loopback address, so that no other site's script reads anything.
/// stop() and the destructor cut whatever is connected and return at once. Handlers are added
/// before start(), and should be quick: they run one at a time.
class LoopbackServer : private KeptSigpipe, private httplib::Server {
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
  struct Connection;
  /// Called by the accepting thread: leaves the socket to the other one.
  bool process_and_close_socket(socket_t socket) override;
  void serve();
  [[nodiscard]] bool take_arrivals(std::vector<socket_t>& arrivals);
  [[nodiscard]] bool move_bytes(Connection& connection);
  void wake() const;

  std::thread listener_;
  std::thread server_;
  std::atomic<bool> ended_ = false;  // the listening thread
  Descriptor woken_;                 // an eventfd: there are arrivals, or it is over
  std::mutex mutex_;                 // guards what follows
  std::vector<socket_t> arrivals_;
  bool stopping_ = false;
};

}  // namespace graft
