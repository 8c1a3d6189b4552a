// The module behind the Python package `graft`. Thin: it turns Python's objects into the library's
// and the library's errors into Python's; the package around it has the interface and its words.
#include <pybind11/pybind11.h>

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "bindings.h"
#include "graft/dataset.h"
#include "graft/error.h"
#include "graft/train.h"

namespace graft::python {

namespace py = pybind11;

Precision precision_of(const std::string& word) {
  if (word == "fp32") return Precision::fp32;
  if (word == "bf16") return Precision::bf16;
  if (word == "auto") return Precision::automatic;
  throw Error(ErrorKind::usage, "`precision`: '" + word + "' is not fp32, bf16 or auto");
}

std::string word_of(Precision precision) {
  return precision == Precision::bf16 ? "bf16" : precision == Precision::fp32 ? "fp32" : "auto";
}

py::str text_of(const std::string& bytes) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<py::ssize_t>(bytes.size()), "replace"));
}

py::str path_text(const std::string& bytes) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeFSDefaultAndSize(bytes.data(), static_cast<py::ssize_t>(bytes.size())));
}

std::string path_bytes(const py::str& text) {
  const auto bytes = py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(text.ptr()));
  if (!bytes) throw py::error_already_set();
  return bytes;
}

namespace {

/// Raises what graft/_errors.py makes of an error.
void raise(ErrorKind kind, const std::string& text) {
  static constexpr const char* kKinds[] = {"usage", "input", "io", "memory", "interrupted"};
  try {
    const py::object error =
        py::module_::import("graft._errors")
            .attr("make_error")(kKinds[static_cast<size_t>(kind)], text_of(text));
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  } catch (py::error_already_set& other) {
    other.restore();
  }
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(std::move(pointer));
  } catch (const Error& error) {
    raise(error.kind(), error.what());
  }
}

/// The recipe of that name, with a file's options, then `toml`, checked: every option in effect.
std::string recipe_toml(const std::string& name, const py::str& file, const std::string& file_text,
                        const std::string& toml) {
  Recipe recipe = Recipe::named(name);
  if (!file_text.empty()) recipe.merge_toml(file_text, path_bytes(file));
  recipe.merge_toml(toml, "train()");
  recipe.check();
  static_cast<void>(make_backbone(recipe.model));
  return recipe.to_toml();
}

py::dict settings_of(const py::str& folder) {
  const RunSettings settings = run_settings(path_bytes(folder));
  py::dict out;
  out["data"] = path_text(settings.data.string());
  out["validation"] = path_text(settings.validation.string());
  out["test"] = path_text(settings.test.string());
  out["recipe"] = settings.recipe.to_toml();
  return out;
}

py::list images_below(const py::str& path) {
  const std::string folder = path_bytes(path);
  std::vector<std::filesystem::path> images;
  {
    const py::gil_scoped_release release;
    images = list_images(folder);
  }
  py::list out;
  for (const std::filesystem::path& image : images) out.append(path_text(image.string()));
  return out;
}

}  // namespace
}  // namespace graft::python

PYBIND11_MODULE(_graft, module) {
  namespace py = pybind11;
  using namespace graft::python;
  py::register_exception_translator(translate);
  module.attr("version") = GRAFT_VERSION;
  add_classifier(module);
  add_features(module);
  add_evaluation(module);
  module.def("recipe_toml", recipe_toml);
  module.def("run_settings", settings_of);
  module.def("list_images", images_below);
  module.def("recipe_names", [] {
    py::list out;
    out.append("default");
    for (const std::string& name : graft::recipe_names()) out.append(name);
    return out;
  });
  module.def("backbone_names", [] {
    py::list out;
    for (const std::string& name : graft::backbone_names()) out.append(name);
    return out;
  });
}
