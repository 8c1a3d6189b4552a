#include "train/run_record.h"
#include <fmt/format.h>

#include <limits>

#include "base/file.h"
#include "support.h"
#include "train/state.h"
#include "weights/safetensors.h"

namespace graft {
namespace {

class RunRecordFields : public ::testing::Test {
 protected:
  [[nodiscard]] nlohmann::json good() const {
    RunProgress progress;
    progress.add({1, 0.5, 0.75, 0.6, 0.5, 1e-3, 1.5});
    progress.add({2, 0.4, 0.75, 0.5, 0.75, 1e-3, 1.5});
    return record_.write(progress, 10);
  }

  Dataset dataset_;
  TrainJob job_{.dataset = dataset_,
                .recipe = {},
                .phases = {{.epochs = 3}},
                .run = "runs/x",
                .metadata = {},
                .backbone = {}};
  RunRecord record_{job_};
};

TEST_F(RunRecordFields, WhatIsWrittenIsRead) {
  const RunProgress progress = record_.read(nlohmann::json::parse(good().dump()));
  ASSERT_EQ(progress.history.size(), 2U);
  EXPECT_EQ(progress.history[1].epoch, 2);
  EXPECT_EQ(progress.history[1].val_loss, 0.5);
  EXPECT_EQ(progress.best_epoch, 2);
}

/// Versions before computed frozen layers in float32, and their records do not say so.
TEST_F(RunRecordFields, EarlierRunsAreInFloat32) {
  nlohmann::json record = good();
  EXPECT_EQ(record["precision"], "fp32");
  record.erase("precision");
  EXPECT_EQ(record_.read(record).history.size(), 2U);
  TrainJob job = job_;
  job.recipe.precision = Precision::bf16;
  EXPECT_ERROR(static_cast<void>(RunRecord(job).read(record)), ErrorKind::input,
               "`precision` of a run that is resumed cannot change");
  EXPECT_ERROR(static_cast<void>(RunRecord(job).read(good())), ErrorKind::input, "`precision`");
}

/// Of a schedule that ends at nothing the last epoch stays, but for a clear loss: from 0.95 of 520
/// images some three points, of 10,000 images less.
TEST(RunProgress, AnAnnealedRunKeepsItsEnd) {
  const auto kept = [](double best, double last, size_t annealed_on) {
    RunProgress progress;
    progress.add({1, 0.5, 0.75, 0.6, best, 1e-3, 1.5});
    const bool better = progress.add({2, 0.4, 0.75, 0.5, last, 1e-9, 1.5}, annealed_on);
    EXPECT_EQ(better, progress.best_epoch == 2);
    return progress.best_epoch;
  };
  EXPECT_EQ(kept(0.95, 0.94, 0), 1);
  EXPECT_EQ(kept(0.95, 0.94, 520), 2);
  EXPECT_EQ(kept(0.95, 0.91, 520), 1);
  EXPECT_EQ(kept(0.95, 0.94, 10'000), 1);
  EXPECT_EQ(kept(0.95, 0.96, 10'000), 2);
  EXPECT_EQ(kept(0.95, std::nan(""), 10), 1);
}

/// Each error is of its own type, and names the run and the field.
TEST_F(RunRecordFields, MissingOrOfAnotherKind) {
  for (const char* key : {"steps", "best_epoch", "best_accuracy", "best_loss", "history"}) {
    nlohmann::json record = good();
    record.erase(key);
    EXPECT_ERROR((void)record_.read(record), ErrorKind::input, fmt::format("'{}' is missing", key));
    EXPECT_ERROR((void)record_.read(record), ErrorKind::input, "runs/x");
    for (const nlohmann::json& value :
         {nlohmann::json("x"), nlohmann::json(1e301), nlohmann::json(nullptr),
          nlohmann::json::array({1}), nlohmann::json::object()}) {
      record[key] = value;
      EXPECT_ERROR((void)record_.read(record), ErrorKind::input, fmt::format("field '{}", key));
    }
  }
  nlohmann::json record = good();
  record["steps"] = std::numeric_limits<int64_t>::max();  // one more would overflow
  EXPECT_ERROR((void)record_.read(record), ErrorKind::input, "field 'steps'");
  record = good();
  record["best_epoch"] = 3;
  EXPECT_ERROR((void)record_.read(record), ErrorKind::input, "from 0 to 2, found 3");
  record = good();
  record["history"][1].push_back(1);
  EXPECT_ERROR((void)record_.read(record), ErrorKind::input,
               "field 'history[1]': expected a list of 6");
  record = good();
  record["history"][1][3] = "high";
  EXPECT_ERROR((void)record_.read(record), ErrorKind::input,
               "field 'history[1][3]': expected a number");
}

class StateFiles : public ::testing::Test {
 protected:
  void write(const fs::path& path, const std::string& record) {
    fs::create_directories(path.parent_path());
    write_safetensors(path, {{"a.weight", Tensor({2}, {1, 2})}},
                      {{"graft_training_state", record}});
  }

  testing::TemporaryFolder folder_;
  fs::path state_ = folder_.path() / "checkpoints" / "state.safetensors";
  fs::path previous_ = folder_.path() / "checkpoints" / "state-previous.safetensors";
};

TEST_F(StateFiles, AFlippedBitFallsBackToTheOneBefore) {
  write(state_, R"({"steps":2})");
  write(previous_, R"({"steps":1})");
  EXPECT_EQ(TrainingState(folder_.path()).load({})->record["steps"], 2);
  std::string bytes = read_text_file(state_);
  bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
  testing::write(state_, bytes);
  EXPECT_EQ(TrainingState(folder_.path()).load({})->record["steps"], 1);
  // The damaged one must not take the good one's place at the next save.
  EXPECT_FALSE(fs::exists(state_));
  EXPECT_TRUE(fs::exists(folder_.path() / "checkpoints" / "state-damaged.safetensors"));
  testing::write(previous_, bytes);
  EXPECT_ERROR((void)TrainingState(folder_.path()).load({}), ErrorKind::input,
               "train without `resume`");
}

TEST_F(StateFiles, RecordsThatAreNone) {
  for (const std::string& record : {std::string("[]"), std::string("{"), std::string("{} x"),
                                    std::string(100'000, '['), std::string("{\"a\":1,\"a\":2}")}) {
    write(state_, record);
    EXPECT_ERROR((void)TrainingState(folder_.path()).load({}), ErrorKind::input,
                 "state.safetensors: graft_training_state");
  }
}

}  // namespace
}  // namespace graft
