#include "train/group.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <utility>
#include <vector>

// Debian's LibTorch is built with Gloo, which its headers only believe where they are told.
#ifndef USE_C10D_GLOO
#define USE_C10D_GLOO
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "base/fail.h"
#include "base/json.h"
#include "train/group_arrival.h"
#include "train/group_link.h"

namespace graft {
namespace {

using std::chrono::milliseconds;
using Gloo = c10d::ProcessGroupGloo;
using Clock = std::chrono::steady_clock;

// How long a wait for an exchange goes before it looks whether the group still lives.
constexpr milliseconds kLook{250};

/// LibTorch's messages go on with the stack.
std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

/// The address of this machine from which it reaches that one; empty: unknown.
std::string own_address(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;  // connecting sends nothing
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return {};
  std::string out;
  for (const addrinfo* at = found; at != nullptr && out.empty(); at = at->ai_next) {
    const int fd = ::socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) continue;
    sockaddr_storage mine{};
    socklen_t size = sizeof mine;
    std::array<char, NI_MAXHOST> text{};
    if (::connect(fd, at->ai_addr, at->ai_addrlen) == 0 &&
        ::getsockname(fd, reinterpret_cast<sockaddr*>(&mine), &size) == 0 &&
        ::getnameinfo(reinterpret_cast<sockaddr*>(&mine), size, text.data(), text.size(), nullptr,
                      0, NI_NUMERICHOST) == 0)
      out = text.data();
    ::close(fd);
  }
  ::freeaddrinfo(found);
  return out;
}

std::shared_ptr<::gloo::transport::Device> make_device(const GroupPlace& place) {
  // PyTorch's own variable, for machines with several networks.
  if (const char* name = std::getenv("GLOO_SOCKET_IFNAME"); name != nullptr && *name != '\0')
    return Gloo::createDeviceForInterface(name);
  const std::string address = own_address(place.host, place.port);
  return address.empty() ? Gloo::createDefaultDevice() : Gloo::createDeviceForHostname(address);
}

}  // namespace

struct Group::Processes {
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<Gloo> gloo;
};

class Group::Pending {
 public:
  Pending(c10::intrusive_ptr<c10d::Work> given, std::vector<torch::Tensor> used)
      : work(std::move(given)), tensors(std::move(used)) {}
  c10::intrusive_ptr<c10d::Work> work;
  std::vector<torch::Tensor> tensors;
};

Group::Group(const GroupPlace& place, const RunContext& context)
    : place_(place),
      processes_(std::make_unique<Processes>()),
      stop_with_context_(context.stop, [this] {
        if (link_) link_->stop.request_stop();
      }) {
  Arrival arrival = arrive(place, context.stop);
  processes_->store = std::move(arrival.store);
  link_ = std::make_shared<GroupLink>(place, std::move(arrival.names));
  // A connection of its own: a call that waits holds up all others of a connection.
  const c10::intrusive_ptr<c10d::Store> store = open_store(place, /*listens=*/false);
  link_->start(
      [store](const std::string& key, const std::string& value) { write_key(*store, key, value); },
      [store](const std::string& key) { return read_key(*store, key); },
      [store](const std::string& key) { return store->add(key, 1); });
  try {
    const auto options = Gloo::Options::create(group_timeout());
    options->devices.push_back(make_device(place));
    options->threads = 2;
    processes_->gloo =
        c10::make_intrusive<Gloo>(processes_->store, place.rank, place.size, options);
  } catch (const std::exception& error) {
    const std::string why = link_->blame(
        fmt::format("{}; GLOO_SOCKET_IFNAME names the network to use", first_line(error)));
    const GroupError failure(ErrorKind::io, why);
    // Not said by rank 0: then here.
    if (fail(std::make_exception_ptr(failure)) && !is_first()) throw Error(ErrorKind::io, why);
    throw failure;
  }
  if (context.stop.stop_requested()) link_->stop.request_stop();
}

