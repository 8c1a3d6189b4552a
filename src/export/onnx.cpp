#include "export/onnx.h"

#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <onnx/checker.h>
#include <onnx/onnx_pb.h>
#include <onnx/shape_inference/implementation.h>

#include <exception>
#include <functional>
#include <utility>

#include "base/fail.h"
#include "base/hash.h"
#include "base/progress.h"
#include "export/onnx_graph.h"
#include "weights/file_seal.h"

namespace graft {
namespace {

/// Hands what protobuf serialises on, without a second copy of the weights.
class Sink : public google::protobuf::io::CopyingOutputStream {
 public:
  using Take = std::function<void(std::span<const std::byte>)>;
  explicit Sink(Take take) : take_(std::move(take)) {}
  bool Write(const void* buffer, int size) override {
    try {
      take_(std::span(static_cast<const std::byte*>(buffer), static_cast<size_t>(size)));
    } catch (...) {
      // Protobuf is not made for exceptions to pass through it.
      error_ = std::current_exception();
      return false;
    }
    return true;
  }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  Take take_;
  std::exception_ptr error_;
};

void serialise(const onnx::ModelProto& model, Sink::Take take) {
  Sink sink(std::move(take));
  google::protobuf::io::CopyingOutputStreamAdaptor stream(&sink);
  const bool done = model.SerializeToZeroCopyStream(&stream) && stream.Flush();
  sink.rethrow();
  if (!done) fail(ErrorKind::io, "the ONNX graph could not be written");
}

/// Throws std::exception where the standard's own checker or its inference of shapes refuses.
void check(onnx::ModelProto& model) {
  onnx::checker::check_model(model);
  // With check_type and strict_mode: what it cannot infer, or infers otherwise than it is stated,
  // is an error. The shapes that it finds stay in the file, for viewers of graphs.
  onnx::shape_inference::InferShapes(model, onnx::OpSchemaRegistry::Instance(),
                                     onnx::ShapeInferenceOptions(true, 1, false));
}

}  // namespace

std::vector<std::string> write_onnx(AtomicFile& file, const ModelFile& model,
                                    const ExportOptions& options) {
  const std::unique_ptr<onnx::ModelProto> graph = make_onnx(model, options);
  try {
    check(*graph);
  } catch (const std::exception& error) {
    fail(ErrorKind::input, "the ONNX checker refuses the graph: {}", error.what());
  }
  ContentHash hash;
  serialise(*graph, [&](std::span<const std::byte> bytes) { hash.update(bytes); });
  for (onnx::StringStringEntryProto& entry : *graph->mutable_metadata_props())
    if (entry.key() == kSealKey) entry.set_value(hash.finish());
  serialise(*graph, [&](std::span<const std::byte> bytes) { file.write(bytes); });
  return {"the ONNX checker and its inference of shapes accept it"};
}

}  // namespace graft
