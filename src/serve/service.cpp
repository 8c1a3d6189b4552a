#include "serve/service.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "recipe/option_values.h"
#include "report/html.h"
#include "serve/multipart.h"
#include "serve/routes.h"
#include "serve/text.h"
#include "serve/v2.h"

namespace graft::serving {
namespace {

using nlohmann::json;

constexpr size_t kMostFields = 16;  // of a form, beside its files
constexpr size_t kMostName = 255;   // bytes of an image's name
/// The page loads nothing but its own files, and talks to nobody else.
constexpr const char* kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// What ends a request with another status than 200.
struct Refusal {
  int status;
  std::string why;
};

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

HttpReply json_reply(const json& value, int status = 200) {
  return {.status = status, .body = dump(value)};
}

HttpReply error_reply(int status, const std::string& why) {
  HttpReply reply = json_reply({{"error", why}}, status);
  reply.note = why;
  if (status == 503) reply.headers.emplace_back("Retry-After", "1");
  if (status == 401) reply.headers.emplace_back("WWW-Authenticate", "Bearer");
  return reply;
}

void add_safety(HttpReply& reply, bool is_page) {
  reply.headers.emplace_back("X-Content-Type-Options", "nosniff");
  reply.headers.emplace_back("Referrer-Policy", "no-referrer");
  reply.headers.emplace_back("Cross-Origin-Resource-Policy", "same-origin");
  reply.headers.emplace_back("Cross-Origin-Opener-Policy", "same-origin");
  reply.headers.emplace_back("X-Frame-Options", "DENY");
  reply.headers.emplace_back("Cache-Control", is_page ? "no-cache" : "no-store");
  reply.headers.emplace_back("Content-Security-Policy",
                             is_page ? kPagePolicy : "default-src 'none'; frame-ancestors 'none'");
}

/// Options of a request, from its target and, in a form, its fields.
class Parameters {
 public:
  Parameters(const HttpRequest& request, std::set<std::string> known) : known_(std::move(known)) {
    for (const auto& [name, value] : request.query) add(name, value);
  }
  void add(const std::string& name, const std::string& value) {
    if (!known_.contains(name))
      throw Refusal{400, fmt::format("no parameter is called '{}'; there are {}", clipped(name),
                                     fmt::join(known_, ", "))};
    if (!values_.emplace(name, value).second)
      throw Refusal{400, fmt::format("the parameter {} is given twice", name)};
  }
  [[nodiscard]] std::string text(const std::string& name) const {
    const auto at = values_.find(name);
    return at == values_.end() ? "" : at->second;
  }
  [[nodiscard]] bool flag(const std::string& name) const {
    const std::string value = text(name);
    if (value.empty() || value == "false" || value == "0") return false;
    if (value == "true" || value == "1") return true;
    throw Refusal{400, fmt::format("{}: '{}' is neither true nor false", name, clipped(value))};
  }
  [[nodiscard]] size_t number(const std::string& name, size_t otherwise) const {
    const std::string value = text(name);
    if (value.empty()) return otherwise;
    size_t out = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out);
    if (error != std::errc() || end != value.data() + value.size() || out == 0)
      throw Refusal{400,
                    fmt::format("{}: '{}' is no whole number from 1 on", name, clipped(value))};
    return out;
  }

