// The parts of the module; each adds its classes and functions.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "graft/classifier.h"
#include "graft/precision.h"
#include "graft/recipe.h"

namespace graft::python {

void add_classifier(pybind11::module_& module);
void add_features(pybind11::module_& module);
void add_evaluation(pybind11::module_& module);

/// "fp32", "bf16", "auto". Throws Error(usage).
Precision precision_of(const std::string& word);
std::string word_of(Precision precision);

/// `precision` and other words are checked here; numbers by the library.
ClassifierOptions classifier_options(int threads, int max_batch, int views, bool low_latency,
                                     const std::string& precision);

/// Text of the library, which may hold names of files that are not UTF-8.
pybind11::str text_of(const std::string& bytes);
/// A path as Python's own functions return it.
pybind11::str path_text(const std::string& bytes);
/// The path that Python means by a text.
std::string path_bytes(const pybind11::str& text);

}  // namespace graft::python
