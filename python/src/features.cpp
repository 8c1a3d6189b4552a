#include "graft/features.h"

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>

#include "bindings.h"
#include "inputs.h"
#include "work.h"

namespace graft::python {
namespace {

Pooling pooling_of(const std::string& word) {
  if (word == "none") return Pooling::none;
  if (word == "gap") return Pooling::gap;
  if (word == "flatten") return Pooling::flatten;
  throw Error(ErrorKind::usage, "`pool`: '" + word + "' is not none, gap or flatten");
}

/// An extractor with the stop and the events of its whole life.
struct Loaded {
  Events events;
  std::stop_source stop;
  std::optional<FeatureExtractor> extractor;
  int threads = 0;
  int batch = 1;
};
using Held = InOneProcess<Loaded>;

std::unique_ptr<Held> load(const std::string& model, const std::string& pool, bool include_top,
                           int batch_size, uint64_t seed, const py::str& cache,
                           const std::string& precision, int threads, const py::object& tell) {
  FeatureOptions options;
  Recipe recipe;
  recipe.merge_toml(model, "features()");
  options.model = recipe.model;
  options.include_top = include_top;
  options.pooling = pooling_of(pool);
  options.batch_size = batch_size;
  options.seed = seed;
  options.cache = path_bytes(cache);
  options.precision = precision_of(precision);
  check_features(options);
  auto loaded = std::make_unique<Loaded>();
  loaded->threads = threads;
  loaded->batch = batch_size;
  run_interruptibly(loaded->events, loaded->stop, tell, [&] {
    loaded->extractor.emplace(options,
                              RunContext{threads, &loaded->events, loaded->stop.get_token()});
  });
  return std::make_unique<Held>(std::move(loaded));
}

/// Where an image's row goes, and how long it is.
struct Rows {
  float* values;
  size_t each;
  std::vector<Failure> failures{};

  void set(size_t i, std::span<const float> row) const {
    std::copy(row.begin(), row.end(), values + i * each);
  }
};

void compute(Loaded& loaded, const Inputs& inputs, bool skip, Rows& rows) {
  if (inputs.are_all_paths()) {
    loaded.extractor->run(
        inputs.paths(), [&](size_t i, std::span<const float> row) { rows.set(i, row); },
        [&](size_t i, const std::string& text) {
          if (!skip) throw Error(ErrorKind::input, text);
          rows.failures.push_back({i, text});
        });
    return;
  }
  const RunContext context{loaded.threads, nullptr, loaded.stop.get_token()};
  const size_t batch = static_cast<size_t>(loaded.batch);
  for (size_t first = 0; first < inputs.size(); first += batch) {
    context.check_stop();
    const size_t last = std::min(first + batch, inputs.size());
    std::vector<Image> images(last - first);
    const std::vector<Failure> failures =
        inputs.load(first, last, context.thread_count(),
                    [&](size_t i, Image image) { images[i - first] = std::move(image); });
    if (!failures.empty() && !skip) throw Error(ErrorKind::input, failures.front().text);
    std::vector<size_t> numbers;
    std::vector<Image> read;
    for (size_t i = 0; i < images.size(); ++i) {
      if (images[i].width == 0) continue;
      numbers.push_back(first + i);
      read.push_back(std::move(images[i]));
    }
    loaded.extractor->run(read,
                          [&](size_t i, std::span<const float> row) { rows.set(numbers[i], row); });
    rows.failures.insert(rows.failures.end(), failures.begin(), failures.end());
  }
}

py::dict extract(const Held& held, const py::sequence& items, const py::buffer& out, bool skip,
                 const py::object& tell) {
  Loaded& loaded = held.get();
  const Inputs inputs(items);
  size_t each = 1;
  for (const int64_t side : loaded.extractor->shape()) each *= static_cast<size_t>(side);
  const py::buffer_info info = out.request(/*writable=*/true);
  Rows rows{floats_of(info, inputs.size() * each), each};
  run_interruptibly(loaded.events, loaded.stop, tell, [&] { compute(loaded, inputs, skip, rows); });
  py::dict failures;
  for (const Failure& f : rows.failures) failures[py::int_(f.index)] = text_of(f.text);
  return failures;
}

}  // namespace

void add_features(py::module_& module) {
  py::class_<Held>(module, "FeatureExtractor")
      .def(py::init(&load))
      /// Neither forked from where it was loaded nor stopped once.
      .def("is_usable",
           [](const Held& held) { return held.is_here() && !held.get().stop.stop_requested(); })
      .def("shape",
           [](const Held& held) {
             py::list out;
             for (const int64_t side : held.get().extractor->shape()) out.append(side);
             return py::tuple(out);
           })
      .def("layer", [](const Held& held) { return held.get().extractor->layer(); })
      .def("run", &extract);
}

}  // namespace graft::python
