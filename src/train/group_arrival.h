// How the processes of a group find each other: through LibTorch's store, in rank 0.
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "graft/group.h"

namespace graft {

std::string host_name();

void write_key(c10d::Store& store, const std::string& key, const std::string& value);
/// Nothing where it is not there yet.
std::optional<std::string> read_key(c10d::Store& store, const std::string& key);

/// A connection to the store, which `listens` says is this process'. Throws Error(io).
c10::intrusive_ptr<c10d::Store> open_store(const GroupPlace& place, bool listens);

struct Arrival {
  c10::intrusive_ptr<c10d::Store> store;
  std::vector<std::string> names;  ///< "rank 1 on node2"; of rank 0 alone in all but rank 0
};

/// Opens the store and waits until all have come. Throws Error(io) that says who has not, or that
/// it is no rank 0 that listens there; Error(interrupted) where `stop` asks for it; GroupError
/// where rank 0 says what is wrong.
Arrival arrive(const GroupPlace& place, const std::stop_token& stop);

}  // namespace graft
