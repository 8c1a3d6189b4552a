#include "report/kept_epoch.h"

#include <fmt/format.h>

#include <algorithm>

namespace graft {

std::string why_kept(const std::vector<EpochRecord>& history, int kept) {
  const auto mine = std::find_if(history.begin(), history.end(),
                                 [&](const EpochRecord& r) { return r.epoch == kept; });
  if (mine == history.end()) return "";
  const EpochRecord* first = &history.front();
  for (const EpochRecord& record : history)
    if (better_epoch(record, *first)) first = &record;
  if (!better_epoch(*first, *mine)) return "";
  // To the digits that are shown they may well be equal.
  const std::string highest = fmt::format("{:.4f}", first->val_accuracy);
  if (highest == fmt::format("{:.4f}", mine->val_accuracy))
    return fmt::format(
        "the end of the learning-rate cycle; epoch {} had the same validation accuracy at a lower "
        "loss, no clear difference",
        first->epoch);
  return fmt::format(
      "the end of the learning-rate cycle; the highest validation accuracy was {} in epoch {}, no "
      "clear difference",
      highest, first->epoch);
}

}  // namespace graft
