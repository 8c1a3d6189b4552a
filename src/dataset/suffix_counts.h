// Files that are not read, by the ends of their names.
#pragma once

#include <cstddef>
#include <map>
#include <string>

namespace graft {

/// Suffix (".cr2"; "" where there is none) → how many files.
using SuffixCounts = std::map<std::string, size_t>;

/// "1 .cr2, 2 .mov".
std::string suffixes(const SuffixCounts& counts);
/// What is to be done about them: once for each kind.
std::string advice_for(const SuffixCounts& counts);
SuffixCounts merged(SuffixCounts a, const SuffixCounts& b);

}  // namespace graft
