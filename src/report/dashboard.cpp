#include "graft/dashboard.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "report/chart.h"
#include "report/epoch_gallery.h"
#include "report/html.h"
#include "report/kept_epoch.h"
#include "report/loopback_server.h"
#include "report/page_files.h"
#include "report/run_forecast.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kThreads = 4;                  // of the server and the gallery
constexpr std::chrono::seconds kWatched{5};  // a page that is open asks each second
constexpr std::chrono::seconds kGoodbye{3};  // for the page to take the report
constexpr std::chrono::milliseconds kLastBytes{100};
constexpr double kLeastSeconds = 0.5;  // before, a rate says nothing

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// The page under a title, which may hold anything, the place holder too.
std::string page_with(const std::string& title) {
  constexpr std::string_view kTitle = "@TITLE@";
  std::string page;
  std::string_view rest = page_files::kDashboard;
  for (size_t at = rest.find(kTitle); at != std::string_view::npos; at = rest.find(kTitle)) {
    page += rest.substr(0, at);
    page += html::escape(title);
    rest.remove_prefix(at + kTitle.size());
  }
  return page.append(rest);
}

/// JSON has no numbers that are not finite.
nlohmann::json number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

nlohmann::json to_json(const EpochRecord& r) {
  return {{"epoch", r.epoch},
          {"loss", number(r.loss)},
          {"accuracy", number(r.accuracy)},
          {"val_loss", number(r.val_loss)},
          {"val_accuracy", number(r.val_accuracy)},
          {"learning_rate", number(r.learning_rate)}};
}

std::string curve(const std::vector<EpochRecord>& history, int epochs, const char* title,
                  const char* y, double EpochRecord::*training,
                  double EpochRecord::*validation = nullptr) {
  Chart chart{title, "epoch", y, false, {{"training", {}}}, {}, {{1, std::max(epochs, 1)}}};
  if (validation != nullptr) chart.series.push_back({"validation", {}});
  for (const EpochRecord& r : history) {
    chart.series[0].points.emplace_back(r.epoch, r.*training);
    if (validation != nullptr) chart.series[1].points.emplace_back(r.epoch, r.*validation);
  }
  return chart_svg(chart);
}

}  // namespace

struct Dashboard::State {
  explicit State(std::filesystem::path run) : gallery(std::move(run)) {}

  std::mutex mutex;  // guards what follows
  Clock::time_point start = Clock::now();
  int epochs = 0;
  std::vector<int> phase_ends;  // the last epoch of each
  std::vector<EpochRecord> history;
  std::optional<EpochRecord> best;
  std::optional<TrainStage> stage;
  Clock::time_point stage_start;
  std::array<std::optional<double>, kTrainStages> stage_seconds;  // of those that are over
  std::optional<EpochProgress> now;
  Clock::time_point epoch_start;
  Clock::time_point phase_start;
  size_t phase_epochs = 0;  // that ended in this phase
  nlohmann::json task;      // of a stage
  Clock::time_point task_start;
  nlohmann::json end;  // of the run
  std::filesystem::path report;
  Clock::time_point asked;  // by a page
  bool goodbye = false;
  std::condition_variable left;  // the page, that is
  std::optional<RunForecast> forecast;
  bool may_stop_early = false;
  double seconds_before = 0;  // of epochs that an earlier part of the run made

  EpochGallery gallery;
  LoopbackServer server;  // last: its threads read the rest

  [[nodiscard]] nlohmann::json document(Clock::time_point at) const;
  [[nodiscard]] int phase_end() const;
  [[nodiscard]] std::optional<double> epoch_seconds(Clock::time_point at) const;
  [[nodiscard]] std::optional<double> seconds_left(Clock::time_point at) const;
  void add_forecast(nlohmann::json& out, Clock::time_point at) const;
  void serve(const std::string& title);
};

/// The last epoch of the phase that trains: epochs of others take another time.
int Dashboard::State::phase_end() const {
  for (const int last : phase_ends)
    if (last > static_cast<int>(history.size())) return last;
  return epochs;
}

/// An epoch of this phase; from those that it has had.
std::optional<double> Dashboard::State::epoch_seconds(Clock::time_point at) const {
  if (stage != TrainStage::training || !now) return std::nullopt;
  if (phase_epochs > 0)
    return seconds_between(phase_start, epoch_start) / static_cast<double>(phase_epochs);
  const double taken = seconds_between(epoch_start, at);
  const double share = static_cast<double>(now->done) / static_cast<double>(now->images);
  if (taken < kLeastSeconds || share <= 0) return std::nullopt;
  return taken / share;
}

/// Of this phase, if all its epochs are made.
std::optional<double> Dashboard::State::seconds_left(Clock::time_point at) const {
  const std::optional<double> each = epoch_seconds(at);
  if (!each) return std::nullopt;
  const double whole = phase_end() - static_cast<double>(history.size());
  return std::max(0.0, whole * *each - seconds_between(epoch_start, at));
}

