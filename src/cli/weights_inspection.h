// What 'graft weights inspect' says of a file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "graft/weights.h"

namespace graft::cli {

/// `name`: the file, as it was typed.
nlohmann::json inspection_json(const std::string& name, const WeightsInspection& about);
void print_inspection(const std::string& name, const WeightsInspection& about);

}  // namespace graft::cli
