// The state of a training run: its tensors' file and the record in it.
#include "base/json.h"
#include "fuzz/fuzz.h"
#include "train/run_record.h"
#include "weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const Dataset dataset;
  static const TrainJob job{.dataset = dataset, .run = "fuzz"};
  static const RunRecord record(job, {});
  return fuzz::expect_typed_errors([&] {
    const SafetensorsFile file = read_safetensors(fuzz::bytes(data, size), "fuzz");
    for (const auto& [key, text] : file.metadata) {
      const nlohmann::json json = parse_json(text, "fuzz");
      if (json.is_object()) record.read(json);
    }
  });
}
