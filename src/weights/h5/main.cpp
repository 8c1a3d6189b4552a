// graft-read-h5: reads one .h5 file for Graft and ends. The HDF5 library crashes on files that are
// damaged or made to harm, so it has a process of its own, which can do nothing but read
// (decision 0013). Not for people: Graft starts it with three descriptors (weights/h5_message.h).
#include <hdf5.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "confine/confine.h"
#include "graft/error.h"
#include "weights/h5/reader.h"

namespace graft {
namespace {

// The slowest honest files, shuffled and deflated, inflate at some 100 MB/s.
constexpr uint64_t kSeconds = 2;
constexpr uint64_t kBytesPerSecond = uint64_t{16} << 20U;
constexpr uint64_t kWorkingBytes = uint64_t{64} << 20U;  // for the library's own structures

/// By lseek, which stays allowed; glibc's fstat takes a path.
uint64_t size_of(int descriptor) {
  const off_t end = ::lseek(descriptor, 0, SEEK_END);
  return end < 0 ? 0 : static_cast<uint64_t>(end);
}

void* map(int descriptor, uint64_t bytes, int protection, int flags) {
  void* at = ::mmap(nullptr, bytes, protection, flags, descriptor, 0);
  if (at == MAP_FAILED) throw std::bad_alloc();
  return at;
}

/// Answers one request after the other until Graft has closed the socket.
void serve() {
  const uint64_t own_bytes = address_space();
  const uint64_t file_bytes = size_of(kH5File);
  // A filter that a file names must not load code. This also starts the library.
  H5PLset_loading_state(0);
  confine({.socket = kH5Socket});
  limit_seconds(kSeconds + file_bytes / kBytesPerSecond);
  uint64_t memory = own_bytes + file_bytes + kWorkingBytes;
  limit_memory(memory);
  const H5Reader reader(
      {static_cast<const std::byte*>(map(kH5File, file_bytes, PROT_READ, MAP_PRIVATE)),
       file_bytes});
  if (!send_message(kH5Socket,
                    {H5Tag::catalogue, reader.weights(), reader.description(), 0, reader.record()}))
    return;

  // Graft gives the shared memory its size before it asks for the first values.
  std::span<float> values;
  H5Message request;
  while (receive_message(kH5Socket, request, [] {}) && request.tag == H5Tag::read) {
    if (request.index >= reader.weights().size()) return;
    const uint64_t bytes = reader.weights()[request.index].bytes();
    if (values.empty()) {
      const uint64_t shared = size_of(kH5Values);
      limit_memory(memory += shared);
      values = {static_cast<float*>(map(kH5Values, shared, PROT_READ | PROT_WRITE, MAP_SHARED)),
                shared / sizeof(float)};
    }
    if (bytes > values.size_bytes()) return;
    limit_memory(memory + reader.working_bytes(request.index));
    reader.read(request.index, values.first(bytes / sizeof(float)));
    if (!send_message(kH5Socket, {H5Tag::values, {}, "", 0})) return;
  }
}

}  // namespace
}  // namespace graft

int main() {
  try {
    graft::serve();
  } catch (const graft::Error& error) {
    graft::send_message(graft::kH5Socket, {graft::H5Tag::refusal, {}, error.what(), 0});
  } catch (const std::bad_alloc&) {
    graft::send_message(graft::kH5Socket, {graft::H5Tag::refusal,
                                           {},
                                           "reading it takes more memory than such a file "
                                           "may need, or than there is",
                                           0});
  }
  // Not exit(): after a damaged file the library's own clean-up may crash or find leaks.
  ::_exit(0);
}
