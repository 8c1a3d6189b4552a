#include "cli/status_stream.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <limits>
#include <new>

#include "base/diagnostics.h"
#include "base/limits.h"
#include "cli/numbers.h"
#include "cli/signals.h"

namespace graft::cli {
namespace {

constexpr std::array<const char*, 4> kSeverities = {"detail", "info", "note", "warning"};
constexpr std::array<const char*, 5> kKinds = {"usage", "input", "io", "memory", "interrupted"};
// Often enough for a bar to move.
constexpr std::chrono::milliseconds kBetweenSteps{100};

/// Whether the whole line went out.
bool write_line(int fd, const nlohmann::json& event) {
  const std::string line =
      event.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

/// JSON has no numbers that are not finite.
nlohmann::json number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

nlohmann::json epoch_event(const EpochRecord& r, bool best, bool past) {
  return {{"event", "epoch"},
          {"epoch", r.epoch},
          {"loss", number(r.loss)},
          {"accuracy", number(r.accuracy)},
          {"val_loss", number(r.val_loss)},
          {"val_accuracy", number(r.val_accuracy)},
          {"learning_rate", number(r.learning_rate)},
          {"seconds", number(r.seconds)},
          {"best", best},
          {"past", past}};
}

void write_error(int fd, ErrorKind kind, std::string_view text) {
  write_line(fd,
             {{"event", "error"}, {"kind", kKinds.at(static_cast<size_t>(kind))}, {"text", text}});
}

}  // namespace

StatusStream::StatusStream(int fd) : fd_(fd) {}

void StatusStream::write(const nlohmann::json& event) {
  const std::lock_guard lock(mutex_);
  if (failed_ || write_line(fd_, event)) return;
  failed_ = true;
  const int error = errno;
  if (error == EPIPE)
    request_stop();  // nobody reads any more
  else
    print_diagnostic("graft: --status-fd {}: {}; going on without it\n", fd_,
                     system_error_text(error));
}

bool StatusStream::due() {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (now - last_ < kBetweenSteps) return false;
  last_ = now;
  return true;
}

void StatusStream::plan(const std::string& text, const std::filesystem::path& folder) {
  write({{"event", "plan"}, {"text", text}, {"run", folder.string()}});
}

void StatusStream::message(Severity severity, std::string_view text) {
  write({{"event", "message"},
         {"severity", kSeverities.at(static_cast<size_t>(severity))},
         {"text", text}});
}

void StatusStream::progress(const ProgressUpdate& u) {
  if (!u.ended && !due()) return;
  write({{"event", "progress"},
         {"task", u.task},
         {"unit", u.unit},
         {"done", u.done},
         {"total", u.total},
         {"extra", u.extra},
         {"ended", u.ended}});
}

void StatusStream::past_epoch(const EpochRecord& record, bool best) {
  write(epoch_event(record, best, true));
}

void StatusStream::begin(int epochs) { write({{"event", "begin"}, {"epochs", epochs}}); }

void StatusStream::step(const EpochProgress& p) {
  if (p.done < p.images && !due()) return;
  write({{"event", "step"},
         {"epoch", p.epoch},
         {"epochs", p.epochs},
         {"done", p.done},
         {"images", p.images},
         {"loss", number(p.loss)},
         {"accuracy", number(p.accuracy)}});
}

void StatusStream::epoch(const EpochRecord& record, bool best) {
  write(epoch_event(record, best, false));
}

int reporting_errors(int fd, const std::function<int()>& body) {
  if (fd < 0) return body();
  try {
    return body();
  } catch (const Error& error) {
    write_error(fd, error.kind(), error.what());
    throw;
  } catch (const std::bad_alloc&) {
    write_error(fd, ErrorKind::memory, "out of memory");
    throw;
  }
}

void add_status_option(CLI::App& app, int& fd) {
  app.add_option("--status-fd", fd,
                 "For programs that start this one: messages, progress and errors as JSON lines on "
                 "this open file descriptor, in place of text on standard error")
      ->check(whole_number(0, std::numeric_limits<int>::max()))
      ->check(CLI::Validator(
          [](const std::string& text) {
            const int flags = ::fcntl(std::stoi(text), F_GETFL);
            return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY
                       ? std::string()
                       : "'" + text + "' is no file descriptor that is open for writing";
          },
          ""))
      ->type_name("N");
}

}  // namespace graft::cli
