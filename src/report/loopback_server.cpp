#include "report/loopback_server.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <system_error>
#include <utility>

#include "base/fail.h"
#include "base/limits.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kRequestTime = std::chrono::seconds(3);  // from accepting to the answer's last byte
constexpr size_t kRequestBytes = 16 << 10U;
// More at once are no browser's; the oldest go.
constexpr size_t kMostConnections = 256;

/// A request that has come whole, and the answer to it.
class MemoryStream : public httplib::Stream {
 public:
  explicit MemoryStream(std::string_view request) : request_(request) {}

  bool is_readable() const override { return read_ < request_.size(); }
  bool is_writable() const override { return true; }
  ssize_t read(char* to, size_t size) override {
    const size_t count = std::min(size, request_.size() - read_);
    std::memcpy(to, request_.data() + read_, count);
    read_ += count;
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* from, size_t size) override {
    answer_.append(from, size);
    return static_cast<ssize_t>(size);
  }
  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip = "127.0.0.1";
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    ip = "127.0.0.1";
    port = 0;
  }
  socket_t socket() const override { return -1; }

  [[nodiscard]] std::string& answer() { return answer_; }

 private:
  std::string_view request_;
  size_t read_ = 0;
  std::string answer_;
};

/// httplib's jobs only hand a socket on.
class AtOnce : public httplib::TaskQueue {
 public:
  void enqueue(std::function<void()> job) override { job(); }
  void shutdown() override {}
};

}  // namespace

bool names_loopback(std::string_view host, int port) {
  std::string name(host);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  });
  constexpr int kDefaultPort = 80;  // which browsers leave out
  for (const char* own : {"127.0.0.1", "localhost"})
    if (name == fmt::format("{}:{}", own, port) || (port == kDefaultPort && name == own))
      return true;
  return false;
}

struct LoopbackServer::Connection {
  explicit Connection(socket_t of) : socket(of), deadline(Clock::now() + kRequestTime) {}
  ~Connection() {
    if (socket < 0) return;
    ::shutdown(socket, SHUT_RDWR);
    ::close(socket);
  }
  Connection(Connection&& other) noexcept
      : socket(std::exchange(other.socket, -1)),
        deadline(other.deadline),
        request(std::move(other.request)),
        answer(std::move(other.answer)),
        sent(other.sent) {}
  Connection& operator=(Connection&& other) noexcept {
    std::swap(socket, other.socket);
    std::swap(deadline, other.deadline);
    std::swap(request, other.request);
    std::swap(answer, other.answer);
    std::swap(sent, other.sent);
    return *this;
  }

  socket_t socket;
  Clock::time_point deadline;
  std::string request;
  std::string answer;  // empty: the request is not whole yet
  size_t sent = 0;
};

KeptSigpipe::KeptSigpipe() { ::sigaction(SIGPIPE, nullptr, &before_); }
void KeptSigpipe::restore() const { ::sigaction(SIGPIPE, &before_, nullptr); }

LoopbackServer::LoopbackServer() { restore(); }

LoopbackServer::~LoopbackServer() { stop(); }

bool LoopbackServer::start(int port) {
  set_pre_routing_handler([port](const httplib::Request& request, httplib::Response& reply) {
    const bool reads = request.method == "GET" || request.method == "HEAD";
    if (reads && request.get_header_value_count("Host") == 1 &&
        names_loopback(request.get_header_value("Host"), port))
      return HandlerResponse::Unhandled;
    constexpr int kForbidden = 403;
    constexpr int kMethodNotAllowed = 405;
    reply.status = reads ? kForbidden : kMethodNotAllowed;
    return HandlerResponse::Handled;
  });
  // Without SO_REUSEPORT, which httplib sets: a port that is taken must be an error.
  socket_t listening = -1;
  set_socket_options([&listening](socket_t socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    listening = socket;
  });
  if (!bind_to_port("127.0.0.1", port)) return false;
  // httplib lets five wait; whoever comes next would try again after a second, and then after more.
  ::listen(listening, SOMAXCONN);
  new_task_queue = [] { return new AtOnce; };
  woken_ = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!woken_.valid())
    fail(ErrorKind::io, "`dashboard`: cannot be started: {}", system_error_text(errno));
  try {
    server_ = std::thread([this] { serve(); });
    listener_ = std::thread([this] {
      listen_after_bind();
      ended_ = true;
    });
  } catch (const std::system_error& error) {
    stop();
    fail(ErrorKind::io, "`dashboard`: no thread can be started: {}", error.code().message());
  }
  // httplib's stop() does nothing to a server that has not begun.
  while (!is_running() && !ended_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return true;
}