/// Share and time left of the whole run, and how far its stage has come with all its views.
void Dashboard::State::add_forecast(nlohmann::json& out, Clock::time_point at) const {
  constexpr double kNotYet = 0.99;  // a run that goes on is not called over
  const auto made = static_cast<int>(history.size());
  const std::optional<double> seconds =
      forecast->seconds_left(made, seconds_left(at), epoch_seconds(at));
  out.erase("left");
  out["later"] = 0;
  out["share"] = end.is_null() ? 0 : 1;
  if (seconds && end.is_null()) {
    const double before = seconds_before + seconds_between(start, at);
    out["left"] = *seconds;
    out["share"] = std::min(kNotYet, before / std::max(before + *seconds, kLeastSeconds));
  }
  if (const double total = forecast->total(made); total > 0 && !task.is_null()) {
    out["work"] = {{"done", std::min(forecast->done(), total)}, {"total", total}};
    if (const std::optional<double> rest = forecast->stage_seconds_left(made))
      out["work"]["left"] = *rest;
  }
}

nlohmann::json Dashboard::State::document(Clock::time_point at) const {
  nlohmann::json out = {{"epochs", epochs},
                        {"seconds", seconds_between(start, at)},
                        {"stage", stage ? nlohmann::json(to_string(*stage)) : nlohmann::json()},
                        {"stages", nlohmann::json::object()},
                        {"history", nlohmann::json::array()},
                        {"task", task},
                        {"share", 0},
                        {"finished", end},
                        {"gallery", gallery.version()}};
  for (const EpochRecord& r : history) out["history"].push_back(to_json(r));
  if (best) {
    out["best"] = to_json(*best);
    out["best"]["why"] = why_kept(history, best->epoch);
  }
  for (size_t k = 0; k < kTrainStages; ++k) {
    const bool current = end.is_null() && stage && k == static_cast<size_t>(*stage);
    if (!stage_seconds.at(k) && !current) continue;
    out["stages"][std::string(to_string(static_cast<TrainStage>(k)))] =
        stage_seconds.at(k).value_or(0) + (current ? seconds_between(stage_start, at) : 0);
  }
  if (!task.is_null()) out["task"]["seconds"] = seconds_between(task_start, at);
  double done = static_cast<double>(history.size());
  if (now) {
    out["now"] = {{"epoch", now->epoch},
                  {"done", now->done},
                  {"images", now->images},
                  {"loss", number(now->loss)},
                  {"accuracy", number(now->accuracy)},
                  {"seconds", seconds_between(epoch_start, at)}};
    if (static_cast<size_t>(now->epoch) > history.size() && now->images > 0)
      done += static_cast<double>(now->done) / static_cast<double>(now->images);
  }
  if (stage == TrainStage::evaluation || stage == TrainStage::report)
    out["share"] = 1;
  else if (epochs > 0)
    out["share"] = std::min(1.0, done / epochs);
  if (const std::optional<double> seconds = seconds_left(at)) out["left"] = *seconds;
  out["later"] = std::max(0, epochs - phase_end());  // epochs of other phases
  out["may_stop_early"] = may_stop_early;
  if (forecast) add_forecast(out, at);
  return out;
}

void Dashboard::State::serve(const std::string& title) {
  const auto add = [this](const char* path, const char* type, auto answer) {
    server.Get(path, [type, answer](const httplib::Request&, httplib::Response& reply) {
      reply.set_header("Cache-Control", "no-store");
      // Pages of others get neither text nor photos.
      reply.set_header("Cross-Origin-Resource-Policy", "same-origin");
      reply.set_header("X-Content-Type-Options", "nosniff");
      reply.set_content(answer(), type);
    });
  };
  // The report, which this page opens, has its script in it.
  const std::string policy =
      "default-src 'none'; script-src 'self' " + html::script_source() +
      "; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; "
      "form-action 'none'; frame-ancestors 'none'";
  server.Get("/",
             [policy, page = page_with(title)](const httplib::Request&, httplib::Response& reply) {
               reply.set_header("Content-Security-Policy", policy);
               reply.set_content(page, "text/html; charset=utf-8");
             });
  add("/dashboard.css", "text/css; charset=utf-8",
      [] { return std::string(html::style()) + std::string(page_files::kDashboardStyle); });
  add("/dashboard.js", "text/javascript; charset=utf-8",
      [] { return std::string(page_files::kDashboardScript); });
  add("/run.json", "application/json", [this] {
    gallery.watched();
    const std::lock_guard lock(mutex);
    asked = Clock::now();
    return document(asked).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  });
  add("/curves", "text/html; charset=utf-8", [this] {
    const std::lock_guard lock(mutex);
    return curve(history, epochs, "Loss", "cross-entropy", &EpochRecord::loss,
                 &EpochRecord::val_loss) +
           curve(history, epochs, "Accuracy", "top-1", &EpochRecord::accuracy,
                 &EpochRecord::val_accuracy) +
           curve(history, epochs, "Learning rate", "rate", &EpochRecord::learning_rate);
  });
  add("/mistakes", "text/html; charset=utf-8", [this] { return gallery.page(); });
  add("/report.html", "text/html; charset=utf-8", [this] {
    std::filesystem::path file;
    {
      const std::lock_guard lock(mutex);
      file = report;
    }
    return file.empty() ? std::string("no report") : read_text_file(file);
  });
  add("/goodbye", "text/plain; charset=utf-8", [this] {
    const std::lock_guard lock(mutex);
    goodbye = true;
    left.notify_all();
    return std::string("goodbye");
  });
}

