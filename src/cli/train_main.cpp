// The program `graft-train`, which `graft train` becomes: the whole of training. Commands that
// compute on a device become it too.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <optional>
#include <set>
#include <string_view>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "cli/live_view.h"
#include "cli/option_flags.h"
#include "cli/plan_lines.h"
#include "cli/signals.h"
#include "cli/status_stream.h"
#include "cli/train_options.h"
#include "cli/training_program.h"
#include "graft/dashboard.h"
#include "graft/group.h"
#include "graft/train.h"

namespace graft::cli {
namespace {

/// What is told to one is told to the other too.
class TwoReporters : public Reporter {
 public:
  TwoReporters(Reporter* first, Reporter* second) : first_(first), second_(second) {}
  void message(Severity severity, std::string_view text) override {
    if (first_ != nullptr) first_->message(severity, text);
    second_->message(severity, text);
  }
  void progress(const ProgressUpdate& update) override {
    if (first_ != nullptr) first_->progress(update);
    second_->progress(update);
  }

 private:
  Reporter* first_;
  Reporter* second_;
};

/// The share of right answers, and how much that is worth.
std::string accuracy_text(const nlohmann::json& metrics) {
  const auto images = metrics["images"].get<int64_t>();
  const auto& interval = metrics["intervals"]["top1"];
  return fmt::format("{:.4f} ({} image{}, 95 % between {:.4f} and {:.4f})",
                     metrics["top1"].get<double>(), images, images == 1 ? "" : "s",
                     interval[0].get<double>(), interval[1].get<double>());
}

/// --find-lr: a table and a chart in the run folder, and a suggestion.
int find_lr(const TrainOptions& o, const TrainPlan& plan, const fs::path& folder,
            const RunContext& context) {
  const std::vector<RatePoint> points =
      find_learning_rate(plan, folder, {.replace = o.force}, context);
  const std::optional<double> rate = suggested_rate(points);
  if (o.json) {
    nlohmann::json rows = nlohmann::json::array();
    for (const RatePoint& point : points) rows.push_back({point.rate, point.loss});
    print_json({{"suggested_lr", rate ? nlohmann::json(*rate) : nlohmann::json()},
                {"points", rows},
                {"run", folder.string()}});
    return 0;
  }
  print_result("{}\nplot: {}\n",
               rate ? fmt::format("suggested: --lr {:.2g}", *rate)
                    : "no suggestion: the loss fell at no rate",
               printable(folder / run_files::kRateChart));
  return 0;
}

/// A folder under runs/ that was made for this run; removed again where nothing was written.
class NewFolder {
 public:
  explicit NewFolder(const TrainOptions& o) {
    // Another process may make one of the same second.
    do {
      path_ = new_run_folder(o);
      make_folder(path_.parent_path());
    } while (::mkdir(path_.c_str(), 0777) != 0 && errno == EEXIST);
  }
  ~NewFolder() { ::rmdir(path_.c_str()); }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// What a person is shown before training begins, as events.
void tell_plan(StatusStream& status, const TrainPlan& plan, const std::string& about,
               const fs::path& folder, const std::string& note) {
  status.plan(class_table(plan.dataset) + "\n" + about, folder);
  if (!note.empty()) status.message(Severity::note, note);
  for (const std::string& text : plan.dataset.notes) status.message(Severity::note, text);
}

/// The plan, and who carries it out.
std::string whole_plan_text(const TrainPlan& plan, const GroupPlace& place, int threads) {
  if (place.size <= 1) return plan_text(plan);
  return plan_text(plan) +
         fmt::format(
             "group      {} processes, {} thread{} in this one; each takes 1/{} of every "
             "batch and of the optimiser's state\n",
             place.size, threads, threads == 1 ? "" : "s", place.size);
}

/// Every file that the run left, but for its checkpoints.
void tell_files(const TrainOptions& o, const fs::path& folder) {
  std::error_code none;
  for (const char* file :
       {run_files::kConfig, run_files::kCorrections, run_files::kSplit, run_files::kLearnedBefore,
        run_files::kModel, run_files::kHistory, run_files::kMetrics, run_files::kPredictions,
        run_files::kTimes, run_files::kSkipped})
    if (fs::exists(folder / file, none)) tell_wrote(o.common, folder / file);
  // One that was there before is the person's.
  if (o.config_of_run.check_labels && fs::exists(folder / run_files::kReview, none))
    tell_wrote(o.common, folder / run_files::kReview);
  if (!o.config_of_run.no_report && fs::exists(folder / run_files::kReport, none))
    tell_wrote(o.common, folder / run_files::kReport);
  std::set<fs::path> events;  // of a run that was resumed there are several
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, none))
    if (entry.path().filename().string().starts_with(run_files::kEvents))
      events.insert(entry.path());
  for (const fs::path& file : events) tell_wrote(o.common, file);
}

/// A process of a group that is not rank 0: it trains, and is silent.
int follow(const TrainOptions& o, Group* group) {
  const TrainPlan plan = make_plan(o);
  set_training_threads(threads_within_limits(o.common.thread_count(), plan).threads);
  if (!address_space_is_scarce()) keep_freed_memory();
  const fs::path folder = o.resume.empty() ? o.output : o.resume;
  const RunOptions options{
      .replace = o.force, .group = group, .compression = o.config_of_run.compression};
  const RunContext context = o.common.context();
  static_cast<void>(o.resume.empty() ? train(plan, folder, options, context)
                                     : resume(plan, folder, options, context));
  return 0;
}

int run(const TrainOptions& given, Group* group) {
  TrainOptions o = given;
  std::shared_ptr<StatusStream> status;
  if (o.status_fd >= 0) {
    status = std::make_shared<StatusStream>(o.status_fd);
    o.common.report_to(status);
  }
  const TrainPlan plan = make_plan(o);
  const ThreadLimit limit = threads_within_limits(given.common.thread_count(), plan);
  o.common.threads = limit.threads;
  RunContext context = o.common.context();
  std::optional<NewFolder> made;
  if (o.resume.empty() && o.output.empty()) made.emplace(o);
  const fs::path folder = made ? made->path() : run_folder(o);
  const std::string text = whole_plan_text(plan, o.place, o.common.thread_count());
  if (status) {
    tell_plan(*status, plan, text, folder, limit.note);
  } else if (!limit.note.empty()) {
    print_diagnostic("graft: {}\n", limit.note);
  }
  if (!o.common.quiet && !status) {
    const PlanLines lines = plan_lines(STDERR_FILENO, plan, text, folder);
    print_diagnostic("{}\n{}{}{}\n", lines.classes, lines.plan, lines.notes, lines.run);
  }
  set_training_threads(o.common.threads);
  // What is kept lies in pieces, and large buffers of later stages do not fit between them.
  if (!address_space_is_scarce()) keep_freed_memory();
  if (o.common.verbose) print_diagnostic("{}\n", training_backend());

  RunOptions options{.replace = o.force,
                     .report = !o.config_of_run.no_report,
                     .check_labels = o.config_of_run.check_labels};
  options.group = group;
  options.compression = o.config_of_run.compression;
  std::optional<Dashboard> dashboard;  // first, since its port may be taken
  std::optional<TwoReporters> both;
  if (o.dashboard > 0) {
    dashboard.emplace(o.dashboard,
                      fmt::format("{} on {}", plan.network.backbone, printable(o.data)), folder,
                      plan.phases);
    dashboard->expect(plan);
    options.observers.push_back(&*dashboard);
    context.reporter = &both.emplace(context.reporter, &*dashboard);
    if (!o.common.quiet) print_diagnostic("dashboard  http://127.0.0.1:{}/\n\n", o.dashboard);
  }
  if (o.find_lr) return find_lr(o, plan, folder, context);
  LiveView view(status ? Verbosity::quiet : o.common.verbosity());
  options.observers.push_back(&view);
  if (status) options.observers.push_back(status.get());
  Run done;
  try {
    done = o.resume.empty() ? train(plan, folder, options, context)
                            : resume(plan, folder, options, context);
  } catch (const Error& error) {
    // Between epochs' states: while images are read, or in the evaluation at the end.
    std::error_code none;
    if (error.kind() != ErrorKind::interrupted || std::string_view(error.what()) != "interrupted" ||
        interrupting_signal() == 0 || !fs::exists(folder / run_files::kConfig, none))
      throw;
    fail(ErrorKind::interrupted, "{}; 'graft train DATA --resume {}' goes on", interruption_text(),
         printable(folder));
  }
  const int code = done.test_is_whole ? 0 : 1;
  tell_files(o, folder);
  nlohmann::json metrics = nlohmann::json::parse(done.metrics);
  if (o.json) {
    metrics["run"] = folder.string();
    print_json(metrics);
    return code;
  }
  print_result("best epoch {} of {}{}\n", done.best_epoch, done.history.size(),
               done.stopped_early ? " (stopped early)" : "");
  print_result("validation accuracy {}\n", accuracy_text(metrics["validation"]));
  if (metrics.contains("test")) print_result("test accuracy {}\n", accuracy_text(metrics["test"]));
  if (done.doubtful_labels)
    print_result("labels that are probably wrong: {} ({})\n", *done.doubtful_labels,
                 printable(folder / run_files::kReview));
  print_result("model: {}\n", printable(done.model()));
  if (options.report) print_result("report: {}\n", printable(folder / run_files::kReport));
  return code;
}

int run_alone_or_in_group(const TrainOptions& given) {
  TrainOptions o = given;
  if (o.place.rank > 0) o.common.report_to(std::make_shared<Reporter>());
  try {
    const int code = run_in_group(o.place, o.common.context(), [&](Group* group) {
      return o.place.rank > 0 ? follow(o, group) : run(o, group);
    });
    // Rank 0 has said what happened.
    return code != 0 && interrupting_signal() != 0 ? 128 + interrupting_signal() : code;
  } catch (const Error& error) {
    // By a signal that another process of the group got.
    if (error.kind() != ErrorKind::interrupted || interrupting_signal() != 0) throw;
    throw Error(ErrorKind::io, error.what());
  }
}

/// For commands that `graft` hands over.
std::shared_ptr<const ComputeDevice> open_here(const std::string& name,
                                               const CommonOptions& common) {
  set_training_threads(common.thread_count());
  std::shared_ptr<const ComputeDevice> device = open_device(name, group_rank().local_rank);
  if (common.verbose)
    print_diagnostic("{}, device {}\n", training_backend(), device_name(device.get()));
  return device;
}

/// The command that it was, where that is not `train`; else null.
decltype(&run_predict_on) handed_over(std::string_view name) {
  if (name == "predict") return run_predict_on;
  if (name == "evaluate") return run_evaluate_on;
  if (name == "features") return run_features_on;
  return nullptr;
}

}  // namespace
}  // namespace graft::cli

int main(int argc, char** argv) {
  graft::prepare_standard_streams();
  graft::cli::install_signal_handlers();
  if (const auto command = graft::cli::handed_over(argc > 0 ? argv[0] : ""))
    return command(graft::cli::open_here, argc, argv);
  bool in_group = false;
  const int code =
      graft::cli::run_train_app(argc, argv, [&](const graft::cli::TrainOptions& options) {
        in_group = options.place.size > 1;
        return graft::cli::run_alone_or_in_group(options);
      });
  // Threads of a group that broke may wait for the network still.
  if (in_group && code != 0) {
    std::fflush(nullptr);
    ::_exit(code);
  }
  return code;
}
