#include "serve/http_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <unordered_map>
#include <unordered_set>

#include "base/fail.h"
#include "serve/request_target.h"
#include "serve/text.h"

namespace graft::serving {
namespace {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using beast::error_code;
using net::ip::tcp;

/// What is read and thrown away of a refused request, so that its client gets to see the reply
/// instead of a reset connection.
constexpr uint64_t kMostDiscarded = uint64_t{64} << 20;
constexpr std::chrono::seconds kLingering{5};

/// Of one connection; more than its headers may have.
constexpr size_t kMostBuffered = size_t{128} << 10U;

const std::string* find(const HttpFields& fields, std::string_view name) {
  const auto at = std::find_if(fields.begin(), fields.end(),
                               [&](const auto& field) { return field.first == name; });
  return at == fields.end() ? nullptr : &at->second;
}

/// Whether the connection has ended, in the middle of a request too.
bool is_broken(error_code error) {
  return error == http::error::end_of_stream || error == http::error::partial_message ||
         error == beast::error::timeout ||
         (error && error.category() == net::error::get_system_category());
}

std::string_view view(beast::string_view text) { return {text.data(), text.size()}; }

}  // namespace

const std::string* HttpRequest::header(std::string_view name) const { return find(headers, name); }
const std::string* HttpRequest::parameter(std::string_view name) const { return find(query, name); }

std::string_view reason_phrase(int status) {
  return view(http::obsolete_reason(static_cast<http::status>(status)));
}

struct HttpServer::State {
  class Session;

  State(HttpHandler& the_handler, const HttpLimits& the_limits)
      : handler(the_handler), limits(the_limits) {}

  void accept();
  void turn_away(tcp::socket socket);
  void drain();
  void end_if_empty();
  void watch_stop(const std::stop_token& stop);

