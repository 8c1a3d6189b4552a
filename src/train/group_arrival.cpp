#include "train/group_arrival.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "base/fail.h"
#include "base/group_times.h"
#include "train/group.h"

namespace graft {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// Whether what listens there speaks first, as servers of SSH, mail or databases do. LibTorch's
/// store does not, and the threads of its clients take what they are sent for lengths of messages.
bool speaks_first(const std::string& host, int port) {
  constexpr int kPatience = 200;  // milliseconds
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return false;
  bool speaks = false;
  bool connected = false;
  for (const addrinfo* at = found; at != nullptr && !connected; at = at->ai_next) {
    const int fd = ::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    // A limit for connecting, too.
    const timeval limit{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    connected = ::connect(fd, at->ai_addr, at->ai_addrlen) == 0;
    pollfd look{fd, POLLIN, 0};
    char byte = 0;
    speaks = connected && ::poll(&look, 1, kPatience) > 0 && ::recv(fd, &byte, 1, 0) > 0;
    ::close(fd);
  }
  ::freeaddrinfo(found);
  return speaks;
}

/// Waits until all have arrived; their names, of which only rank 0 knows all. `answered` is called
/// whenever the store has answered.
std::vector<std::string> meet_all(const GroupPlace& place, c10d::Store& store,
                                  const std::stop_token& stop,
                                  const std::function<void()>& answered) {
  const auto key = [](int rank) { return "host/" + std::to_string(rank); };
  std::vector<std::string> names(static_cast<size_t>(place.size));
  write_key(store, key(place.rank), host_name());
  const Clock::time_point begin = Clock::now();
  while (true) {
    std::vector<int> missing;
    for (int k = 0; k < place.size; ++k) {
      if (k != 0 && place.rank != 0) break;
      auto& name = names[static_cast<size_t>(k)];
      if (!name.empty()) continue;
      if (const auto host = read_key(store, key(k)))
        name = fmt::format("rank {} on {}", k, *host);
      else
        missing.push_back(k);
    }
    if (place.rank == 0 && missing.empty()) {
      write_key(store, "all", "1");
      return names;
    }
    if (place.rank != 0) {
      if (read_key(store, "all")) return names;
      if (const auto why = read_key(store, "missing")) throw GroupError(ErrorKind::io, *why);
    }
    answered();
    if (stop.stop_requested()) throw Error(ErrorKind::interrupted, "interrupted");
    if (place.rank == 0 && Clock::now() - begin > group_join_time()) {
      const std::string why = fmt::format(
          "rank{} {} of {} {} not arrived within {} s; start all of them with the same {}:{}",
          missing.size() > 1 ? "s" : "", fmt::join(missing, ", "), place.size,
          missing.size() > 1 ? "have" : "has", group_join_time().count() / 1000, place.host,
          place.port);
      write_key(store, "missing", why);
      std::this_thread::sleep_for(milliseconds(500));  // those that are there hear of it
      throw Error(ErrorKind::io, why);
    }
    std::this_thread::sleep_for(milliseconds(20));
  }
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "?";
}

void write_key(c10d::Store& store, const std::string& key, const std::string& value) {
  store.set(key, std::vector<uint8_t>(value.begin(), value.end()));
}

std::optional<std::string> read_key(c10d::Store& store, const std::string& key) {
  if (!store.check({key})) return std::nullopt;
  const std::vector<uint8_t> value = store.get(key);
  return std::string(value.begin(), value.end());
}

c10::intrusive_ptr<c10d::Store> open_store(const GroupPlace& place, bool listens) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(place.port);
  options.isServer = listens;
  options.waitWorkers = false;
  options.timeout = group_join_time();
  try {
    return c10::make_intrusive<c10d::TCPStore>(place.host, options);
  } catch (const std::exception&) {
    if (listens)
      fail(ErrorKind::io,
           "rank 0 of {} cannot listen at {}:{}: the port is taken, or the name is not this "
           "machine's; give --rendezvous HOST:PORT, the same to all",
           place.size, place.host, place.port);
    fail(ErrorKind::io,
         "rank {} of {} cannot reach rank 0 at {}:{} within {} s; start it, or give the address "
         "that it has with --rendezvous HOST:PORT",
         place.rank, place.size, place.host, place.port, group_join_time().count() / 1000);
  }
}

// Where another program listens in place of rank 0, calls of the store wait for its answer for
// ever: so they are made on a thread that can be left behind.
Arrival arrive(const GroupPlace& place, const std::stop_token& stop) {
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    Clock::time_point answered = Clock::now();
    std::optional<Arrival> arrival;
    std::exception_ptr error;
  };
  const auto shared = std::make_shared<Shared>();
  std::thread([shared, place, stop] {
    const auto answered = [&] {
      const std::lock_guard lock(shared->mutex);
      shared->answered = Clock::now();
    };
    Arrival mine;
    std::exception_ptr error;
    try {
      if (place.rank != 0 && speaks_first(place.host, place.port))
        fail(ErrorKind::io,
             "rank {} of {}: another program listens at {}:{}; give a free port with --rendezvous "
             "HOST:PORT, the same to all",
             place.rank, place.size, place.host, place.port);
      mine.store = open_store(place, place.rank == 0);
      answered();
      mine.names = meet_all(place, *mine.store, stop, answered);
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(shared->mutex);
    shared->error = error;
    shared->arrival = std::move(mine);
    shared->changed.notify_all();
  }).detach();
  constexpr milliseconds kMore{2000};  // for what has a limit of its own
  std::unique_lock lock(shared->mutex);
  while (!shared->arrival) {
    if (stop.stop_requested()) throw Error(ErrorKind::interrupted, "interrupted");
    if (Clock::now() - shared->answered > group_join_time() + kMore)
      fail(ErrorKind::io,
           "rank {} of {}: what listens at {}:{} does not answer as rank 0 does; if it is "
           "another program, give a free port with --rendezvous HOST:PORT, the same to all",
           place.rank, place.size, place.host, place.port);
    shared->changed.wait_for(lock, milliseconds(50));
  }
  if (shared->error == nullptr) return *std::move(shared->arrival);
  try {
    std::rethrow_exception(shared->error);
  } catch (const Error&) {
    throw;
  } catch (const std::exception&) {
    if (place.rank == 0)
      fail(ErrorKind::io,
           "rank 0 of {}: {}:{} is not this machine's, or another program answers there; "
           "give this machine's address and a free port with --rendezvous HOST:PORT, the "
           "same to all",
           place.size, place.host, place.port);
    fail(ErrorKind::io,
         "rank {} of {}: rank 0 at {}:{} has ended, or another program answers there; start "
         "rank 0 again, or give a free port with --rendezvous HOST:PORT, the same to all",
         place.rank, place.size, place.host, place.port);
  }
}

}  // namespace graft
