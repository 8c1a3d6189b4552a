// Images as Python has them: paths, encoded bytes, arrays of pixels.
#pragma once

#include <pybind11/pybind11.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graft/image.h"

namespace graft::python {

namespace py = pybind11;

/// An image that could not be read, and why.
struct Failure {
  size_t index = 0;
  std::string text;
};

/// A list of images that Python owns, to be read without the GIL. Made and destroyed with it.
class Inputs {
 public:
  /// Of str (paths), one-dimensional buffers of bytes (an image file), and
  /// three-dimensional ones of uint8, (H, W, 3), of any strides. Throws Error(usage) for others.
  explicit Inputs(const py::sequence& items);

  [[nodiscard]] size_t size() const { return items_.size(); }
  [[nodiscard]] bool are_all_paths() const;
  [[nodiscard]] std::vector<std::filesystem::path> paths() const;
  /// Decodes, or copies the array once. Throws Error(input) that names the file, or "images[i]".
  [[nodiscard]] Image load(size_t i) const;
  /// Those from `first` to before `last`, by so many threads, which call `take(i, image)`, in no
  /// order. Returns those that could not be read.
  [[nodiscard]] std::vector<Failure> load(size_t first, size_t last, int threads,
                                          const std::function<void(size_t, Image)>& take) const;

 private:
  struct Item {
    std::filesystem::path path;               // empty: a buffer
    std::unique_ptr<py::buffer_info> buffer;  // keeps the object's memory where it is
  };
  std::vector<Item> items_;
};

/// A writable buffer of float32 in C order with so many values. Throws Error(usage) for others.
float* floats_of(const py::buffer_info& info, size_t count);

}  // namespace graft::python