  HttpHandler& handler;
  HttpLimits limits;
  // All of the server's thread: sessions are made, used and destroyed there alone.
  std::unordered_set<Session*> sessions;
  std::unordered_map<uint64_t, std::shared_ptr<Session>> handling;  // that wait for a reply
  std::atomic<size_t> open = 0;
  uint64_t bodies = 0;    // bytes of requests that are here or on their way
  uint64_t requests = 0;  // numbered for their names
  uint64_t run_id = 0;
  uint64_t numbered = 0;  // requests that were handed on
  bool draining = false;
  bool over = false;  // run() has returned
  // Its destructor ends what sessions are left, which use what stands above.
  net::io_context context{1};
  tcp::acceptor acceptor{context};
  net::steady_timer timer{context};
  net::steady_timer stop_timer{context};
};

/// One connection: requests one after the other. Every callback holds it alive.
class HttpServer::State::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(State& server, tcp::socket socket) : server_(server), stream_(std::move(socket)) {
    server_.sessions.insert(this);
    server_.open = server_.sessions.size();
    error_code error;
    const tcp::endpoint client = stream_.socket().remote_endpoint(error);
    if (!error) client_ = client.address().to_string(error);
  }
  ~Session() {
    release_body();
    server_.sessions.erase(this);
    server_.open = server_.sessions.size();
    server_.end_if_empty();
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void read_head() {
    release_body();
    parser_.emplace();
    parser_->header_limit(server_.limits.header_bytes);
    parser_->body_limit(server_.limits.body_bytes);
    request_.reset();
    state_ = Phase::head;
    stream_.expires_after(server_.limits.header_time);
    http::async_read_header(
        stream_, buffer_, *parser_,
        [self = shared_from_this()](error_code error, size_t) { self->on_head(error); });
  }

  /// When the server stops: what waits for a request is closed, the rest after its reply.
  void stop() {
    if (state_ == Phase::head || state_ == Phase::lingering) close();
  }

 private:
  enum class Phase { head, body, handling, replying, lingering };

  void close() {
    error_code ignored;
    stream_.socket().close(ignored);
  }

  void release_body() {
    server_.bodies -= reserved_;
    reserved_ = 0;
  }

  void begin_request() {
    const auto& head = parser_->get();
    request_ = std::make_shared<HttpRequest>();
    request_->id = fmt::format("{:08x}-{:x}", server_.run_id & 0xFFFFFFFFU, ++server_.requests);
    request_->method = std::string(view(head.method_string()));
    request_->target = std::string(view(head.target()));
    request_->client = client_;
    request_->begun = std::chrono::steady_clock::now();
    for (const auto& field : head)
      request_->headers.emplace_back(lower(view(field.name_string())),
                                     std::string(view(field.value())));
    gone_ = std::stop_source();
    request_->gone = gone_.get_token();
  }

  void on_head(error_code error) {
    if (is_broken(error)) return close();
    begin_request();
    if (error == http::error::header_limit)
      return refuse(431, fmt::format("headers of more than {} bytes", server_.limits.header_bytes));
    if (error == http::error::body_limit) return refuse_large_body();
    if (error) return refuse(400, "no valid HTTP request: " + error.message());
    if (server_.draining) return refuse(503, "the server is being stopped");
    if (std::optional<std::string> why = bad_framing()) return refuse(400, *why);
    RequestTarget target;
    if (!parse_target(request_->target, target))
      return refuse(400, "the request's target is no valid path");
    request_->path = std::move(target.path);
    request_->query = std::move(target.query);
    const bool chunked = parser_->chunked();
    const uint64_t length =
        chunked ? server_.limits.body_bytes : parser_->content_length().value_or(0);
    if (std::optional<HttpReply> reply = server_.handler.refuse(*request_))
      return send(std::move(*reply), length == 0 && parser_->keep_alive() && !server_.draining);
    if (length > server_.limits.body_bytes) return refuse_large_body();
    if (length > 0 && request_->method != "POST")
      return refuse(400, "a body comes with POST alone");
    state_ = Phase::body;
    stream_.expires_after(server_.limits.request_time);
    if (const std::string* expect = request_->header("expect")) {
      if (lower(*expect) != "100-continue") return refuse(417, "Expect: knows 100-continue alone");
      auto go_on = std::make_shared<http::response<http::empty_body>>(http::status::continue_, 11);
      http::async_write(stream_, *go_on,
                        [self = shared_from_this(), go_on](error_code failed, size_t) {
                          if (failed) return self->close();
                          self->read_body();
                        });
      return;
    }
    read_body();
  }

  /// What the parser lets pass and two servers in a row might understand differently.
  [[nodiscard]] std::optional<std::string> bad_framing() const {
    size_t hosts = 0;
    for (const auto& [name, value] : request_->headers) {
      if (name == "transfer-encoding" && lower(value) != "chunked")
        return "Transfer-Encoding: chunked is the only one known";
      if (name == "host") ++hosts;
    }
    if (hosts > 1) return "more than one Host";
    if (parser_->chunked() && parser_->get().version() < 11) return "chunks in HTTP/1.0";
    return std::nullopt;
  }

  void refuse_large_body() {
    refuse(413, fmt::format("a body of more than {} bytes", server_.limits.body_bytes));
  }

  void read_body() {
    if (parser_->is_done()) return on_body({});
    http::async_read_some(stream_, buffer_, *parser_,
                          [self = shared_from_this()](error_code error, size_t) {
                            if (error || self->parser_->is_done()) return self->on_body(error);
                            if (self->reserve(self->parser_->get().body().size()))
                              self->read_body();
                          });
  }

  /// Counts what has arrived, not what was announced: a client that is slow takes no place from
  /// others. False where all places are taken, and the request is refused.
  bool reserve(uint64_t bytes) {
    if (bytes <= reserved_) return true;
    const uint64_t more = bytes - reserved_;
    if (server_.bodies + more > server_.limits.all_bodies) {
      refuse(503, "too many bytes of other requests are here; try again");
      return false;
    }
    reserved_ += more;
    server_.bodies += more;
    return true;
  }

  void on_body(error_code error) {
    if (error == http::error::body_limit) return refuse_large_body();
    if (is_broken(error)) return close();
    if (error) return refuse(400, "no valid HTTP body: " + error.message());
    if (!reserve(parser_->get().body().size())) return;
    request_->body = std::move(parser_->get().body());
    state_ = Phase::handling;
    stream_.expires_never();
    watch();
    const uint64_t number = ++server_.numbered;
    server_.handling.emplace(number, shared_from_this());
    server_.handler.handle(request_, [&server = server_, number](HttpReply reply) {
      net::post(server.context, [&server, number, reply = std::move(reply)]() mutable {
        const auto at = server.handling.find(number);
        if (at == server.handling.end()) return;
        const std::shared_ptr<Session> session = std::move(at->second);
        server.handling.erase(at);
        session->on_reply(std::move(reply));
      });
    });
  }

  /// Waits for the client to hang up meanwhile.
  void watch() {
    stream_.socket().async_wait(
        tcp::socket::wait_read, [self = shared_from_this(), request = request_](error_code error) {
          if (error || self->request_ != request || self->state_ != Phase::handling) return;
          char byte = 0;
          const ssize_t got =
              ::recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
          if (got <= 0) self->gone_.request_stop();
        });
  }

  void on_reply(HttpReply reply) {
    error_code ignored;
    stream_.socket().cancel(ignored);
    // A reply that its reader leaves lying counts too.
    reserved_ += reply.body.size();
    server_.bodies += reply.body.size();
    send(std::move(reply), parser_->keep_alive() && !server_.draining);
  }

  /// The request's rest is not read: the connection ends.
  void refuse(int status, const std::string& why) {
    send(server_.handler.error(status, why), false);
  }

  void send(HttpReply reply, bool keep_alive) {
    state_ = Phase::replying;
    reply_ = std::move(reply);
    response_.emplace();
    response_->version(11);
    response_->result(static_cast<unsigned>(reply_.status));
    response_->set(http::field::content_type, reply_.type);
    response_->set("X-Request-Id", request_->id);
    for (const auto& [name, value] : reply_.headers) response_->insert(name, value);
    response_->keep_alive(keep_alive);
    const uint64_t length = reply_.body.size();
    if (request_->method == "HEAD") {
      response_->content_length(length);
      head_only_ = true;
    } else {
      response_->body() = std::move(reply_.body);
      response_->prepare_payload();
      head_only_ = false;
    }
    serializer_.emplace(*response_);
    stream_.expires_after(server_.limits.reply_time);
    const auto sent = [self = shared_from_this(), keep_alive](error_code error, size_t) {
      self->on_sent(error, keep_alive);
    };
    if (head_only_)
      http::async_write_header(stream_, *serializer_, sent);
    else
      http::async_write(stream_, *serializer_, sent);
  }

  void on_sent(error_code error, bool keep_alive) {
    server_.handler.done(*request_, reply_, !error);
    serializer_.reset();
    response_.reset();
    release_body();
    if (error) return close();
    if (keep_alive && !server_.draining) return read_head();
    stream_.socket().shutdown(tcp::socket::shutdown_send, error);
    if (error || server_.draining) return close();
    state_ = Phase::lingering;
    stream_.expires_after(kLingering);
    discarded_ = 0;
    discard();
  }

  void discard() {
    buffer_.clear();
    stream_.async_read_some(buffer_.prepare(std::size_t{16} << 10),
                            [self = shared_from_this()](error_code error, size_t bytes) {
                              self->discarded_ += bytes;
                              if (error || self->discarded_ > kMostDiscarded) return self->close();
                              self->discard();
                            });
  }

  State& server_;
  beast::tcp_stream stream_;
  // Headers, and what of a body is not taken apart yet: a chunk's extensions, say.
  beast::flat_buffer buffer_{kMostBuffered};
  std::optional<http::request_parser<http::string_body>> parser_;
  std::shared_ptr<HttpRequest> request_;
  std::stop_source gone_;
  HttpReply reply_;
  std::optional<http::response<http::string_body>> response_;
  std::optional<http::response_serializer<http::string_body>> serializer_;
  std::string client_;
  Phase state_ = Phase::head;
  uint64_t reserved_ = 0;
  uint64_t discarded_ = 0;
  bool head_only_ = false;
};

void HttpServer::State::accept() {
  acceptor.async_accept([this](error_code error, tcp::socket socket) {
    if (error == net::error::operation_aborted || !acceptor.is_open()) return;
    if (error) {  // no descriptors left, say: others will close theirs
      timer.expires_after(std::chrono::milliseconds(100));
      timer.async_wait([this](error_code stopped) {
        if (!stopped) accept();
      });
      return;
    }
    if (sessions.size() >= limits.connections)
      turn_away(std::move(socket));
    else
      std::make_shared<Session>(*this, std::move(socket))->read_head();
    accept();
  });
}

void HttpServer::State::turn_away(tcp::socket socket) {
  constexpr std::string_view kFull =
      "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: application/json\r\n"
      "Content-Length: 35\r\nConnection: close\r\n\r\n{\"error\": \"too many connections\"}  ";
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.send(net::buffer(kFull.data(), kFull.size()), 0, ignored);
}

void HttpServer::State::drain() {
  draining = true;
  error_code ignored;
  acceptor.close(ignored);
  timer.expires_after(limits.drain_time);
  timer.async_wait([this](error_code stopped) {
    if (!stopped) context.stop();
  });
  for (Session* session : std::vector<Session*>(sessions.begin(), sessions.end())) session->stop();
  end_if_empty();
}

// Asked again and again: a token may be set by a signal handler, where no callback could run.
void HttpServer::State::watch_stop(const std::stop_token& stop) {
  if (stop.stop_requested()) return drain();
  stop_timer.expires_after(std::chrono::milliseconds(50));
  stop_timer.async_wait([this, stop](error_code error) {
    if (!error) watch_stop(stop);
  });
}

void HttpServer::State::end_if_empty() {
  if (draining && !over && sessions.empty()) timer.cancel();
}

HttpServer::HttpServer(HttpHandler& handler, const HttpLimits& limits)
    : state_(std::make_unique<State>(handler, limits)) {
  state_->run_id =
      static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
}

HttpServer::~HttpServer() = default;

void HttpServer::listen(const std::string& host, int port) {
  State& s = *state_;
  error_code error;
  const auto refuse = [&](const std::string& why) {
    fail(ErrorKind::io, "cannot listen on {} port {}: {}; choose others (--host, --port)", host,
         port, why);
  };
  const net::ip::address address = net::ip::make_address(host, error);
  if (error) refuse("not an IP address, as 127.0.0.1 and :: are");
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(port));
  s.acceptor.open(endpoint.protocol(), error);
  if (!error) s.acceptor.set_option(net::socket_base::reuse_address(true), error);
  if (!error) s.acceptor.bind(endpoint, error);
  if (!error) s.acceptor.listen(net::socket_base::max_listen_connections, error);
  if (error) refuse(error.message());
}

int HttpServer::port() const { return state_->acceptor.local_endpoint().port(); }

size_t HttpServer::connections() const { return state_->open; }

void HttpServer::run(const std::stop_token& stop) {
  State& s = *state_;
  s.accept();
  s.watch_stop(stop);
  s.context.run();
  s.over = true;
  s.handling.clear();
}

}  // namespace graft::serving
