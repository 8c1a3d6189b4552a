#include "cli/resume_options.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "base/file.h"
#include "base/words.h"
#include "graft/error.h"

namespace graft::cli {
namespace {

// How long, where and with what; --val and --test may be typed otherwise, and their pictures are
// compared. All else decides what the run becomes, so that a run with a part of it under other
// options would be neither of the two.
constexpr std::array<std::string_view, 10> kFree = {
    "epochs", "patience", "val",       "test",        "max-skipped",
    "device", "threads",  "cache-dir", "cache-limit", "no-report"};

std::map<std::string, std::string> entries(const TrainOptions& options) {
  std::map<std::string, std::string> out;
  for (auto& [key, value] : config_entries(options)) out.emplace(key, value);
  return out;
}

}  // namespace

void refuse_changed_options(const std::vector<std::string>& typed, const TrainOptions& own,
                            const TrainOptions& merged) {
  std::map<std::string, std::string> before = entries(own);
  std::map<std::string, std::string> after = entries(merged);
  std::vector<std::string> changed;
  for (const std::string& key : typed) {
    if (std::find(kFree.begin(), kFree.end(), key) != kFree.end()) continue;
    if (before[key] == after[key]) continue;
    changed.push_back(
        fmt::format("--{} ({})", key, before[key].empty() ? "not given" : clipped(before[key])));
  }
  if (!changed.empty())
    fail(ErrorKind::input,
         "{}: options of a run that is resumed cannot change: {}; leave {} out, or train a run of "
         "its own; --epochs and --patience may be given anew",
         printable(merged.resume), fmt::join(changed, ", "), changed.size() > 1 ? "them" : "it");
}

}  // namespace graft::cli
