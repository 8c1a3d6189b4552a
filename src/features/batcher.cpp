#include "features/batcher.h"

#include <algorithm>
#include <utility>

namespace graft {

Forward forward_of(engine::Executor& engine) {
  return {static_cast<size_t>(engine.input_elements()),
          static_cast<size_t>(engine.output_elements()),
          [&engine](const float* in, int count, float* out) { engine.run(in, count, out); },
          [&engine](int count) { return engine.estimate(count); },
          [&engine](int count) { engine.prepare(count); },
          engine.lanes()};
}

Forward forward_of(const Classifier& classifier) {
  const size_t in = classifier.input_elements();
  const size_t out = classifier.classes().size();
  return {in,
          out,
          [&classifier, in, out](const float* from, int count, float* to) {
            const auto rows = static_cast<size_t>(count);
            classifier.run({from, rows * in}, count, {to, rows * out});
          },
          [&classifier](int count) { return classifier.estimate(count); },
          [&classifier](int count) { classifier.prepare(count); },
          classifier.lanes()};
}

Batcher::Batcher(Forward forward, int batch, Sink sink)
    : forward_(std::move(forward)),
      batch_(static_cast<size_t>(std::max(batch, 1))),
      sink_(std::move(sink)),
      inputs_(forward_.inputs * batch_),
      outputs_(forward_.outputs * batch_) {}

std::span<float> Batcher::row() {
  return {&inputs_[numbers_.size() * forward_.inputs], forward_.inputs};
}

void Batcher::add(size_t number) {
  numbers_.push_back(number);
  if (numbers_.size() == batch_) flush();
}

void Batcher::add(size_t number, std::span<const float> values) {
  std::copy(values.begin(), values.end(), row().begin());
  add(number);
}

void Batcher::flush() {
  if (numbers_.empty()) return;
  // A sink that throws finds no rows left to be computed again.
  const std::vector<size_t> numbers = std::exchange(numbers_, {});
  forward_.run(inputs_.data(), static_cast<int>(numbers.size()), outputs_.data());
  for (size_t i = 0; i < numbers.size(); ++i)
    sink_(numbers[i], {&outputs_[i * forward_.outputs], forward_.outputs});
}

}  // namespace graft
