// Why a run keeps an epoch that another one outranks.
#pragma once

#include <string>
#include <vector>

#include "graft/train.h"

namespace graft {

/// "the end of the learning-rate cycle; the highest validation accuracy was 0.9286 in epoch 9, no
/// clear difference": of the epoch that was kept in place of the one that ranks first, see
/// keeps_last_epoch(). Empty where the kept epoch ranks first itself.
std::string why_kept(const std::vector<EpochRecord>& history, int kept);

}  // namespace graft
