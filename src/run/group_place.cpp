#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "base/fail.h"
#include "base/words.h"
#include "graft/group.h"

namespace graft {
namespace {

constexpr int kMostProcesses = 100'000;
// Ports for groups whose launcher names none: above the system's own, below those that Linux gives
// to outgoing connections (32768 and up).
constexpr unsigned kFirstPort = 12'000;
constexpr unsigned kPorts = 20'000;

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

bool says_true(const char* name) {
  const char* value = variable(name);
  return value != nullptr && (std::string_view(value) == "True" || std::string_view(value) == "1");
}

std::optional<int> number(const char* name, int least, int most) {
  const char* value = variable(name);
  if (value == nullptr) return std::nullopt;
  const std::string_view text = value;
  int out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size() || out < least || out > most)
    fail(ErrorKind::usage,
         "the environment's {}={} is no whole number from {} to {}; correct or unset it", name,
         clipped(value), least, most);
  return out;
}

/// "node[01-03,7],other" → "node01".
std::string first_host(std::string_view list) {
  const size_t open = list.find('[');
  const size_t comma = list.find(',');
  if (open == std::string_view::npos || comma < open) return std::string(list.substr(0, comma));
  const size_t end = list.find_first_of(",-]", open);
  const size_t close = list.find(']', open);
  if (end == std::string_view::npos || close == std::string_view::npos) return std::string(list);
  return std::string(list.substr(0, open)) + std::string(list.substr(open + 1, end - open - 1)) +
         std::string(list.substr(close + 1, list.find(',', close) - close - 1));
}

unsigned hash(std::string_view text) {
  unsigned out = 2'166'136'261U;  // FNV-1a
  for (const char c : text) out = (out ^ static_cast<unsigned char>(c)) * 16'777'619U;
  return out;
}

int port_of(unsigned seed) { return static_cast<int>(kFirstPort + seed % kPorts); }

/// HOST:PORT, [IPv6]:PORT.
void set_rendezvous(GroupPlace& place, const std::string& text) {
  const size_t colon = text.rfind(':');
  int port = 0;
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  if (colon != std::string::npos)
    std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  if (colon == std::string::npos || host.empty() || port < 1 || port > 65535 ||
      std::to_string(port) != text.substr(colon + 1))
    fail(ErrorKind::usage,
         "--rendezvous {}: expected HOST:PORT of the machine that rank 0 runs on, such as "
         "node1:29500",
         clipped(text));
  place.host = host;
  place.port = port;
}

/// MASTER_ADDR and MASTER_PORT, where they are there.
void take_master(GroupPlace& place) {
  if (const char* host = variable("MASTER_ADDR")) place.host = host;
  if (const auto port = number("MASTER_PORT", 1, 65535)) place.port = *port;
}

void set_rank(GroupPlace& place, const char* rank_name, std::optional<int> rank,
              const char* size_name, std::optional<int> size) {
  if (!rank || !size)
    fail(ErrorKind::usage,
         "the environment has {} but no {}: a process of a group needs both; set or unset them "
         "together",
         rank ? rank_name : size_name, rank ? size_name : rank_name);
  if (*rank >= *size)
    fail(ErrorKind::usage,
         "the environment's {}={} and {}={} contradict each other: ranks go from 0 to {}",
         rank_name, *rank, size_name, *size, *size - 1);
  place.rank = *rank;
  place.size = *size;
}

std::optional<GroupPlace> torchrun_place() {
  const auto rank = number("RANK", 0, kMostProcesses);
  const auto size = number("WORLD_SIZE", 1, kMostProcesses);
  if (!rank && !size) return std::nullopt;
  GroupPlace place;
  place.launcher = "torchrun";
  set_rank(place, "RANK", rank, "WORLD_SIZE", size);
  place.local_size = number("LOCAL_WORLD_SIZE", 1, kMostProcesses).value_or(1);
  place.local_rank = number("LOCAL_RANK", 0, kMostProcesses).value_or(0);
  take_master(place);
  // There torchrun itself listens, in a protocol that differs between versions of PyTorch.
  if (place.port > 0 && says_true("TORCHELASTIC_USE_AGENT_STORE"))
    place.port = place.port < 65535 ? place.port + 1 : place.port - 1;
  return place;
}

std::optional<GroupPlace> open_mpi_place() {
  const auto rank = number("OMPI_COMM_WORLD_RANK", 0, kMostProcesses);
  const auto size = number("OMPI_COMM_WORLD_SIZE", 1, kMostProcesses);
  if (!rank && !size) return std::nullopt;
  GroupPlace place;
  place.launcher = "mpirun";
  place.bound = true;
  set_rank(place, "OMPI_COMM_WORLD_RANK", rank, "OMPI_COMM_WORLD_SIZE", size);
  place.local_size = number("OMPI_COMM_WORLD_LOCAL_SIZE", 1, kMostProcesses).value_or(1);
  place.local_rank = number("OMPI_COMM_WORLD_LOCAL_RANK", 0, kMostProcesses).value_or(0);
  if (place.local_size == place.size) {
    // All are children of one mpirun, whose number no two jobs of a machine share.
    place.host = "127.0.0.1";
    place.port = port_of(static_cast<unsigned>(::getppid()));
  } else if (const char* job = variable("PMIX_NAMESPACE")) {
    place.port = port_of(hash(job));
  }
  take_master(place);
  return place;
}

std::optional<GroupPlace> slurm_place() {
  const auto rank = number("SLURM_PROCID", 0, kMostProcesses);
  if (!rank) return std::nullopt;
  auto size = number("SLURM_STEP_NUM_TASKS", 1, kMostProcesses);
  if (!size) {
    // The script of a batch job is one process, whatever number of tasks it is to start.
    const char* environment = variable("ENVIRONMENT");
    if (environment != nullptr && std::string_view(environment) == "BATCH" && *rank == 0)
      return std::nullopt;
    size = number("SLURM_NTASKS", 1, kMostProcesses);
  }
  if (!size && *rank == 0) return std::nullopt;
  GroupPlace place;
  place.launcher = "srun";
  place.bound = true;
  set_rank(place, "SLURM_PROCID", rank, "SLURM_NTASKS", size);
  place.local_rank = number("SLURM_LOCALID", 0, kMostProcesses).value_or(0);
  const char* nodes = variable("SLURM_STEP_NODELIST");
  if (nodes == nullptr) nodes = variable("SLURM_JOB_NODELIST");
  const char* launched = variable("SLURM_LAUNCH_NODE_IPADDR");
  const int node_count = number("SLURM_STEP_NUM_NODES", 1, kMostProcesses)
                             .value_or(number("SLURM_NNODES", 1, kMostProcesses).value_or(0));
  if (node_count == 1) {
    place.host = "127.0.0.1";
    place.local_size = place.size;
  } else if (nodes != nullptr) {
    place.host = first_host(nodes);
  } else if (launched != nullptr) {
    place.host = launched;
  }
  if (const char* job = variable("SLURM_JOB_ID")) {
    const char* step = variable("SLURM_STEP_ID");
    place.port = port_of(hash(std::string(job) + "." + (step != nullptr ? step : "")));
  }
  take_master(place);
  return place;
}

/// Nothing for a process that is alone.
std::optional<GroupPlace> place_of_environment() {
  std::optional<GroupPlace> found = torchrun_place();
  if (!found) found = open_mpi_place();
  if (!found) found = slurm_place();
  if (found && found->size == 1) found.reset();
  return found;
}

}  // namespace

