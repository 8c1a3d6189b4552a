#include "features/extract.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/prefetch.h"
#include "base/signals.h"
#include "base/threads.h"
#include "graft/error.h"

namespace graft {
namespace {

struct Item {
  size_t index = 0;
  Image image;
  std::string error;  // empty: the image is good
};

using Batch = std::vector<Item>;

/// Decodes batch after batch.
class Decoder {
 public:
  explicit Decoder(const ExtractJob& job) : job_(job), pool_(job.threads) {}

  std::optional<Batch> next() {
    if (at_ >= job_.paths.size()) return std::nullopt;
    Batch batch(std::min(static_cast<size_t>(job_.batch), job_.paths.size() - at_));
    pool_.parallel_for(batch.size(), [&](size_t i) { batch[i] = load(at_ + i); });
    at_ += batch.size();
    return batch;
  }

 private:
  [[nodiscard]] Item load(size_t index) const {
    Item item{index, {}, {}};
    try {
      const std::vector<std::byte> bytes = read_file(job_.paths[index]);
      std::string hash;
      if (job_.keys != nullptr || job_.view) hash = content_hash(bytes);
      if (job_.keys != nullptr) job_.keys->at(index) = view_key(job_, hash);
      item.image =
          make_view(decode_image(bytes, printable(job_.paths[index])), job_.input_width,
                    job_.input_height, job_.preprocessing, job_.view ? job_.view(hash) : View());
    } catch (const Error& error) {
      item.error = error.what();
    }
    return item;
  }

  const ExtractJob& job_;
  ThreadPool pool_;
  size_t at_ = 0;
};

/// Images at once: as many as there are, as asked for and as memory allows.
int fitting_batch(const ExtractJob& job, const Engine& engine) {
  constexpr double kUsableShare = 0.9;  // the rest is for the system and what an estimate misses
  constexpr uint64_t kBatches = 4;      // used, two ready, one being decoded
  const uint64_t pixels = uint64_t{3} * job.input_height * job.input_width;
  const auto floats = static_cast<uint64_t>(engine.input_elements() + engine.output_elements());
  const auto needed = [&](int batch) {
    return engine.estimate(batch) + (floats * sizeof(float) + kBatches * pixels) * batch;
  };
  const uint64_t available = available_memory();
  const auto fits = [&](int batch) {
    return available == 0 ||
           static_cast<double>(needed(batch)) <= kUsableShare * static_cast<double>(available);
  };
  int batch = static_cast<int>(std::min(static_cast<size_t>(job.batch), job.paths.size()));
  while (batch > 1 && !fits(batch)) batch = (batch + 1) / 2;
  if (!fits(batch))
    fail(ErrorKind::memory,
         "{} needs about {} of memory for an image of {}x{}, and {} are available; use a smaller "
         "input size or free memory",
         job.label, format_bytes(static_cast<double>(needed(batch))), job.input_width,
         job.input_height, format_bytes(static_cast<double>(available)));
  return batch;
}

}  // namespace

std::vector<std::string> content_hashes(std::span<const std::filesystem::path> paths, int threads) {
  std::vector<std::string> hashes(paths.size());
  ThreadPool pool(threads);
  pool.parallel_for(paths.size(), [&](size_t i) {
    try {
      hashes[i] = content_hash_of_file(paths[i]);
    } catch (const Error&) {
      hashes[i].clear();
    }
  });
  return hashes;
}

std::string view_key(const ExtractJob& job, const std::string& hash) {
  return job.view ? hash + job.view(hash).id() : hash;
}

void load_inputs(const ExtractJob& job, const std::function<void(size_t, const Image&)>& sink,
                 const std::function<void(size_t, const std::string&)>& on_error) {
  Progress progress(job.label, job.paths.size(), "images", job.verbosity);
  Decoder decoder(job);
  Prefetch<Batch> batches([&] { return decoder.next(); });
  size_t done = 0;
  while (auto batch = batches.next()) {
    for (const Item& item : *batch) {
      if (item.error.empty())
        sink(item.index, item.image);
      else
        on_error(item.index, item.error);
    }
    done += batch->size();
    progress.update(done);
    check_interrupted();
  }
  progress.finish();
}

void extract(const ExtractJob& job, Engine& engine,
             const std::function<void(size_t, std::span<const float>)>& sink,
             const std::function<void(size_t, const std::string&)>& on_error) {
  if (job.paths.empty()) return;
  ExtractJob fitting = job;
  fitting.batch = fitting_batch(job, engine);
  Decoder decoder(fitting);
  Prefetch<Batch> batches([&] { return decoder.next(); });
  // Weights are packed while the first images are decoded, and before the clock starts.
  engine.prepare(fitting.batch);
  Progress progress(job.label, job.paths.size(), "images", job.verbosity);
  const auto in = static_cast<size_t>(engine.input_elements());
  const auto out = static_cast<size_t>(engine.output_elements());
  std::vector<float> inputs(in * fitting.batch);
  std::vector<float> outputs(out * fitting.batch);
  size_t done = 0;
  while (auto batch = batches.next()) {
    std::vector<const Item*> good;
    for (const Item& item : *batch)
      if (item.error.empty()) good.push_back(&item);
    for (size_t i = 0; i < good.size(); ++i)
      to_input(good[i]->image, job.preprocessing, &inputs[i * in]);
    engine.run(inputs.data(), static_cast<int>(good.size()), outputs.data());
    size_t row = 0;
    for (const Item& item : *batch) {
      if (item.error.empty())
        sink(item.index, {&outputs[out * row++], out});
      else
        on_error(item.index, item.error);
    }
    done += batch->size();
    progress.update(done);
    check_interrupted();
  }
  progress.finish();
}

}  // namespace graft
