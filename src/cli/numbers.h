// Numbers on the command line, read strictly.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>

namespace graft::cli {

/// A whole number in decimal digits from `least` to `most`, for CLI11's check(). CLI11's own
/// conversion takes "-1" for an unsigned 2^64 - 1, "010" for 8 and what is too large for the
/// largest; all these are refused.
CLI::Validator whole_number(uint64_t least, uint64_t most);

/// Any whole number of 64 bits.
CLI::Validator seed_number();

/// A number from `least` to `most`; CLI::Range would take "nan".
CLI::Validator number(double least, double most);

}  // namespace graft::cli
