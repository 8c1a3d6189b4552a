#include "graft/serve.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/fail.h"
#include "serve/http_server.h"
#include "serve/model_store.h"
#include "serve/service.h"
#include "serve/text.h"

namespace graft {
namespace {

void check(const ServeOptions& o) {
  if (o.models.empty()) fail(ErrorKind::usage, "no model to serve");
  if (o.port < 0 || o.port > 65535)
    fail(ErrorKind::usage, "`port` is {}; expected 0 to 65535", o.port);
  if (o.max_batch < 1) fail(ErrorKind::usage, "a batch has at least one image");
  if (o.most_images > o.most_queued)
    fail(ErrorKind::usage,
         "a request may have {} images, and all together {}; they would never be taken",
         o.most_images, o.most_queued);
  if (o.most_body_bytes > o.most_bytes)
    fail(ErrorKind::usage,
         "a request may have {} bytes, and all together {}; they would never be taken",
         o.most_body_bytes, o.most_bytes);
}

/// Hands lines on from a thread of its own: a reader who is slow does not hold up the server.
class LogWriter {
 public:
  explicit LogWriter(ServeObserver& observer) : observer_(observer), thread_([this] { work(); }) {}
  ~LogWriter() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  void write(std::string line) {
    {
      const std::lock_guard lock(mutex_);
      if (lines_.size() == kMostLines) {
        ++lost_;
        return;
      }
      lines_.push_back(std::move(line));
    }
    changed_.notify_all();
  }

 private:
  static constexpr size_t kMostLines = 10'000;

  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stopping_ || !lines_.empty(); });
      if (lines_.empty()) return;
      const std::deque<std::string> lines = std::exchange(lines_, {});
      const size_t lost = std::exchange(lost_, 0);
      lock.unlock();
      for (const std::string& line : lines) observer_.log(line);
      if (lost > 0)
        observer_.log(nlohmann::json{{"event", "log lines lost"}, {"count", lost}}.dump());
      lock.lock();
    }
  }

  ServeObserver& observer_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::deque<std::string> lines_;
  size_t lost_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

/// Looks after the models once a second until it is destroyed.
class Refresher {
 public:
  explicit Refresher(serving::ModelStore& models) : models_(models), thread_([this] { work(); }) {}
  ~Refresher() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Refresher(const Refresher&) = delete;
  Refresher& operator=(const Refresher&) = delete;

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, std::chrono::seconds(1), [this] { return stopping_; })) {
      lock.unlock();
      models_.refresh();
      lock.lock();
    }
  }

  serving::ModelStore& models_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace

void serve(const ServeOptions& options, ServeObserver& observer, const RunContext& context) {
  check(options);
  const int threads = context.thread_count();
  LogWriter log(observer);
  serving::ModelStore models(
      options.models,
      {.threads = threads,
       .max_batch = options.max_batch,
       .sessions = 1,
       .views = options.views,
       .precision = options.precision},
      [&](std::string_view event, const std::string& model, const std::string& text) {
        log.write(nlohmann::json{
            {"time", serving::now_utc()},
            {"event", fmt::format("model {}", event)},
            {"model", model},
            {"text",
             text}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      });
  serving::Service service(options, threads, models,
                           [&](const std::string& line) { log.write(line); });
  serving::HttpServer server(service, {.body_bytes = options.most_body_bytes,
                                       .all_bodies = options.most_bytes,
                                       .connections = options.most_connections,
                                       .header_time = options.header_time,
                                       .request_time = options.request_time,
                                       .reply_time = options.request_time,
                                       .drain_time = options.drain_time});
  server.listen(options.host, options.port);
  service.watch(server);
  const Refresher refresher(models);
  observer.listening(options.host, server.port());
  server.run(context.stop);
  service.finish();
}

}  // namespace graft