Group::~Group() {
  try {
    leave();
  } catch (const std::exception&) {
    state_ = State::broken;
  }
  if (state_ == State::broken) keep_for_ever(std::move(processes_));
}

/// Threads of a group that broke may wait for the network still, until the program ends.
void Group::keep_for_ever(std::unique_ptr<Processes> processes) {
  static std::mutex mutex;
  static auto& kept = *new std::vector<std::unique_ptr<Processes>>;  // reachable: no leak
  const std::lock_guard lock(mutex);
  kept.push_back(std::move(processes));
}

void Group::leave() {
  if (state_ != State::joined) return;
  meet("end");
  link_->leave();
  state_ = State::left;
}

std::string Group::name_of(int rank) const {
  return fmt::format("rank {}{}", rank, rank == place_.rank ? " on " + host_name() : "");
}

std::stop_token Group::stop() const { return link_->stop.get_token(); }

void Group::broken(const std::string& why) { throw GroupError(ErrorKind::io, link_->blame(why)); }

template <typename Begin>
std::shared_ptr<Group::Pending> Group::begin(const Begin& exchange) {
  if (const std::string why = link_->failure(); !why.empty()) throw GroupError(ErrorKind::io, why);
  ++link_->exchanges;
  try {
    return exchange();
  } catch (const std::exception& error) {
    broken(first_line(error));
  }
}

template <typename Begin>
void Group::exchange(const Begin& exchange) {
  wait(*begin(exchange));
}

void Group::wait(Pending& pending) {
  while (true) {
    try {
      pending.work->wait(kLook);
      return;
    } catch (const std::exception& error) {
      if (pending.work->isCompleted()) broken(first_line(error));
    }
    if (const std::string why = link_->failure(); !why.empty())
      throw GroupError(ErrorKind::io, why);
  }
}

void Group::sum(const torch::Tensor& tensor) {
  exchange([&] {
    std::vector<torch::Tensor> all{tensor};
    return std::make_shared<Pending>(processes_->gloo->allreduce(all), all);
  });
}

void Group::sum(std::span<double> figures) {
  sum(torch::from_blob(figures.data(), {static_cast<int64_t>(figures.size())}, torch::kDouble));
}

void Group::least(const torch::Tensor& tensor) {
  exchange([&] {
    std::vector<torch::Tensor> all{tensor};
    c10d::AllreduceOptions options;
    options.reduceOp = c10d::ReduceOp::MIN;
    return std::make_shared<Pending>(processes_->gloo->allreduce(all, options), all);
  });
}

void Group::broadcast(const torch::Tensor& tensor, int from) {
  exchange([&] {
    std::vector<torch::Tensor> all{tensor};
    c10d::BroadcastOptions options;
    options.rootRank = from;
    return std::make_shared<Pending>(processes_->gloo->broadcast(all, options), all);
  });
}

std::shared_ptr<Group::Pending> Group::begin_exchange(const torch::Tensor& parts,
                                                      const torch::Tensor& received) {
  return begin([&] {
    torch::Tensor out = received;
    torch::Tensor in = parts;
    std::vector<int64_t> equal;
    return std::make_shared<Pending>(processes_->gloo->alltoall_base(out, in, equal, equal),
                                     std::vector<torch::Tensor>{out, in});
  });
}

std::vector<torch::Tensor> Group::all_gather(const torch::Tensor& mine) {
  std::vector<std::vector<torch::Tensor>> out(1);
  for (int k = 0; k < place_.size; ++k) out[0].push_back(torch::empty_like(mine));
  exchange([&] {
    std::vector<torch::Tensor> in{mine};
    return std::make_shared<Pending>(processes_->gloo->allgather(out, in), in);
  });
  return out[0];
}

