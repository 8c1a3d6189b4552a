#include "engine/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace graft::engine {
namespace {

constexpr size_t kLargePage = size_t{2} << 20U;
constexpr size_t kCacheLine = 64;

}  // namespace

void Buffer::Free::operator()(float* memory) const { std::free(memory); }

Buffer::Buffer(size_t floats) : size_(floats) {
  // Kernels prefetch past the end, which is harmless, and never read or write there.
  const size_t align = floats * sizeof(float) >= kLargePage ? kLargePage : kCacheLine;
  const size_t bytes = (std::max<size_t>(floats, 1) * sizeof(float) + align - 1) / align * align;
  void* memory = std::aligned_alloc(align, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  if (align == kLargePage) ::madvise(memory, bytes, MADV_HUGEPAGE);
  std::memset(memory, 0, bytes);
  data_.reset(static_cast<float*>(memory));
}

}  // namespace graft::engine
