// The curves of a run, live in a browser on the same machine.
#pragma once

#include <memory>

#include "graft/train.h"

#pragma GCC visibility push(default)
namespace graft {

/// Serves http://127.0.0.1:<port>/ on threads of its own while it lives: a page that asks for
/// /run.json every second. Only requests that name the loopback address are answered.
class Dashboard : public TrainObserver {
 public:
  /// Throws Error(io) if the port cannot be had. `title` stands on the page.
  Dashboard(int port, const std::string& title);
  ~Dashboard() override;
  Dashboard(const Dashboard&) = delete;
  Dashboard& operator=(const Dashboard&) = delete;

  void past_epoch(const EpochRecord& record, bool best) override;
  void begin(int epochs) override;
  void step(const EpochProgress& progress) override;
  void epoch(const EpochRecord& record, bool best) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
#pragma GCC visibility pop