std::vector<torch::Tensor> Group::gather(const torch::Tensor& mine) {
  std::vector<std::vector<torch::Tensor>> out;
  if (is_first()) {
    out.emplace_back();
    for (int k = 0; k < place_.size; ++k) out[0].push_back(torch::empty_like(mine));
  }
  exchange([&] {
    std::vector<torch::Tensor> in{mine};
    return std::make_shared<Pending>(processes_->gloo->gather(out, in), in);
  });
  return is_first() ? out[0] : std::vector<torch::Tensor>();
}

void Group::scatter(const std::vector<torch::Tensor>& parts, const torch::Tensor& mine) {
  exchange([&] {
    std::vector<torch::Tensor> out{mine};
    std::vector<std::vector<torch::Tensor>> in;
    if (is_first()) in.push_back(parts);
    return std::make_shared<Pending>(processes_->gloo->scatter(out, in), out);
  });
}

void Group::put(const std::string& key, const std::string& value) {
  if (!link_->put(key, value)) throw GroupError(ErrorKind::io, link_->failure());
}

std::string Group::get(const std::string& key) {
  if (auto value = link_->wait_for(key, stop())) return std::move(*value);
  fail_ended();
}

void Group::fail_ended() const {
  if (const std::string why = link_->failure(); !why.empty()) throw GroupError(ErrorKind::io, why);
  throw Error(ErrorKind::interrupted, "interrupted");
}

void Group::meet(const std::string& name) {
  put(fmt::format("meet/{}/{}", name, place_.rank), "1");
  if (is_first()) {
    for (int k = 1; k < place_.size; ++k) get(fmt::format("meet/{}/{}", name, k));
    put("met/" + name, "1");
  } else {
    get("met/" + name);
  }
}

std::string Group::share(const std::string& name, const std::string& text) {
  if (is_first()) {
    put("text/" + name, text);
    return text;
  }
  return get("text/" + name);
}

uint64_t Group::take(const std::string& name) {
  if (const auto number = link_->take("take/" + name, stop())) return *number;
  fail_ended();
}

void Group::require_same(const std::string& what, const nlohmann::json& mine) {
  const std::string name = fmt::format("same/{}", comparisons_++);
  const std::string text = mine.dump();
  if (const std::string first = share(name, text); first != text)
    graft::fail(ErrorKind::input,
                "{} differ from those of rank 0 ({}); start all processes with the same command on "
                "the same data",
                what, json_difference(mine, nlohmann::json::parse(first)));
  meet(name);
}

std::exception_ptr Group::fail(std::exception_ptr error) {
  if (state_ == State::left) return error;
  state_ = State::broken;
  std::string why = "unknown error";
  bool own = true;  // else a consequence of what happened elsewhere
  try {
    std::rethrow_exception(error);
  } catch (const GroupError&) {
    own = false;
  } catch (const Error& caught) {
    why = caught.what();
    own = caught.kind() != ErrorKind::interrupted || why != "interrupted";
  } catch (const std::bad_alloc&) {
    why = "out of memory";
  } catch (const std::exception& caught) {
    why = first_line(caught);
    own = link_->failure().empty();
  }
  const std::string known = link_->failure();
  if (known.empty()) link_->end(fmt::format("{}: {}", name_of(rank()), why));
  if (is_first())
    link_->linger();
  else if (link_->first_answers())
    return nullptr;
  return own || known.empty() ? error : std::make_exception_ptr(GroupError(ErrorKind::io, known));
}

int run_in_group(const GroupPlace& place, const RunContext& context,
                 const std::function<int(Group*)>& work) {
  if (place.size <= 1) return work(nullptr);
  std::optional<Group> group;
  try {
    group.emplace(place, context);
  } catch (const GroupError&) {
    if (place.rank == 0) throw;
    return 1;  // rank 0 says why
  }
  try {
    const int code = work(&*group);
    group->leave();
    return code;
  } catch (...) {
    if (const std::exception_ptr error = group->fail(std::current_exception()))
      std::rethrow_exception(error);
    return 1;
  }
}

}  // namespace graft
