// What a server counts, in Prometheus' text format.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "serve/inference_queue.h"

namespace graft::serving {

/// Thread-safe.
class Metrics {
 public:
  /// `route`: one of few names, never a path that a client made up.
  void count_request(std::string_view route, int status, double seconds);
  void count_images(const std::string& model, size_t images, size_t errors);

  struct Now {
    size_t connections = 0;
    size_t requests = 0;  ///< in flight
    size_t images = 0;    ///< likewise
    QueueCounts queue{};
    std::map<std::string, std::string> models{};  ///< name and version
  };
  [[nodiscard]] std::string text(const Now& now) const;

 private:
  static constexpr std::array<double, 11> kBounds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                                     0.5,   1,    2.5,   5,    10};
  struct Latency {
    std::array<uint64_t, kBounds.size() + 1> buckets{};
    double sum = 0;
    uint64_t count = 0;
  };
  mutable std::mutex mutex_;  // guards what follows
  std::map<std::pair<std::string, int>, uint64_t> requests_;
  std::map<std::string, Latency> latencies_;
  std::map<std::string, std::pair<uint64_t, uint64_t>> images_;  // and errors
};

/// Bytes of this process in memory; 0: not known.
uint64_t resident_bytes();

}  // namespace graft::serving
