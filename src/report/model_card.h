// What a model file alone tells of a model, for people.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "weights/metadata.h"

namespace graft {

/// Rows of heading and plain text.
using ModelCard = std::vector<std::pair<std::string, std::string>>;

ModelCard model_card(const ModelMetadata& metadata);

/// What holds of every classifier, for the card's last row.
inline constexpr const char* kModelLimits =
    "every image gets one of these labels, also one that shows none of them; images unlike those "
    "it "
    "was trained on may be classified wrongly with high confidence";

/// A line "Heading: text" for each row, and the limits.
std::string model_card_text(const ModelMetadata& metadata);

}  // namespace graft
