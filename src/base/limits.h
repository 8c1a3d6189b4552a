// What the shell, a batch system or a container allows this process (ulimit, setrlimit).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace graft {

/// Bytes; nothing where there is no limit.
std::optional<uint64_t> address_space_limit();  ///< ulimit -v
std::optional<uint64_t> data_limit();           ///< ulimit -d
std::optional<uint64_t> file_size_limit();      ///< ulimit -f
std::optional<uint64_t> stack_limit();          ///< ulimit -s, of each thread too
/// Descriptors that may be open at once (ulimit -n).
std::optional<uint64_t> open_file_limit();

/// What the limits on address space (ulimit -v) and on data (ulimit -d) leave, from what /proc
/// under `root` says is taken.
std::optional<uint64_t> address_space_left(const std::filesystem::path& root = "/");
std::optional<uint64_t> data_left(const std::filesystem::path& root = "/");

/// So little that an allocator which reserves or keeps it may leave too little to a training.
bool address_space_is_scarce();

/// A limit on processor time (ulimit -t) whose warning would come together with the end comes
/// earlier: SIGXCPU leaves time to save what there is.
void leave_time_to_stop();

/// How many threads can be started now, up to `wanted`: limits on processes, of the user (ulimit
/// -u) or of a control group, are only known by trying.
int startable_threads(int wanted);

/// What an errno value means. Where a limit of this process is behind it, the text names it.
std::string system_error_text(int error);

}  // namespace graft