 private:
  std::set<std::string> known_;
  std::map<std::string, std::string> values_;
};

std::string base_name(const std::string& name) {
  std::string out = name.substr(name.find_last_of("/\\") + 1);
  if (out.size() > kMostName) out.resize(kMostName);
  out = printable(out);
  return out.empty() ? "image" : out;
}

std::string content_type(const HttpRequest& request) {
  const std::string* type = request.header("content-type");
  return type == nullptr ? "" : *type;
}

/// The images of a body: the files of a form, whose other fields are parameters, or one file.
std::vector<SentImage> read_images(const HttpRequest& request, Parameters& parameters,
                                   size_t most) {
  std::vector<SentImage> out;
  const std::string type = content_type(request);
  if (const std::optional<std::string> boundary = form_boundary(type)) {
    for (const FormPart& part : parse_form(request.body, *boundary, most + kMostFields + 1)) {
      if (!part.file_name)
        parameters.add(part.name, std::string(part.content.substr(0, kMostName)));
      else if (!part.file_name->empty() || !part.content.empty())  // no file was chosen
        out.push_back({base_name(*part.file_name), part.content, std::nullopt});
    }
  } else {
    const std::string kind = type.substr(0, type.find(';'));
    // curl --data-binary says it is a form where nothing else is said.
    if (!kind.empty() && !kind.starts_with("image/") && kind != "application/octet-stream" &&
        kind != "application/x-www-form-urlencoded")
      throw Refusal{415, fmt::format("Content-Type {}: expected multipart/form-data with files, or "
                                     "one image as image/jpeg, another image/… or "
                                     "application/octet-stream",
                                     clipped(kind))};
    if (!request.body.empty()) out.push_back({"image", request.body, std::nullopt});
  }
  if (out.empty())
    throw Refusal{400,
                  "no image in the request: send files as multipart/form-data, or one as the "
                  "body"};
  if (out.size() > most)
    throw Refusal{413, fmt::format("{} images; a request has at most {}", out.size(), most)};
  return out;
}

json top_of(const Prediction& p, const std::vector<std::string>& classes, size_t top) {
  json rows = json::array();
  for (size_t k = 0; k < std::min(top, classes.size()); ++k) {
    const auto index = static_cast<size_t>(p.ranking[k]);
    rows.push_back({{"label", classes[index]}, {"probability", p.probabilities[index]}});
  }
  return rows;
}

}  // namespace

Service::Service(const ServeOptions& options, int decoding_threads, ModelStore& models,
                 std::function<void(const std::string& line)> log)
    : options_(options),
      access_{options.allowed_hosts, options.token},
      models_(models),
      log_(std::move(log)),
      pipeline_(std::make_unique<Pipeline>(Pipeline::Options{.threads = decoding_threads,
                                                             .most_images = options.most_queued,
                                                             .most_pixels = options.most_pixels,
                                                             .most_wait = options.batch_wait})),
      features_pool_(std::make_unique<WorkPool>(1)) {}

HttpReply Service::error(int status, const std::string& why) {
  HttpReply reply = error_reply(status, why);
  add_safety(reply, false);
  return reply;
}

std::optional<HttpReply> Service::refuse(const HttpRequest& head) {
  const Route* route = find_route(head.path);
  const bool is_probe =
      route != nullptr && (route->kind == RouteKind::health || route->kind == RouteKind::ready);
  if (const auto why = bad_host(access_, head); why && !is_probe) return error(403, *why);
  if (route == nullptr) return error(404, "no such path; /openapi.json lists what there is");
  const bool is_get = head.method == "GET" || head.method == "HEAD";
  if (route->method == "GET" ? !is_get : head.method != route->method) {
    HttpReply reply = error(405, fmt::format("{} is asked for by {}", route->name, route->method));
    reply.headers.emplace_back("Allow", route->method == "GET" ? "GET, HEAD" : "POST");
    return reply;
  }
  if (const auto why = bad_origin(head); why && !is_get) return error(403, *why);
  if (!route->open && !has_token(access_, head))
    return error(401, "Authorization: Bearer TOKEN is missing, or the token is another");
  if (const std::string* coding = head.header("content-encoding");
      coding != nullptr && *coding != "identity")
    return error(415, "Content-Encoding: bodies are taken as they are, not compressed");
  return std::nullopt;
}

