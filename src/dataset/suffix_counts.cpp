#include "dataset/suffix_counts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "image/formats.h"

namespace graft {

std::string suffixes(const SuffixCounts& counts) {
  std::string out;
  for (const auto& [suffix, count] : counts)
    out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count,
                       suffix.empty() ? "without a suffix" : printable(suffix));
  return out;
}

std::string advice_for(const SuffixCounts& counts) {
  std::vector<std::string_view> parts;
  for (const auto& [suffix, count] : counts) {
    const UnreadKind* kind = unread_kind(suffix);
    const std::string_view advice =
        kind != nullptr ? kind->advice : "give them the suffix of their format";
    if (std::find(parts.begin(), parts.end(), advice) == parts.end()) parts.push_back(advice);
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

SuffixCounts merged(SuffixCounts a, const SuffixCounts& b) {
  for (const auto& [suffix, count] : b) a[suffix] += count;
  return a;
}

}  // namespace graft