void LoopbackServer::wake() const {
  const uint64_t one = 1;
  // It can only fail where it is woken already.
  static_cast<void>(::write(woken_.get(), &one, sizeof one) + 0);
}

void LoopbackServer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (server_.joinable()) {
    wake();
    server_.join();
  }
  if (!listener_.joinable()) return;
  httplib::Server::stop();
  listener_.join();
}

bool LoopbackServer::process_and_close_socket(socket_t socket) {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) {
      arrivals_.push_back(socket);
      wake();
      return true;
    }
  }
  ::close(socket);
  return false;
}

/// False where it is over.
bool LoopbackServer::take_arrivals(std::vector<socket_t>& arrivals) {
  // First: whoever wakes this thread from here on finds it looking again.
  uint64_t count = 0;
  static_cast<void>(::read(woken_.get(), &count, sizeof count) + 0);
  const std::lock_guard lock(mutex_);
  arrivals.swap(arrivals_);
  return !stopping_;
}

/// Reads or writes what there is to be read or written; false where the connection is at its end.
bool LoopbackServer::move_bytes(Connection& c) {
  if (c.answer.empty()) {
    char buffer[4096];
    const ssize_t got = ::recv(c.socket, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    c.request.append(buffer, static_cast<size_t>(got));
    if (c.request.size() > kRequestBytes) return false;
    if (c.request.find("\r\n\r\n") == std::string::npos) return true;
    try {
      MemoryStream stream(c.request);
      bool closed = false;
      static_cast<void>(process_request(stream, /*close_connection=*/true, closed, nullptr));
      c.answer = std::move(stream.answer());
    } catch (const std::exception&) {  // no request ends training
      return false;
    }
    if (c.answer.empty()) return false;
  }
  const ssize_t put = ::send(c.socket, c.answer.data() + c.sent, c.answer.size() - c.sent,
                             MSG_DONTWAIT | MSG_NOSIGNAL);
  if (put < 0) return errno == EAGAIN || errno == EINTR;
  c.sent += static_cast<size_t>(put);
  return c.sent < c.answer.size();
}

void LoopbackServer::serve() {
  std::vector<Connection> connections;
  while (true) {
    std::vector<pollfd> polls = {{woken_.get(), POLLIN, 0}};
    auto until = Clock::now() + std::chrono::hours(1);
    for (const Connection& c : connections) {
      polls.push_back({c.socket, static_cast<short>(c.answer.empty() ? POLLIN : POLLOUT), 0});
      until = std::min(until, c.deadline);
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    static_cast<void>(
        ::poll(polls.data(), polls.size(), static_cast<int>(std::max<int64_t>(left, 0) + 1)));
    std::vector<socket_t> arrivals;
    const bool goes_on = take_arrivals(arrivals);
    const auto now = Clock::now();
    std::vector<Connection> going_on;
    for (size_t i = 0; i < connections.size(); ++i) {
      if (now >= connections[i].deadline) continue;
      if (polls[i + 1].revents != 0 && !move_bytes(connections[i])) continue;
      going_on.push_back(std::move(connections[i]));
    }
    connections = std::move(going_on);
    for (const socket_t socket : arrivals) connections.emplace_back(socket);
    if (!goes_on) return;
    // They stand in the order in which they came.
    if (connections.size() > kMostConnections)
      connections.erase(connections.begin(),
                        connections.end() - static_cast<ptrdiff_t>(kMostConnections));
  }
}

}  // namespace graft