void Service::handle(Request request, Respond respond) {
  const Route& route = *find_route(request->path);
  if (route.method == "GET") {
    HttpReply reply;
    try {
      reply = get(*request);
    } catch (const Refusal& refusal) {
      reply = error_reply(refusal.status, refusal.why);
    }
    add_safety(reply, route.kind == RouteKind::file);
    return respond(std::move(reply));
  }
  if (++requests_ > options_.most_requests) {
    --requests_;
    return respond(error(503, "too many requests are being worked on; try again"));
  }
  const Respond counted = [this, respond = std::move(respond)](HttpReply reply) {
    add_safety(reply, false);
    --requests_;
    respond(std::move(reply));
  };
  WorkPool& pool = route.kind == RouteKind::features ? *features_pool_ : pipeline_->pool();
  pool.add([this, request = std::move(request), counted] { post(request, counted); });
}

void Service::post(const Request& request, const Respond& respond) {
  try {
    switch (find_route(request->path)->kind) {
      case RouteKind::predict:
        return predict(request, respond);
      case RouteKind::features:
        return features(request, respond);
      default:
        return infer(request, respond);
    }
  } catch (const Refusal& refusal) {
    respond(error_reply(refusal.status, refusal.why));
  } catch (const Error& error) {
    respond(error_reply(error.kind() == ErrorKind::memory ? 503 : 400, error.what()));
  } catch (const std::exception& error) {  // no memory
    respond(
        error_reply(503, std::string("the request could not be worked on now: ") + error.what()));
  }
}

ModelPtr Service::need_model(const std::string& name) const {
  if (ModelPtr model = models_.find(name)) return model;
  std::vector<std::string> names;
  for (const ModelPtr& model : models_.all()) names.push_back(model->name());
  throw Refusal{404, fmt::format("no model is called '{}'; there are {}", clipped(name),
                                 fmt::join(names, ", "))};
}

void Service::start(const Request& request, const ModelPtr& model, std::vector<SentImage> images,
                    bool explain, const Respond& respond,
                    std::function<HttpReply(const std::vector<ImageResult>&)> format) {
  if (explain && images.size() > options_.most_explained)
    throw Refusal{413, fmt::format("{} images to be explained; a request has at most {}",
                                   images.size(), options_.most_explained)};
  if (!pipeline_->reserve(images.size()))
    throw Refusal{503, "too many images are being worked on; try again"};
  const auto deadline = std::chrono::steady_clock::now() + options_.request_time;
  pipeline_->start(
      {.model = model,
       .images = std::move(images),
       .explain = explain,
       .gone = request->gone,
       .deadline = deadline,
       .done = [this, request, respond, model, format = std::move(format)](
                   std::vector<ImageResult> results, bool given_up) {
         if (given_up)
           return respond(error_reply(503, "it took too long, or the server is being stopped"));
         const auto errors = static_cast<size_t>(
             std::count_if(results.begin(), results.end(),
                           [](const ImageResult& result) { return !result.error.empty(); }));
         metrics_.count_images(model->name(), results.size() - errors, errors);
         try {
           HttpReply reply = format(results);
           reply.note = fmt::format("{} images, {} unreadable", results.size(), errors);
           respond(std::move(reply));
         } catch (const std::exception& error) {  // no memory
           respond(error_reply(503, error.what()));
         }
       }});
}

