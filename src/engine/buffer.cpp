#include "engine/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

namespace graft::engine {
namespace {

constexpr size_t kLargePage = size_t{2} << 20U;  // of x86-64, and of ARM with pages of 4 KB
constexpr size_t kCacheLine = 64;                // and one AVX-512 vector

}  // namespace

void Buffer::Free::operator()(float* memory) const {
  if (bytes > 0)
    ::munmap(memory, bytes);
  else
    std::free(memory);
}

Buffer::Buffer(size_t floats) : size_(floats) {
  // Kernels prefetch past the end, which is harmless, and never read or write there.
  const size_t bytes = (floats * sizeof(float) + kCacheLine - 1) / kCacheLine * kCacheLine;
  if (bytes < kLargePage) {
    void* memory = std::aligned_alloc(kCacheLine, std::max(bytes, kCacheLine));
    if (memory == nullptr) throw std::bad_alloc();
    std::memset(memory, 0, bytes);
    data_ = {static_cast<float*>(memory), Free{0}};
    return;
  }
  // Fresh pages are zero already, and come to the thread that first writes to them: a gigabyte of
  // packed weights is cleared by the whole team. Mapped a page too long, to begin at a large page.
  const size_t length = (bytes + kLargePage - 1) / kLargePage * kLargePage;
  void* memory = ::mmap(nullptr, length + kLargePage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<char*>(memory);
  const size_t skip = (kLargePage - reinterpret_cast<uintptr_t>(begin) % kLargePage) % kLargePage;
  if (skip > 0) ::munmap(begin, skip);
  if (skip < kLargePage) ::munmap(begin + skip + length, kLargePage - skip);
  ::madvise(begin + skip, length, MADV_HUGEPAGE);
  data_ = {reinterpret_cast<float*>(begin + skip), Free{length}};
}

}  // namespace graft::engine
