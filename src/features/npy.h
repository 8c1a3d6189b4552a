// NumPy's .npy format, version 1.0 (numpy/lib/format.py), written row by row.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "base/file.h"

namespace graft {

/// Writes float32 rows of one shape; the number of rows is put into the header by commit(), which
/// gives the file its name. Without commit() nothing is left.
class NpyWriter {
 public:
  NpyWriter(const std::filesystem::path& path, std::vector<int64_t> row_shape);
  void add(std::span<const float> row);
  void commit();

 private:
  [[nodiscard]] std::string header() const;
  AtomicFile file_;
  std::vector<int64_t> row_shape_;
  int64_t rows_ = 0;
};

}  // namespace graft