int GroupPlace::threads_of(int processors) const {
  if (local_size <= 1) return processors;
  const bool has_its_own = bound && processors < ::sysconf(_SC_NPROCESSORS_ONLN);
  return has_its_own ? processors : std::max(1, processors / local_size);
}

GroupPlace group_rank() { return place_of_environment().value_or(GroupPlace{}); }

GroupPlace group_place(const std::string& rendezvous) {
  const std::optional<GroupPlace> found = place_of_environment();
  if (!rendezvous.empty()) {
    GroupPlace place = found.value_or(GroupPlace{});
    set_rendezvous(place, rendezvous);
    if (!found)
      fail(
          ErrorKind::usage,
          "--rendezvous {}: this process is alone; start several, as with torchrun, srun or mpirun "
          "(RANK and WORLD_SIZE), or leave the option out",
          rendezvous);
    return place;
  }
  if (!found) return {};
  if (found->host.empty() || found->port == 0)
    fail(ErrorKind::usage,
         "process {} of {} ({}): where rank 0 is to be found is not known; give --rendezvous "
         "HOST:PORT of its machine, or set {}",
         found->rank, found->size, found->launcher,
         found->host.empty() && found->port == 0 ? "MASTER_ADDR and MASTER_PORT"
         : found->host.empty()                   ? "MASTER_ADDR"
                                                 : "MASTER_PORT");
  return *found;
}

}  // namespace graft
