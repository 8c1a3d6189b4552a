// Rows into batches: whatever computes several inputs at once is fed through here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/executor.h"
#include "graft/classifier.h"

namespace graft {

/// Something that computes rows of outputs from rows of inputs.
struct Forward {
  size_t inputs = 0;   ///< floats of one row
  size_t outputs = 0;  ///< floats of one row
  std::function<void(const float* in, int count, float* out)> run;
  std::function<uint64_t(int count)> estimate;  ///< bytes for so many rows
  std::function<void(int count)> prepare;       ///< whatever the first run would build
  int lanes = 1;                                ///< Executor::lanes()
};

/// Refers to what it is made of.
Forward forward_of(engine::Executor& engine);
Forward forward_of(const Classifier& classifier);

/// Collects rows until a batch is full, computes them, and hands each result to `sink` with the
/// number that its row was added under, in the order of the rows. Not thread-safe.
class Batcher {
 public:
  using Sink = std::function<void(size_t number, std::span<const float> values)>;
  Batcher(Forward forward, int batch, Sink sink);

  /// Where the next row is to be written, for add(number).
  [[nodiscard]] std::span<float> row();
  void add(size_t number);
  /// Copies the row.
  void add(size_t number, std::span<const float> values);
  /// Computes what has been added since the last full batch; belongs at the end.
  void flush();

 private:
  Forward forward_;
  size_t batch_;
  Sink sink_;
  std::vector<size_t> numbers_;
  std::vector<float> inputs_;
  std::vector<float> outputs_;
};

}  // namespace graft