void Service::predict(const Request& request, const Respond& respond) {
  Parameters parameters(*request, {"model", "top", "explain", "logits"});
  std::vector<SentImage> images = read_images(*request, parameters, options_.most_images);
  const ModelPtr model = need_model(parameters.text("model"));
  constexpr size_t kTop = 5;
  const size_t top = parameters.number("top", kTop);
  const bool explain = parameters.flag("explain");
  const bool logits = parameters.flag("logits");
  std::vector<std::string> names;
  names.reserve(images.size());
  for (const SentImage& image : images) names.push_back(image.name);
  // Files of a form are answered one by one; where all the body is one file, it is the request.
  const int none_read = form_boundary(content_type(*request)) ? 200 : 422;
  start(request, model, std::move(images), explain, respond,
        [request, model, top, logits, names, none_read](const std::vector<ImageResult>& results) {
          json rows = json::array();
          bool any = false;
          for (size_t i = 0; i < results.size(); ++i) {
            const ImageResult& result = results[i];
            json row = {{"name", names[i]}};
            if (!result.error.empty()) {
              row["error"] = result.error;
            } else {
              any = true;
              row["top"] = top_of(result.prediction, model->info().classes, top);
              row["label"] = row["top"][0]["label"];
              row["probability"] = row["top"][0]["probability"];
              if (logits) row["logits"] = result.prediction.logits;
              if (!result.map.empty())
                row["explanation"] = "data:image/png;base64," + html::base64(result.map);
            }
            rows.push_back(std::move(row));
          }
          const std::chrono::duration<double> took =
              std::chrono::steady_clock::now() - request->begun;
          return json_reply({{"model", model->name()},
                             {"version", model->version()},
                             {"precision", options::word(model->classifier().precision())},
                             {"predictions", std::move(rows)},
                             {"seconds", took.count()}},
                            any ? 200 : none_read);
        });
}

void Service::features(const Request& request, const Respond& respond) {
  Parameters parameters(*request, {"model", "pool"});
  const std::vector<SentImage> images = read_images(*request, parameters, options_.most_images);
  const ModelPtr model = need_model(parameters.text("model"));
  const std::string pool = parameters.text("pool");
  if (!pool.empty() && pool != "gap" && pool != "none")
    throw Refusal{400, fmt::format("pool: '{}' is neither gap nor none", clipped(pool))};
  if (!pipeline_->reserve(images.size()))
    throw Refusal{503, "too many images are being worked on; try again"};
  const std::shared_ptr<void> places(nullptr, [&](void*) { pipeline_->release(images.size()); });
  const auto deadline = std::chrono::steady_clock::now() + options_.request_time;
  json rows = json::array();
  std::vector<int64_t> shape;
  size_t errors = 0;
  for (const SentImage& image : images) {
    if (request->gone.stop_requested() || std::chrono::steady_clock::now() > deadline)
      throw Refusal{503, "it took too long"};
    json row = {{"name", image.name}};
    try {
      row["values"] = model->features(pipeline_->decode(image),
                                      pool == "none" ? Pooling::none : Pooling::gap, shape);
    } catch (const Error& error) {
      row["error"] = error.what();
      ++errors;
    }
    rows.push_back(std::move(row));
  }
  metrics_.count_images(model->name(), images.size() - errors, errors);
  respond(json_reply({{"model", model->name()},
                      {"version", model->version()},
                      {"layer", model->feature_layer()},
                      {"shape", shape},
                      {"features", std::move(rows)}},
                     errors < images.size() || form_boundary(content_type(*request)) ? 200 : 422));
}

void Service::infer(const Request& request, const Respond& respond) {
  const ModelPtr model = need_model(request->path[2]);
  if (request->path.size() > 5 && request->path[4] != model->version())
    throw Refusal{404, "the model has another version: " + model->version()};
  std::optional<size_t> json_length;
  if (const std::string* length = request->header("inference-header-content-length")) {
    size_t value = 0;
    const auto [end, error] =
        std::from_chars(length->data(), length->data() + length->size(), value);
    if (error != std::errc() || end != length->data() + length->size())
      throw Refusal{400, "Inference-Header-Content-Length is no number of bytes"};
    json_length = value;
  }
  auto parsed =
      std::make_shared<InferRequest>(parse_infer(request->body, json_length, options_.most_images));
  std::vector<SentImage> images = std::move(parsed->images);
  for (const SentImage& image : images)
    if (image.pixels && int64_t{image.pixels->width} * image.pixels->height > options_.most_pixels)
      throw Refusal{413, fmt::format("images of more than {} pixels", options_.most_pixels)};
  start(request, model, std::move(images), false, respond,
        [request, model, parsed](const std::vector<ImageResult>& results) {
          for (const ImageResult& result : results)
            if (!result.error.empty()) return error_reply(400, result.error);
          InferReply made = format_infer(*parsed, model->name(), model->version(),
                                         model->info().classes, results);
          HttpReply reply{.body = std::move(made.body)};
          if (made.json_length) {
            reply.type = "application/octet-stream";
            reply.headers.emplace_back("Inference-Header-Content-Length",
                                       std::to_string(*made.json_length));
          }
          return reply;
        });
}

