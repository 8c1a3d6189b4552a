// HTTP/1.1 for many clients, of which none can hold up another.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace graft::serving {

struct HttpLimits {
  uint64_t body_bytes = uint64_t{32} << 20;  ///< of one request
  uint64_t all_bodies = uint64_t{256}
                        << 20;  ///< of all requests together, as long as they are here
  uint32_t header_bytes = 16 << 10;
  size_t connections = 4096;
  std::chrono::seconds header_time{15};   ///< to the end of a request's headers, idle time included
  std::chrono::seconds request_time{60};  ///< for its body
  std::chrono::seconds reply_time{60};    ///< for the client to take the reply
  std::chrono::seconds drain_time{30};    ///< for requests in flight when the server stops
};

using HttpFields = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string id;      ///< of the log and of the reply's X-Request-Id
  std::string method;  ///< "GET", "POST", …
  /// The path's parts, percent-decoded: {} for "/", {"v2", "models", "m"}.
  std::vector<std::string> path;
  std::string target;  ///< as it came, for the log
  HttpFields query;    ///< decoded
  HttpFields headers;  ///< names in lower case
  std::string body;
  std::string client;  ///< address
  std::chrono::steady_clock::time_point begun;
  std::stop_token gone;  ///< the client has hung up

  /// The first header of that name (lower case); null: there is none.
  [[nodiscard]] const std::string* header(std::string_view name) const;
  [[nodiscard]] const std::string* parameter(std::string_view name) const;
};

struct HttpReply {
  int status = 200;
  std::string type = "application/json";
  std::string body;
  HttpFields headers{};
  std::string note{};  ///< for the log
};

/// What a server does with requests. Called from the server's thread, which also moves everybody's
/// bytes: calls return at once.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  /// Before a body is read: a reply where the request is refused.
  virtual std::optional<HttpReply> refuse(const HttpRequest& head) = 0;
  /// `reply` may be called once, from any thread, also when the client has gone.
  virtual void handle(std::shared_ptr<HttpRequest> request,
                      std::function<void(HttpReply)> reply) = 0;
  /// A reply that the server itself makes of a malformed or unwelcome request.
  virtual HttpReply error(int status, const std::string& why) = 0;
  /// After the reply was sent, or could not be: `sent` says which.
  virtual void done(const HttpRequest& request, const HttpReply& reply, bool sent) = 0;
};

/// Not thread-safe but for what says so.
class HttpServer {
 public:
  HttpServer(HttpHandler& handler, const HttpLimits& limits);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// Binds an address and port; 0: any free one. Throws Error(io) that says why it cannot.
  void listen(const std::string& host, int port);
  [[nodiscard]] int port() const;
  /// Serves on the calling thread until `stop`; then takes no more connections, and returns when
  /// requests in flight are answered, or after drain_time.
  void run(const std::stop_token& stop);
  /// Open connections. Thread-safe.
  [[nodiscard]] size_t connections() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "Not Found" of 404.
std::string_view reason_phrase(int status);

}  // namespace graft::serving
