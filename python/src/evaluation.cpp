#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "bindings.h"
#include "graft/evaluate.h"
#include "inputs.h"
#include "work.h"

namespace graft::python {
namespace {

/// A result with what a report about it needs.
struct Evaluated {
  Evaluation evaluation;
  Dataset dataset;
  std::filesystem::path model;
  size_t trained_on = 0;
};

std::unique_ptr<Evaluated> evaluate_model(const py::str& model, const py::str& data,
                                          const py::str& validation, const py::str& test,
                                          const std::string& split, double max_skipped,
                                          const ClassifierOptions& options,
                                          const py::object& tell) {
  auto out = std::make_unique<Evaluated>();
  out->model = path_bytes(model);
  const std::string root = path_bytes(data);
  const std::string of_validation = path_bytes(validation);
  const std::string of_test = path_bytes(test);
  run_interruptibly(options.threads, tell, [&](const RunContext& context) {
    const Classifier classifier = Classifier::load(out->model, options);
    out->dataset = open_dataset(root, of_validation, of_test, context);
    out->evaluation = evaluate(classifier, out->dataset, split, context);
    require_few_skipped(out->evaluation, max_skipped, root);
    out->trained_on = images_trained_on(out->model, out->evaluation);
  });
  return out;
}

void write_page(const Evaluated& e, const py::str& file, const py::object& tell) {
  const std::string path = path_bytes(file);
  run_interruptibly(0, tell, [&](const RunContext& context) {
    write_report(e.evaluation, e.model, e.dataset, path, "", context);
  });
}

py::list paths_of(const Evaluated& e) {
  py::list out;
  for (const Sample& sample : e.evaluation.predictions.samples)
    out.append(path_text(sample.path.string()));
  return out;
}

py::list labels_of(const Evaluated& e) {
  py::list out;
  for (const Sample& sample : e.evaluation.predictions.samples) out.append(sample.label);
  return out;
}

}  // namespace

void add_evaluation(py::module_& module) {
  py::class_<Evaluated>(module, "Evaluation")
      .def(py::init([](const py::str& model, const py::str& data, const py::str& validation,
                       const py::str& test, const std::string& split, double max_skipped,
                       int threads, int views, const std::string& precision,
                       const py::object& tell) {
        return evaluate_model(model, data, validation, test, split, max_skipped,
                              classifier_options(threads, 16, views, false, precision), tell);
      }))
      .def("json",
           [](const Evaluated& e) { return text_of(evaluation_json(e.evaluation, e.trained_on)); })
      .def("text",
           [](const Evaluated& e) {
             return text_of(metrics_text(e.evaluation.metrics, e.evaluation.predictions.classes));
           })
      .def("csv", [](const Evaluated& e) { return text_of(predictions_csv(e.evaluation)); })
      .def("split", [](const Evaluated& e) { return e.evaluation.split; })
      .def("classes",
           [](const Evaluated& e) {
             py::list out;
             for (const std::string& name : e.evaluation.predictions.classes)
               out.append(text_of(name));
             return out;
           })
      .def("paths", &paths_of)
      .def("labels", &labels_of)
      .def("logits",
           [](const Evaluated& e, const py::buffer& out) {
             const py::buffer_info info = out.request(/*writable=*/true);
             const std::vector<float>& logits = e.evaluation.predictions.logits;
             std::copy(logits.begin(), logits.end(), floats_of(info, logits.size()));
           })
      .def("trained_on", [](const Evaluated& e) { return e.trained_on; })
      .def("write_report", &write_page);
}

}  // namespace graft::python
