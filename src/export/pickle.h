// The pickle of a state_dict, as torch.save writes it (protocol 2).
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace graft {

/// An OrderedDict of contiguous tensors, whose values are the archive's records data/0, data/1, …
/// in their order. `storage`: "FloatStorage" or "HalfStorage". It names nothing that
/// torch.load(weights_only=True) does not allow.
std::string state_dict_pickle(
    const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors,
    const std::string& storage);

}  // namespace graft
