// Processes that train together: sums and copies of tensors between them, and who is still there.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "graft/context.h"
#include "graft/error.h"
#include "graft/group.h"

namespace graft {

class GroupLink;

/// The group has come to its end: what() names the process that has died, hangs or failed.
class GroupError : public Error {
 public:
  using Error::Error;
};

/// LibTorch's Gloo for the tensors, its TCPStore, in rank 0, for all else: every process says
/// several times a second that it is alive and how many exchanges it has begun. One that is not
/// heard of any more, or does not come to an exchange in which the others wait, ends the group.
///
/// All processes call the same functions in the same order. Not thread-safe. All throw GroupError;
/// afterwards nothing but fail() works.
class Group {
 public:
  /// Joins the others. Throws Error(io) that names those that are missing after the timeout.
  Group(const GroupPlace& place, const RunContext& context);
  /// Leaves, where that has not been done.
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  [[nodiscard]] const GroupPlace& place() const { return place_; }
  [[nodiscard]] int rank() const { return place_.rank; }
  [[nodiscard]] int size() const { return place_.size; }
  [[nodiscard]] bool is_first() const { return place_.rank == 0; }

  /// The sum over all ranks, in all of them the same to the bit. Contiguous tensors on the CPU.
  void sum(const torch::Tensor& tensor);
  void sum(std::span<double> figures);
  /// The least value over all ranks, element by element, in all of them.
  void least(const torch::Tensor& tensor);
  /// Of one rank.
  void broadcast(const torch::Tensor& tensor, int from = 0);

  /// An exchange that runs while this thread does something else. The tensor must not be touched
  /// before wait().
  class Pending;
  /// The r-th of `parts`' rows goes to rank r; row r of `received`, of the same shape, comes from
  /// rank r.
  [[nodiscard]] std::shared_ptr<Pending> begin_exchange(const torch::Tensor& parts,
                                                        const torch::Tensor& received);
  void wait(Pending& pending);

  /// Tensors of one size: rank r's is the r-th.
  [[nodiscard]] std::vector<torch::Tensor> all_gather(const torch::Tensor& mine);
  /// The same in rank 0; nothing in the others.
  [[nodiscard]] std::vector<torch::Tensor> gather(const torch::Tensor& mine);
  /// Rank 0's `parts[r]` into rank r's `mine`.
  void scatter(const std::vector<torch::Tensor>& parts, const torch::Tensor& mine);

  /// Waits for all ranks, however long their work takes, as long as they are alive. A name is used
  /// once.
  void meet(const std::string& name);
  /// Rank 0's text in all ranks; waits as meet() does.
  [[nodiscard]] std::string share(const std::string& name, const std::string& text);
  /// The next number, from 0, that no rank has had: whoever is faster has more of them. Of one name
  /// one thread of each process may ask, whatever its other threads do.
  [[nodiscard]] uint64_t take(const std::string& name);
  /// Throws in all ranks where one has another object than rank 0, and says in what it differs.
  /// `what`: "its images".
  void require_same(const std::string& what, const nlohmann::json& mine);

  /// The work that is done together is over; waits for all.
  void leave();

  /// Asks for a stop where the context does and where the group has ended.
  [[nodiscard]] std::stop_token stop() const;

  /// This process has failed: tells the others. What is to be thrown in rank 0; in another rank
  /// null where rank 0 says it.
  std::exception_ptr fail(std::exception_ptr error);

 private:
  struct Processes;

  static void keep_for_ever(std::unique_ptr<Processes> processes);
  [[nodiscard]] std::string name_of(int rank) const;
  void put(const std::string& key, const std::string& value);
  std::string get(const std::string& key);
  [[noreturn]] void fail_ended() const;
  [[noreturn]] void broken(const std::string& why);
  template <typename Begin>
  std::shared_ptr<Pending> begin(const Begin& exchange);
  template <typename Begin>
  void exchange(const Begin& exchange);

  GroupPlace place_;
  std::shared_ptr<GroupLink> link_;
  std::unique_ptr<Processes> processes_;
  std::stop_callback<std::function<void()>> stop_with_context_;
  uint64_t comparisons_ = 0;
  enum class State { joined, left, broken } state_ = State::joined;
};

}  // namespace graft