HttpReply Service::get(const HttpRequest& request) {
  switch (find_route(request.path)->kind) {
    case RouteKind::file: {
      const EmbeddedFile& file = *find_file(request.path);
      return {.type = std::string(file.type), .body = std::string(file.content)};
    }
    case RouteKind::health:
    case RouteKind::ready:
      return {.type = "text/plain; charset=utf-8", .body = "ok\n"};
    case RouteKind::metrics:
      return metrics();
    case RouteKind::models:
      return models();
    default:
      return v2_get(request);
  }
}

HttpReply Service::models() const {
  json rows = json::array();
  for (const ModelPtr& model : models_.all()) {
    const ModelInfo& info = model->info();
    json card = json::array();
    for (const auto& [heading, text] : model->card()) card.push_back({heading, text});
    rows.push_back(
        {{"name", model->name()},
         {"version", model->version()},
         {"loaded", model->loaded()},
         {"labels", info.classes},
         {"backbone", info.network.backbone},
         {"input", {{"height", info.network.input_height}, {"width", info.network.input_width}}},
         {"card", card}});
  }
  return json_reply({{"models", rows},
                     {"limits",
                      {{"body_bytes", options_.most_body_bytes},
                       {"images", options_.most_images},
                       {"pixels", options_.most_pixels},
                       {"explained_images", options_.most_explained}}},
                     {"token_required", !options_.token.empty()}});
}

HttpReply Service::metrics() const {
  Metrics::Now now{.connections = server_ != nullptr ? server_->connections() : 0,
                   .requests = requests_,
                   .images = pipeline_->images_here(),
                   .queue = pipeline_->counts()};
  for (const ModelPtr& model : models_.all()) now.models[model->name()] = model->version();
  return {.type = "text/plain; version=0.0.4; charset=utf-8", .body = metrics_.text(now)};
}

HttpReply Service::v2_get(const HttpRequest& request) {
  const std::vector<std::string>& path = request.path;
  if (path.size() == 1)
    return json_reply(
        {{"name", "graft"}, {"version", GRAFT_VERSION}, {"extensions", {"binary_tensor_data"}}});
  if (path[1] == "health") return json_reply({{path[2], true}});
  const ModelPtr model = need_model(path[2]);
  const bool has_version = path.size() > 4 && path[3] == "versions";
  if (has_version && path[4] != model->version())
    throw Refusal{404, "the model has another version: " + model->version()};
  if (path.back() == "ready" && path.size() > 3)
    return json_reply({{"name", model->name()}, {"ready", true}});
  return json_reply(v2_metadata(model->name(), model->version(), model->info()));
}

void Service::done(const HttpRequest& request, const HttpReply& reply, bool sent) {
  const Route* route = find_route(request.path);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - request.begun;
  metrics_.count_request(route == nullptr ? "other" : route->name, reply.status, took.count());
  json line = {{"time", now_utc()},
               {"event", "request"},
               {"id", request.id},
               {"client", request.client},
               {"method", clipped(request.method)},
               {"target", clipped(request.target)},
               {"status", reply.status},
               {"bytes_in", request.body.size()},
               {"seconds", std::round(took.count() * 1e6) / 1e6}};
  if (!reply.note.empty()) line["note"] = bounded(reply.note);
  if (!sent) line["sent"] = false;
  log_(dump(line));
}

}  // namespace graft::serving
