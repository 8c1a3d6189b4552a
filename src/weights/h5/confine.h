// What graft-read-h5 takes from itself before it looks at a file.
#pragma once

#include <cstdint>

namespace graft {

/// From here on the process can use the descriptors that it has and memory, and nothing else: no
/// new descriptor (no file, no network), no other process, no write to a file, no core dump, and
/// processor time in proportion to the file. Where the kernel has seccomp, all other system calls
/// fail too. Ends with its parent. In a sanitized build, whose run-time needs more, only the
/// processor time and core dumps are limited.
void confine(uint64_t file_bytes);

/// The address space in use, in bytes; 0 if unknown. Before confine().
uint64_t address_space();

/// Limits the address space, in bytes. Not in sanitized builds, which reserve terabytes.
void limit_memory(uint64_t bytes);

}  // namespace graft
