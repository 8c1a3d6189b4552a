// The state of a training run: its tensors' file and the record in it.
#include "base/json.h"
#include "fuzz/fuzz.h"
#include "train/run_record.h"
#include "weights/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const Dataset dataset;
  static const TrainJob job{.dataset = dataset,
                            .recipe = {},
                            .phases = {},
                            .run = "fuzz",
                            .metadata = {},
                            .backbone = {}};
  static const RunRecord record(job);
  static const nlohmann::json identity = [] {
    nlohmann::json own = record.write({}, 0);
    for (const char* read : {"steps", "best_epoch", "best_accuracy", "best_loss", "history"})
      own.erase(read);
    return own;
  }();
  return fuzz::expect_typed_errors([&] {
    const SafetensorsFile file = read_safetensors(fuzz::bytes(data, size), "fuzz");
    for (const auto& [key, text] : file.metadata) {
      nlohmann::json json = parse_json(text, "fuzz");
      if (!json.is_object()) continue;
      json.update(identity);  // of another run it would be refused at once
      static_cast<void>(record.read(json));
    }
  });
}
