#include "weights/h5/lzf.h"

#include <hdf5.h>
#include <lzf.h>

namespace graft {
namespace {

// h5py/lzf/lzf_filter.c: its number, and which of its parameters is the size of a chunk.
constexpr H5Z_filter_t kLzf = 32000;
constexpr size_t kChunkParameter = 2;

/// Replaces a stored chunk by what it inflates to; 0 says that it is damaged.
size_t inflate(unsigned flags, size_t count, const unsigned parameters[], size_t stored,
               size_t* buffer_size, void** buffer) {
  if ((flags & H5Z_FLAG_REVERSE) == 0 || count <= kChunkParameter) return 0;
  const unsigned size = parameters[kChunkParameter];
  void* out = H5allocate_memory(size, /*clear=*/false);
  if (out == nullptr) return 0;
  const unsigned done =
      stored > ~0U ? 0 : lzf_decompress(*buffer, static_cast<unsigned>(stored), out, size);
  if (done == 0) {
    H5free_memory(out);
    return 0;
  }
  H5free_memory(*buffer);
  *buffer = out;
  *buffer_size = size;
  return done;
}

}  // namespace

void register_lzf() {
  const H5Z_class2_t filter = {H5Z_CLASS_T_VERS,      kLzf,
                               /*encoder_present=*/0,
                               /*decoder_present=*/1, "lzf", nullptr, nullptr, inflate};
  H5Zregister(&filter);
}

}  // namespace graft
