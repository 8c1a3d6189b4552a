// Classifiers over HTTP: a page for people, JSON for programs, the Open Inference Protocol for
// both.
//
//   graft::ServeOptions options;
//   options.models = {"runs/scenes"};
//   graft::serve(options, {}, context);
//
// docs/serving.md describes the interface, docs/decisions/0027 what it is built on.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"
#include "graft/precision.h"

#pragma GCC visibility push(default)
namespace graft {

struct ServeOptions {
  /// Model files, run folders, or folders of them; NAME=PATH gives a model another name than that
  /// of its folder or file. The first is the one that requests without a name mean.
  std::vector<std::string> models;
  std::string host = "127.0.0.1";  ///< IP address to listen on; 0.0.0.0 and :: are all
  int port = 8080;                 ///< 0: any free one
  /// Names that requests may call this server by, beside IP addresses and localhost; "*": any.
  std::vector<std::string> allowed_hosts;
  std::string token;  ///< asked of all requests for models; empty: none
  int views = 0;      ///< see ClassifierOptions
  Precision precision = Precision::fp32;
  int max_batch = 16;  ///< images computed at once, at most
  /// How long a batch that is not full waits for images that are being decoded.
  std::chrono::microseconds batch_wait{2000};

  uint64_t most_body_bytes = uint64_t{32} << 20;  ///< of a request
  uint64_t most_bytes = uint64_t{256} << 20;      ///< of all requests' bodies together
  int64_t most_pixels = 100'000'000;              ///< of an image
  size_t most_images = 64;                        ///< of a request
  size_t most_explained = 16;                     ///< likewise, with maps
  size_t most_queued = 256;                       ///< images of all requests together
  size_t most_requests = 256;                     ///< that are worked on
  size_t most_connections = 4096;
  std::chrono::seconds header_time{15};   ///< for a request's headers, idle time included
  std::chrono::seconds request_time{60};  ///< for its body, and again for its answer
  std::chrono::seconds drain_time{30};    ///< for requests in flight when the server stops
};

/// Told what a server does. Calls come from several threads and should return at once.
class ServeObserver {
 public:
  virtual ~ServeObserver() = default;
  /// The models are loaded and the port is open.
  virtual void listening(const std::string& host, int port) { (void)host, (void)port; }
  /// One line of JSON for each request, and for each model that comes or goes; no image contents.
  virtual void log(const std::string& line) { (void)line; }
};

/// Serves on the calling thread, and on as many more as the context has for computing and again for
/// decoding, until the context says stop; requests in flight are finished. Models whose files are
/// replaced are loaded anew meanwhile. Throws Error(input) for a file that is no model,
/// Error(usage) for options that contradict each other, Error(io) for a port that cannot be had.
void serve(const ServeOptions& options, ServeObserver& observer, const RunContext& context = {});

}  // namespace graft
#pragma GCC visibility pop
