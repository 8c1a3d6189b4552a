#include "report/loopback_server.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "graft/error.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kThreads = 4;
constexpr auto kRequestTime = std::chrono::seconds(3);  // from accepting to the answer's last byte
constexpr size_t kRequestBytes = 16 << 10U;

/// A connected socket that gives up at a moment, however many bytes still come one by one, and
/// after a number of bytes read. httplib's own timeouts begin anew with each byte.
class BoundedStream : public httplib::Stream {
 public:
  explicit BoundedStream(socket_t socket)
      : socket_(socket), deadline_(Clock::now() + kRequestTime) {}

  bool is_readable() const override { return next_ < filled_ || wait(POLLIN); }
  bool is_writable() const override { return wait(POLLOUT); }

  ssize_t read(char* to, size_t size) override {
    if (next_ == filled_) {
      const size_t room = std::min(buffer_.size(), kRequestBytes - total_);
      if (room == 0 || !wait(POLLIN)) return -1;
      const ssize_t got = ::recv(socket_, buffer_.data(), room, MSG_DONTWAIT);
      if (got <= 0) return got;
      next_ = 0;
      filled_ = static_cast<size_t>(got);
      total_ += filled_;
    }
    const size_t count = std::min(size, filled_ - next_);
    std::memcpy(to, &buffer_[next_], count);
    next_ += count;
    return static_cast<ssize_t>(count);
  }

  ssize_t write(const char* from, size_t size) override {
    if (!wait(POLLOUT)) return -1;
    return ::send(socket_, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  void get_remote_ip_and_port(std::string& ip, int& port) const override {
    ip = "127.0.0.1";
    port = 0;
  }
  void get_local_ip_and_port(std::string& ip, int& port) const override {
    ip = "127.0.0.1";
    port = 0;
  }
  socket_t socket() const override { return socket_; }

 private:
  /// False where the time is over.
  [[nodiscard]] bool wait(short events) const {
    for (;;) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - Clock::now()).count();
      if (left <= 0) return false;
      pollfd poll{socket_, events, 0};
      const int ready = ::poll(&poll, 1, static_cast<int>(left));
      if (ready > 0) return true;
      if (ready < 0 && errno != EINTR) return false;
    }
  }

  socket_t socket_;
  Clock::time_point deadline_;
  std::array<char, 4096> buffer_{};
  size_t next_ = 0;
  size_t filled_ = 0;
  size_t total_ = 0;
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

/// Threads that answer. Where the system gives fewer than wanted, as many as there are.
class LoopbackServer::Workers : public httplib::TaskQueue {
 public:
  explicit Workers(size_t count) {
    try {
      while (threads_.size() < count) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      if (threads_.empty())
        fail(ErrorKind::io, "--dashboard: no thread can be started: {}", error.code().message());
    }
  }
  ~Workers() override { shutdown(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void enqueue(std::function<void()> job) override {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
  }

  /// Waits for what is queued: each job owns a socket that it must close.
  void shutdown() override {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return over_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
  }

  std::mutex mutex_;  // guards what follows, but for the threads
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool over_ = false;
  std::vector<std::thread> threads_;  // last: they use the rest
};

LoopbackServer::LoopbackServer() = default;

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
  set_socket_options([](socket_t socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  if (!bind_to_port("127.0.0.1", port)) return false;
  workers_ = std::make_unique<Workers>(kThreads);
  new_task_queue = [this] { return workers_.release(); };
  try {
    listener_ = std::thread([this] {
      listen_after_bind();
      ended_ = true;
    });
  } catch (const std::system_error& error) {
    fail(ErrorKind::io, "--dashboard: no thread can be started: {}", error.code().message());
  }
  // httplib's stop() does nothing to a server that has not begun.
  while (!is_running() && !ended_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return true;
}

void LoopbackServer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const socket_t socket : open_) ::shutdown(socket, SHUT_RDWR);
  }
  if (!listener_.joinable()) return;
  httplib::Server::stop();
  listener_.join();
}

bool LoopbackServer::process_and_close_socket(socket_t socket) {
  bool answers = false;
  {
    const std::lock_guard lock(mutex_);
    answers = !stopping_ && open_.insert(socket).second;
  }
  if (answers) {
    try {
      BoundedStream stream(socket);
      bool closed = false;
      answers = process_request(stream, /*close_connection=*/true, closed, nullptr);
    } catch (const std::exception&) {  // no request ends training
      answers = false;
    }
    const std::lock_guard lock(mutex_);
    open_.erase(socket);
  }
  ::shutdown(socket, SHUT_RDWR);
  ::close(socket);
  return answers;
}

}  // namespace graft
