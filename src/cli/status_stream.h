// --status-fd: what a command does, as JSON lines on a file descriptor, for a program that started
// it. docs/formats.md has the events.
#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "cli/common.h"
#include "graft/train.h"

namespace graft::cli {

/// Writes an event for all that the library tells and that training does. Where nobody reads any
/// more the work is asked to stop, as by a signal: whoever started it has gone.
class StatusStream : public Reporter, public TrainObserver {
 public:
  explicit StatusStream(int fd);
  /// What is going to be done, for reading, and where.
  void plan(const std::string& text, const std::filesystem::path& folder);
  void message(Severity severity, std::string_view text) override;
  void progress(const ProgressUpdate& update) override;
  void past_epoch(const EpochRecord& record, bool best) override;
  void begin(int epochs) override;
  void step(const EpochProgress& progress) override;
  void epoch(const EpochRecord& record, bool best) override;

 private:
  using Clock = std::chrono::steady_clock;
  void write(const nlohmann::json& event);
  bool due();

  int fd_;
  bool failed_ = false;
  std::mutex mutex_;  // guards what follows, and keeps lines whole
  Clock::time_point last_;
};

/// Calls `body`; what it throws is an event too, with the kind of the error, before it goes on. No
/// descriptor (-1): no event.
int reporting_errors(int fd, const std::function<int()>& body);

/// Adds --status-fd.
void add_status_option(CLI::App& app, int& fd);

}  // namespace graft::cli
