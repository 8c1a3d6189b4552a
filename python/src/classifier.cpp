#include "graft/classifier.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "bindings.h"
#include "inputs.h"
#include "work.h"

namespace graft::python {
namespace {

using Held = InOneProcess<Classifier>;

/// Rows of logits and probabilities, and what could not be read.
struct Rows {
  float* logits;
  float* probabilities;
  size_t classes;
  std::vector<Failure> failures{};

  void set(size_t i, const Prediction& p) const {
    std::copy(p.logits.begin(), p.logits.end(), logits + i * classes);
    std::copy(p.probabilities.begin(), p.probabilities.end(), probabilities + i * classes);
  }
};

/// Files, decoded ahead.
void classify_paths(const Classifier& classifier, const Inputs& inputs, bool skip, Rows& rows,
                    const RunContext& context) {
  classify_files(
      classifier, inputs.paths(), [&](size_t i, const Prediction& p) { rows.set(i, p); },
      [&](size_t i, const std::string& text) {
        if (!skip) throw Error(ErrorKind::input, text);
        rows.failures.push_back({i, text});
      },
      context);
}

/// Anything, in batches: brought to the input size by several threads, then computed.
void classify_any(const Classifier& classifier, const Inputs& inputs, bool skip, Rows& rows,
                  const RunContext& context) {
  const ModelInfo& info = classifier.info();
  const int width = info.network.input_width;
  const int height = info.network.input_height;
  const size_t each = classifier.input_elements();
  const size_t batch = std::min(inputs.size(), static_cast<size_t>(classifier.max_batch()));
  std::vector<float> floats(batch * each);
  std::vector<float> logits(batch * rows.classes);
  for (size_t first = 0; first < inputs.size(); first += batch) {
    context.check_stop();
    const size_t last = std::min(first + batch, inputs.size());
    std::vector<Failure> failures =
        inputs.load(first, last, context.thread_count(), [&](size_t i, const Image& image) {
          to_input(fit_image(image, width, height, info.preprocessing), info.preprocessing,
                   &floats[(i - first) * each]);
        });
    if (!failures.empty() && !skip) throw Error(ErrorKind::input, failures.front().text);
    // Rows of images that could not be read are computed from what stands there, and not used.
    for (const Failure& f : failures) std::fill_n(&floats[(f.index - first) * each], each, 0.0F);
    const size_t count = last - first;
    classifier.run({floats.data(), count * each}, static_cast<int>(count),
                   {logits.data(), count * rows.classes});
    auto failed = failures.begin();
    for (size_t i = first; i < last; ++i) {
      if (failed != failures.end() && failed->index == i) {
        ++failed;
        continue;
      }
      rows.set(i, to_prediction({&logits[(i - first) * rows.classes], rows.classes}));
    }
    rows.failures.insert(rows.failures.end(), failures.begin(), failures.end());
  }
}

py::dict classify(const Held& held, const py::sequence& items, const py::buffer& logits,
                  const py::buffer& probabilities, bool skip, int threads) {
  const Classifier& classifier = held.get();
  const Inputs inputs(items);
  const size_t classes = classifier.classes().size();
  const py::buffer_info logits_info = logits.request(/*writable=*/true);
  const py::buffer_info probabilities_info = probabilities.request(/*writable=*/true);
  Rows rows{floats_of(logits_info, inputs.size() * classes),
            floats_of(probabilities_info, inputs.size() * classes), classes};
  if (inputs.size() == 1 && !skip) {  // at once: a thread would take longer to start
    {
      const py::gil_scoped_release release;
      rows.set(0, classifier.classify(inputs.load(0)));
    }
    return py::dict();
  }
  run_interruptibly(threads, py::none(), [&](const RunContext& context) {
    inputs.are_all_paths() ? classify_paths(classifier, inputs, skip, rows, context)
                           : classify_any(classifier, inputs, skip, rows, context);
  });
  py::dict out;
  for (const Failure& f : rows.failures) out[py::int_(f.index)] = text_of(f.text);
  return out;
}

py::dict info_of(const ModelInfo& info) {
  py::dict out;
  py::list classes;
  for (const std::string& name : info.classes) classes.append(text_of(name));
  out["classes"] = classes;
  out["backbone"] = info.network.backbone;
  out["input_size"] = py::make_tuple(info.network.input_height, info.network.input_width);
  out["weights_source"] = text_of(info.weights_source);
  out["weights_licence"] = text_of(info.weights_licence);
  out["training"] = text_of(info.training);
  return out;
}

}  // namespace

ClassifierOptions classifier_options(int threads, int max_batch, int views, bool low_latency,
                                     const std::string& precision) {
  ClassifierOptions options;
  options.threads = threads;
  options.max_batch = max_batch;
  options.views = views;
  options.low_latency = low_latency;
  options.precision = precision_of(precision);
  return options;
}

void add_classifier(py::module_& module) {
  py::class_<Held>(module, "Classifier")
      .def(py::init([](const py::str& path, int threads, int max_batch, int views, bool low_latency,
                       const std::string& precision) {
        const std::string file = path_bytes(path);
        const py::gil_scoped_release release;
        return std::make_unique<Held>(std::make_unique<Classifier>(Classifier::load(
            file, classifier_options(threads, max_batch, views, low_latency, precision))));
      }))
      .def("is_here", &Held::is_here)
      .def("info", [](const Held& held) { return info_of(held.get().info()); })
      .def("precision", [](const Held& held) { return word_of(held.get().precision()); })
      .def("views", [](const Held& held) { return held.get().views(); })
      .def("classify", &classify);
}

}  // namespace graft::python
