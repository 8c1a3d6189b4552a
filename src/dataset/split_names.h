// Words for splits, in folders' names and manifests.
#pragma once

#include <optional>
#include <string_view>

#include "dataset/dataset.h"

namespace graft {

/// The split that a folder's name or a manifest's word stands for, in any case and with the usual
/// additions: "Training", "val", "dev", "seg_test", "test_images".
std::optional<Split> split_of_name(std::string_view name);

/// A name for images that are to be classified, without labels: "seg_pred", "unlabeled".
bool is_for_prediction(std::string_view name);

}  // namespace graft
