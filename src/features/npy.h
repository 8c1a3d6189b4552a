// NumPy's .npy format, version 1.0 (numpy/lib/format.py), written row by row.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace graft {

/// What stands before the values: `type` as numpy.dtype.str has it, `shape` the inside of a Python
/// tuple. Of one length whatever they are.
std::string npy_header(const std::string& type, const std::string& shape);

/// Writes float32 rows of one shape; the number of rows is put into the header by commit(), which
/// gives the file its name. Without commit() nothing is left.
class NpyWriter {
 public:
  NpyWriter(const std::filesystem::path& path, std::vector<int64_t> row_shape);
  void add(std::span<const float> row);
  void commit();
  /// Ends the file without giving it its name. Returns the one by which it can be read until this
  /// object goes.
  const std::filesystem::path& end();

 private:
  [[nodiscard]] std::string header() const;
  AtomicFile file_;
  std::vector<int64_t> row_shape_;
  int64_t rows_ = 0;
};

}  // namespace graft
