// A file's hash of itself, by which what it says of itself is believed or not.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace graft {

/// The key under which such a hash stands in metadata; its digits while it is computed.
inline constexpr std::string_view kSealKey = "file_xxh3";
inline constexpr std::string_view kSealBlank = "00000000000000000000000000000000";

/// The hash of a file whose digits stand at `at`, as if they were kSealBlank.
std::string seal_of(std::span<const std::byte> file, size_t at);

/// Whether these digits stand in the file once, and are its hash.
bool has_seal(std::span<const std::byte> file, std::string_view digits);

/// The hash of an archive: of a record in it, whose digits are kSealBlank, and of what is beside
/// it.
std::string record_seal(std::string_view record, std::string_view listing);

}  // namespace graft
