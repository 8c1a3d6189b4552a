// What the server answers: routes, their parameters, and who may use them.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "graft/serve.h"
#include "serve/access.h"
#include "serve/http_server.h"
#include "serve/metrics.h"
#include "serve/model_store.h"
#include "serve/pipeline.h"

namespace graft::serving {

class Service : public HttpHandler {
 public:
  /// `log`: takes a line for each request.
  Service(const ServeOptions& options, int decoding_threads, ModelStore& models,
          std::function<void(const std::string& line)> log);
  /// Ends what is under way; for when the server has stopped, and before it is destroyed.
  void finish() {
    features_pool_.reset();
    pipeline_.reset();
  }
  /// For /metrics.
  void watch(const HttpServer& server) { server_ = &server; }

  std::optional<HttpReply> refuse(const HttpRequest& head) override;
  void handle(std::shared_ptr<HttpRequest> request, std::function<void(HttpReply)> reply) override;
  HttpReply error(int status, const std::string& why) override;
  void done(const HttpRequest& request, const HttpReply& reply, bool sent) override;

 private:
  using Request = std::shared_ptr<HttpRequest>;
  using Respond = std::function<void(HttpReply)>;

  HttpReply get(const HttpRequest& request);
  void post(const Request& request, const Respond& respond);
  void predict(const Request& request, const Respond& respond);
  void features(const Request& request, const Respond& respond);
  void infer(const Request& request, const Respond& respond);
  [[nodiscard]] HttpReply models() const;
  [[nodiscard]] HttpReply metrics() const;
  HttpReply v2_get(const HttpRequest& request);
  [[nodiscard]] ModelPtr need_model(const std::string& name) const;
  void start(const Request& request, const ModelPtr& model, std::vector<SentImage> images,
             bool explain, const Respond& respond,
             std::function<HttpReply(const std::vector<ImageResult>&)> format);

  ServeOptions options_;
  Access access_;
  ModelStore& models_;
  std::function<void(const std::string& line)> log_;
  const HttpServer* server_ = nullptr;
  Metrics metrics_;
  std::atomic<size_t> requests_ = 0;
  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<WorkPool>
      features_pool_;  // which takes its time  // last: what is under way uses the rest
};

}  // namespace graft::serving
