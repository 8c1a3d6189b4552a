#include "serve/metrics.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>

namespace graft::serving {
namespace {

/// A label's value: quotes, backslashes and line ends escaped.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

void head(std::string& out, std::string_view name, std::string_view kind, std::string_view help) {
  fmt::format_to(std::back_inserter(out), "# HELP {0} {2}\n# TYPE {0} {1}\n", name, kind, help);
}

template <typename T>
void single(std::string& out, std::string_view name, std::string_view kind, std::string_view help,
            T value) {
  head(out, name, kind, help);
  fmt::format_to(std::back_inserter(out), "{} {}\n", name, value);
}

}  // namespace

uint64_t resident_bytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long long all = 0;
  unsigned long long resident = 0;
  const int got = std::fscanf(file, "%llu %llu", &all, &resident);
  std::fclose(file);
  return got == 2 ? resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) : 0;
}

void Metrics::count_request(std::string_view route, int status, double seconds) {
  const std::lock_guard lock(mutex_);
  ++requests_[{std::string(route), status}];
  Latency& latency = latencies_[std::string(route)];
  const auto bucket = static_cast<size_t>(
      std::lower_bound(kBounds.begin(), kBounds.end(), seconds) - kBounds.begin());
  ++latency.buckets.at(bucket);
  latency.sum += seconds;
  ++latency.count;
}

void Metrics::count_images(const std::string& model, size_t images, size_t errors) {
  const std::lock_guard lock(mutex_);
  images_[model].first += images;
  images_[model].second += errors;
}

std::string Metrics::text(const Now& now) const {
  std::string out;
  const auto line = std::back_inserter(out);
  const std::lock_guard lock(mutex_);
  head(out, "graft_requests_total", "counter", "Requests answered, by route and status.");
  for (const auto& [key, count] : requests_)
    fmt::format_to(line, "graft_requests_total{{route=\"{}\",status=\"{}\"}} {}\n",
                   escaped(key.first), key.second, count);
  head(out, "graft_request_seconds", "histogram",
       "Time from a request's headers to the end of its reply.");
  for (const auto& [route, latency] : latencies_) {
    uint64_t sum = 0;
    for (size_t i = 0; i < latency.buckets.size(); ++i) {
      sum += latency.buckets.at(i);
      const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds.at(i)) : "+Inf";
      fmt::format_to(line, "graft_request_seconds_bucket{{route=\"{}\",le=\"{}\"}} {}\n",
                     escaped(route), bound, sum);
    }
    fmt::format_to(line, "graft_request_seconds_sum{{route=\"{}\"}} {:.6f}\n", escaped(route),
                   latency.sum);
    fmt::format_to(line, "graft_request_seconds_count{{route=\"{}\"}} {}\n", escaped(route),
                   latency.count);
  }
  head(out, "graft_images_total", "counter", "Images answered, by model.");
  for (const auto& [model, counts] : images_)
    fmt::format_to(line, "graft_images_total{{model=\"{}\"}} {}\n", escaped(model), counts.first);
  head(out, "graft_image_errors_total", "counter", "Images that could not be answered, by model.");
  for (const auto& [model, counts] : images_)
    fmt::format_to(line, "graft_image_errors_total{{model=\"{}\"}} {}\n", escaped(model),
                   counts.second);
  single(out, "graft_batches_total", "counter", "Batches computed.", now.queue.batches);
  single(out, "graft_batch_images_total", "counter", "Images in them.", now.queue.images);
  single(out, "graft_dropped_images_total", "counter",
         "Images given up before they were computed: the client has gone, or the time was over.",
         now.queue.dropped);
  single(out, "graft_engine_busy_seconds_total", "counter", "Time in which the engine computed.",
         now.queue.busy_seconds);
  single(out, "graft_queue_images", "gauge", "Images that wait for the engine.", now.queue.waiting);
  single(out, "graft_images_in_flight", "gauge", "Images of requests in flight.", now.images);
  single(out, "graft_requests_in_flight", "gauge", "Requests in flight.", now.requests);
  single(out, "graft_connections", "gauge", "Open connections.", now.connections);
  single(out, "process_resident_memory_bytes", "gauge", "Resident memory in bytes.",
         resident_bytes());
  head(out, "graft_model_info", "gauge", "Models that are served.");
  for (const auto& [model, version] : now.models)
    fmt::format_to(line, "graft_model_info{{model=\"{}\",version=\"{}\"}} 1\n", escaped(model),
                   escaped(version));
  return out;
}

}  // namespace graft::serving
