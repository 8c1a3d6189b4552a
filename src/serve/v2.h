// The Open Inference Protocol, version 2, over HTTP, with binary tensors (KServe's and Triton's
// "binary tensor data extension").
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/classifier.h"
#include "serve/pipeline.h"

namespace graft::serving {

/// Inputs and outputs of a model: `image`, UINT8 (N, H, W, 3), RGB at any size; `encoded`, BYTES
/// (N), files; `probabilities` and `logits`, FP32 (N, classes), `label`, BYTES (N).
nlohmann::json v2_metadata(const std::string& name, const std::string& version,
                           const ModelInfo& info);

struct InferRequest {
  std::string id;
  std::vector<SentImage> images;  ///< encoded ones point into the body
  struct Output {
    std::string name;
    bool binary = false;
  };
  std::vector<Output> outputs;
};

/// `json_length`: of Inference-Header-Content-Length; none: all of the body is JSON. Throws
/// Error(input) that says what is wrong, also for more than `most` images.
InferRequest parse_infer(std::string_view body, std::optional<size_t> json_length, size_t most);

struct InferReply {
  std::string body;
  std::optional<size_t> json_length;  ///< where binary tensors follow
};

InferReply format_infer(const InferRequest& request, const std::string& model,
                        const std::string& version, const std::vector<std::string>& classes,
                        const std::vector<ImageResult>& results);

}  // namespace graft::serving
