// Aligned memory on large pages, and activations laid out in it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/kernels.h"
#include "graft/network.h"

namespace graft::engine {

/// Zeroed floats, aligned for any vector; on 2 MB pages where it is large and the system has them.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t floats);
  [[nodiscard]] float* data() const { return data_.get(); }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  struct Free {
    size_t bytes;  // of a mapping; 0: from the heap
    void operator()(float* memory) const;
  };
  std::unique_ptr<float[], Free> data_;
  size_t size_ = 0;
};

/// Activations in blocks of channels, [n][C/block][rows][columns][block], with a zero border: one
/// pixel above and to the left, and on the other sides as far as the tiles of the convolution that
/// reads them reach. Nothing ever writes to the border, so it is zeroed once.
struct Maps {
  int channels = 0;
  int height = 0;
  int width = 0;
  int rows = 0;     ///< with border
  int columns = 0;  ///< with border
  int block = kernels().block;
  float* data = nullptr;

  /// `reach_down`, `reach_across`: output pixels that the tiles of the reader cover, at least the
  /// map's size.
  Maps(const Shape& shape, int reach_down, int reach_across)
      : channels(static_cast<int>(shape.channels)),
        height(static_cast<int>(shape.height)),
        width(static_cast<int>(shape.width)),
        rows(std::max(height, reach_down) + 2),
        columns(std::max(width, reach_across) + 2) {}

  [[nodiscard]] int blocks() const { return (channels + block - 1) / block; }
  [[nodiscard]] ptrdiff_t row() const { return ptrdiff_t{block} * columns; }
  [[nodiscard]] size_t image() const {
    return static_cast<size_t>(blocks()) * rows * columns * block;
  }
  /// Coordinates include the border: pixel (0, 0) is at (1, 1).
  [[nodiscard]] float* at(int n, int b, int y, int x) const {
    return data + (((static_cast<size_t>(n) * blocks() + b) * rows + y) * columns + x) * block;
  }
};

}  // namespace graft::engine
