// What the programs that read files for Graft (graft-read-h5, graft-read-image) take from
// themselves before they look at one.
#pragma once

#include <cstdint>

namespace graft {

/// What a program keeps.
struct Confinement {
  int socket = 3;                ///< the one descriptor that it reads from and writes to
  bool threads = false;          ///< may start threads, as decoders do
  bool ends_with_parent = true;  ///< with the thread that started it; else when the socket closes
};

/// From here on the process can use the descriptors that it has and memory, and nothing else: no
/// new descriptor (no file, no network), no other process, no write to a file, no core dump. Where
/// the kernel has seccomp, all other system calls fail too. In a sanitized build, whose run-time
/// needs more, only core dumps are forbidden.
void confine(const Confinement& kept);

/// Limits the processor time from here on, beyond which the process is killed.
void limit_seconds(uint64_t seconds);

/// The address space in use, in bytes; 0 if unknown. Before confine().
uint64_t address_space();

/// Limits the address space, in bytes. Not in sanitized builds, which reserve terabytes.
void limit_memory(uint64_t bytes);

}  // namespace graft
