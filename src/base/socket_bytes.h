// Whole transfers on a blocking socket.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

namespace graft {

/// False at the socket's end or on any error, without SIGPIPE.
bool send_bytes(int socket, std::span<const std::byte> bytes);
/// The same; `wait`, where there is one, is called before each read, and may throw.
bool receive_bytes(int socket, std::span<std::byte> bytes, const std::function<void()>& wait = {});

}  // namespace graft