Dashboard::Dashboard(int port, const std::string& title, std::filesystem::path run,
                     const std::vector<TrainPhase>& phases) {
  constexpr int kMaxPort = 65'535;
  if (port < 1 || port > kMaxPort)
    fail(ErrorKind::usage, "`dashboard`: port {} is not from 1 to {}", port, kMaxPort);
  if (startable_threads(kThreads) < kThreads)
    fail(ErrorKind::io,
         "`dashboard`: the limit on processes (ulimit -u, or a control group's) leaves no threads "
         "for it; raise the limit, or leave it out");
  state_ = std::make_unique<State>(std::move(run));
  for (const TrainPhase& phase : phases)
    state_->phase_ends.push_back(state_->epochs += phase.epochs);
  state_->serve(title);
  if (!state_->server.start(port))
    fail(ErrorKind::io, "`dashboard`: port {} of 127.0.0.1 cannot be had; choose another", port);
}

void Dashboard::expect(const TrainPlan& plan) {
  const std::lock_guard lock(state_->mutex);
  state_->forecast.emplace(planned_work(plan));
  state_->may_stop_early = plan.recipe.optimization.patience.value_or(0) > 0;
}

Dashboard::~Dashboard() {
  std::unique_lock lock(state_->mutex);
  if (state_->end.is_null() || Clock::now() - state_->asked > kWatched) return;
  if (!state_->left.wait_for(lock, kGoodbye, [&] { return state_->goodbye; })) return;
  lock.unlock();
  std::this_thread::sleep_for(kLastBytes);  // the answer to that
}

void Dashboard::past_epoch(const EpochRecord& record, bool best) {
  const std::lock_guard lock(state_->mutex);
  state_->history.push_back(record);
  state_->seconds_before += record.seconds;
  if (best) state_->best = record;
}

void Dashboard::begin(int epochs) {
  const std::lock_guard lock(state_->mutex);
  state_->epochs = epochs;
  state_->phase_epochs = 0;
  state_->now.reset();
  state_->phase_start = state_->epoch_start = Clock::now();
}

void Dashboard::step(const EpochProgress& p) {
  const std::lock_guard lock(state_->mutex);
  state_->now = p;
}

void Dashboard::epoch(const EpochRecord& record, bool best) {
  const std::lock_guard lock(state_->mutex);
  state_->history.push_back(record);
  if (best) state_->best = record;
  ++state_->phase_epochs;
  state_->epoch_start = Clock::now();
}

void Dashboard::mistakes(int epoch, const std::vector<EpochMistake>& worst) {
  state_->gallery.show(epoch, worst);
  const std::lock_guard lock(state_->mutex);
  state_->epoch_start = Clock::now();  // files are written
}

void Dashboard::stage(TrainStage stage) {
  const std::lock_guard lock(state_->mutex);
  State& s = *state_;
  const auto now = Clock::now();
  if (s.stage) {
    std::optional<double>& before = s.stage_seconds.at(static_cast<size_t>(*s.stage));
    before = before.value_or(0) + seconds_between(s.stage_start, now);
  }
  s.stage = stage;
  s.stage_start = now;
  s.task = nullptr;
  if (s.forecast) s.forecast->stage(stage, static_cast<int>(s.history.size()));
}

void Dashboard::finished(const Run& run) {
  const std::lock_guard lock(state_->mutex);
  State& s = *state_;
  if (s.stage) {
    std::optional<double>& before = s.stage_seconds.at(static_cast<size_t>(*s.stage));
    before = before.value_or(0) + seconds_between(s.stage_start, Clock::now());
  }
  std::error_code error;
  const std::filesystem::path report = run.folder / run_files::kReport;
  if (s.stage == TrainStage::report && std::filesystem::exists(report, error)) s.report = report;
  s.end = {{"report", !s.report.empty()},
           {"path", printable(s.report.empty() ? run.folder : s.report)},
           {"best_epoch", run.best_epoch},
           {"test_accuracy", run.test ? number(run.test->top1) : nlohmann::json()}};
}

void Dashboard::progress(const ProgressUpdate& u) {
  const std::lock_guard lock(state_->mutex);
  State& s = *state_;
  if (s.task.is_null() || s.task["task"] != u.task) s.task_start = Clock::now();
  if (s.forecast) s.forecast->progress(u, Clock::now());
  s.task = {{"task", u.task}, {"unit", u.unit}, {"done", u.done}, {"total", u.total}};
}

}  // namespace graft
