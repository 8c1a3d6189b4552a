#include "cli/train_options.h"

#include <algorithm>
#include <ctime>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/numbers.h"
#include "cli/option_flags.h"
#include "cli/status_stream.h"
#include "cli/workers.h"
#include "graft/classifier.h"
#include "graft/labels.h"
#include "recipe/options_file.h"
#include "recipe/options_text.h"

namespace graft::cli {
namespace {

using options::Flag;
using options::Number;
using options::OptionGroup;
using options::PathText;
using options::WholeNumber;

/// What a file of options may hold beside a run's configuration.
template <typename Visitor>
void visit_own_options(Visitor&& visit, TrainOptions& o) {
  using G = OptionGroup;
  visit({.name = "output",
         .value = "RUN",
         .help = "The run folder to make (default: runs/<data>-<time>)",
         .group = G::common,
         .letter = 'o'},
        o.output, PathText{});
  visit({"force", "", "Train into a run folder that exists, replacing its files", G::run, true},
        o.force, Flag{});
  visit({"json", "", "The final metrics as one JSON document on stdout", G::run, true}, o.json,
        Flag{});
  visit({"quiet", "", "Print results and errors only", G::run, true}, o.common.quiet, Flag{});
  visit({"verbose", "", "Print more about what is done", G::run, true}, o.common.verbose, Flag{});
  visit({"threads", "N", "Threads to use (default: the processors that this process may use)",
         G::machine, true, false},
        o.common.threads, WholeNumber{1, kMostThreads});
}

template <typename Visitor>
void visit_all(Visitor&& visit, TrainOptions& o) {
  visit_own_options(visit, o);
  visit_run_config(visit, o.config_of_run);
}

void add_options(CLI::App& app, TrainOptions& o) {
  app.add_option(
         "DATA", o.data,
         "A folder of class folders; one with train/ (val/, test/); a zip or tar of one; or a CSV "
         "manifest")
      ->required();
  visit_all(FlagAdder{app}, o);
  const std::string common = group_title(OptionGroup::common);
  const std::string run = group_title(OptionGroup::run);
  std::vector<std::string> recipes = recipe_names();
  recipes.insert(recipes.begin(), "default");
  app.add_option("--recipe", o.recipe_name,
                 fmt::format("Settings to start from: {}", fmt::join(recipes, ", ")))
      ->check(with_choices({[](const std::string&) { return std::string(); }, ""}, recipes))
      ->capture_default_str()
      ->type_name("NAME")
      ->group(common);
  app.add_option("--config", o.config, "A TOML file of options; the command line wins over it")
      ->type_name("FILE")
      ->group(common);
  app.add_option("--resume", o.resume,
                 "Go on with this run from its last whole epoch, with its options; same images")
      ->type_name("RUN")
      ->group(common);
  app.add_option("--from", o.from,
                 "Begin a new run where this one ended: its options, weights, split and head; "
                 "classes that are new get a new output")
      ->type_name("RUN")
      ->group(common);
  app.add_flag("--dry-run", o.dry_run, "Print plan, memory and expected time; train nothing")
      ->group(common);
  app.add_flag("--find-lr", o.find_lr,
               "Learning-rate range test: train at rising rates, plot the loss, suggest --lr")
      ->group(run);
  app.add_option("--dashboard", o.dashboard,
                 "Show the curves live at http://127.0.0.1:PORT/ while training")
      ->check(whole_number(1, 65535))
      ->type_name("PORT")
      ->group(run);
  const std::string machine = group_title(OptionGroup::machine);
  app.add_option("--workers", o.workers,
                 "Processes that train together on this machine, which share the threads")
      ->check(whole_number(1, kMostWorkers))
      ->type_name("N")
      ->group(machine);
  app.add_option("--rendezvous", o.rendezvous,
                 "Where rank 0 of a group that torchrun, srun or mpirun starts is to be found, if "
                 "their variables do not say")
      ->type_name("HOST:PORT")
      ->group(machine);
  add_status_option(app, o.status_fd);
  app.get_option("--status-fd")->group(run);
  app.get_option("--val-split")->excludes(app.get_option("--val"));
  app.get_option("--test-split")->excludes(app.get_option("--test"));
  app.get_option("--workers")->excludes(app.get_option("--rendezvous"));
  app.get_option("--find-lr")->excludes(app.get_option("--workers"));
  app.get_option("--quiet")->excludes(app.get_option("--verbose"));
  app.footer(
      "Examples:\n"
      "  graft train photos/                          head, then the last block of VGG16 too\n"
      "  graft train photos/ --fine-tune 0 -o runs/b  feature extraction: the head alone\n"
      "  graft train photos/ --recipe notebook --backbone vgg19\n"
      "  graft train photos/ --from runs/a            a month later: photos more, a class more\n"
      "  graft train photos/ --backbone vgg19 --weights blocks1-3.h5 \\\n"
      "      --until block3_pool --input-size 150\n"
      "Ctrl-C saves the state in the run folder and exits with 130.");
}

std::unique_ptr<CLI::App> make_app(TrainOptions& options) {
  auto app = std::make_unique<CLI::App>(
      "Trains a classifier on a folder of labelled images by transfer learning.", "graft train");
  add_options(*app, options);
  return app;
}

/// Finds this process's place among others that train with it, and its share of the threads.
void find_place(TrainOptions& o) {
  const bool ours = o.workers > 1 && is_worker_of(o.workers);
  o.place = group_place(o.rendezvous);
  if (o.workers > 1 && !ours && o.place.size > 1)
    fail(ErrorKind::usage,
         "--workers {}: this is process {} of {} already ({}); leave --workers out, or start graft "
         "alone",
         o.workers, o.place.rank, o.place.size, o.place.launcher);
  if (o.place.size <= 1) return;
  if (o.find_lr)
    fail(ErrorKind::usage, "--find-lr is made by one process; this is process {} of {} ({})",
         o.place.rank, o.place.size, o.place.launcher);
  if (ours)
    o.common.threads = std::max(1, o.common.thread_count() / o.workers);
  else if (o.common.threads == 0)
    o.common.threads = o.place.threads_of(o.common.thread_count());
}

/// Options of a file into `o`, but those in `not_these`. Unknown keys are errors.
void merge(TrainOptions& o, const std::vector<options::OptionLine>& lines,
           const std::set<std::string>& not_these) {
  for (const options::OptionLine& line : lines) {
    // DATA is typed anew, wherever it has gone.
    if (not_these.contains(line.key) || line.key == "data") continue;
    bool found = false;
    visit_all(options::OptionReader{line.key, line.value, line.place, &found}, o);
    if (found) continue;
    std::vector<std::string> keys;
    visit_all(options::NameLister{keys}, o);
    fail(ErrorKind::usage,
         "{}: unknown key '{}'{}; keys are train's long options without the dashes", line.place,
         clipped(line.key), did_you_mean(line.key, keys));
  }
}

/// The options that stood on a command line, without dashes.
std::set<std::string> typed_keys(const CLI::App& app) {
  std::set<std::string> keys;
  for (const CLI::Option* option : app.get_options())
    if (option->count() > 0 && !option->get_lnames().empty())
      keys.insert(option->get_lnames().front());
  return keys;
}

/// Of options that exclude each other, the one on the command line puts a configured other out of
/// force.
std::set<std::string> overruled(const std::set<std::string>& typed) {
  std::set<std::string> out;
  for (const auto& [one, other] : {std::pair("val", "val-split"), std::pair("test", "test-split"),
                                   std::pair("quiet", "verbose")}) {
    if (typed.contains(one)) out.insert(other);
    if (typed.contains(other)) out.insert(one);
  }
  return out;
}

/// `from`: the options of an earlier run, beneath those on the command line, and its model to go on
/// from.
void begin_from(TrainOptions& merged, const TrainOptions& typed,
                const std::set<std::string>& keys) {
  for (const char* other : {"config", "recipe", "resume"})
    if (keys.contains(other))
      fail(ErrorKind::usage,
           "--from and --{} exclude each other: a run that begins from another has its options, "
           "but for those on the command line",
           other);
  const fs::path run = typed.from;
  require_reachable(run / run_files::kConfig);
  std::error_code error;
  if (!fs::is_directory(run, error))
    fail(ErrorKind::usage, "--from {}: {}; name a run folder", printable(run),
         fs::exists(run, error) ? "is no folder" : "no such folder");
  if (keys.contains("output") && same_file(run, typed.output))
    fail(ErrorKind::usage,
         "--from and -o name one folder, {}: the run would replace what it begins from",
         printable(run));
  for (const char* file : {run_files::kConfig, run_files::kModel})
    if (!fs::exists(run / file, error))
      fail(ErrorKind::usage, "--from {}: no finished run: it has no {}", printable(run), file);
  std::set<std::string> not_these = overruled(keys);
  // What its weights were made of is no matter of this run, whose weights are the run's own.
  not_these.insert({"weights", "preprocessing", "classes", "head", "split-from"});
  merge(merged, options::read_options_file(run / run_files::kConfig), not_these);
  if (keys.contains("backbone")) {
    const std::string& backbone = typed.config_of_run.recipe.model.backbone;
    const std::string has = read_model_info(run).network.backbone;
    if (backbone != has)
      fail(ErrorKind::usage, "--backbone {}: {} is a model on {}; leave the option out", backbone,
           printable(run), has);
  }
  const std::string whole = fs::absolute(run).lexically_normal().string();
  std::string& corrections = merged.config_of_run.corrections;
  merged.earlier = earlier_corrections(whole);
  if (!keys.contains("corrections")) {
    merged.earlier.both = true;
    // People go on with the file, or put it away: then the run's copy of it is enough.
    if (!corrections.empty() && !fs::exists(corrections, error))
      corrections = merged.earlier.file.string();
  }
  merged.config_of_run.recipe.model.weights = whole;
  merged.config_of_run.recipe.model.head = "keep";
  merged.config_of_run.recipe.data.split_from = whole;
}

/// What an option is in effect, as text.
struct ValueLister {
  std::vector<std::pair<std::string, std::string>>& fixed;
  template <typename T, typename What>
  void operator()(const options::Option& option, T& member, const What&) const {
    if (option.renewable) return;
    std::string text = options::value_text(member);
    if (std::is_same_v<What, PathText> && !text.empty() && fs::exists(text))
      text = fs::weakly_canonical(text).string();
    const bool raw = std::is_same_v<What, Number> || std::is_same_v<What, WholeNumber> ||
                     std::is_same_v<What, Flag>;
    // As a file of options would have it.
    if (!raw && !text.empty()) text = "'" + text + "'";
    fixed.emplace_back(option.name, std::move(text));
  }
};

std::vector<std::pair<std::string, std::string>> fixed_values(TrainOptions o) {
  o.config_of_run.recipe = o.config_of_run.recipe.resolved();
  std::vector<std::pair<std::string, std::string>> out;
  visit_all(ValueLister{out}, o);
  return out;
}

/// Throws Error(input) that names them where options on the command line would change what a run
/// has been made with: a run with a part of it under other options would be neither of the two.
void refuse_changed_options(const std::set<std::string>& typed, const TrainOptions& own,
                            const TrainOptions& merged) {
  const auto before = fixed_values(own);
  const auto after = fixed_values(merged);
  std::vector<std::string> changed;
  for (size_t i = 0; i < before.size(); ++i) {
    const auto& [name, value] = before[i];
    if (!typed.contains(name) || value == after[i].second) continue;
    // A file that has moved is named anew; what it holds is in the run's state or checked there.
    std::error_code error;
    if (name == "weights" && value.starts_with("'/") &&
        !fs::exists(value.substr(1, value.size() - 2), error))
      continue;
    changed.push_back(fmt::format("--{} ({})", name, value.empty() ? "not given" : clipped(value)));
  }
  if (!changed.empty())
    fail(ErrorKind::input,
         "{}: options of a run that is resumed cannot change: {}; leave {} out, or train a run of "
         "its own; --epochs and --patience may be given anew",
         printable(merged.resume), fmt::join(changed, ", "), changed.size() > 1 ? "them" : "it");
}

}  // namespace

int run_train_app(int argc, char** argv, const std::function<int(const TrainOptions&)>& run) {
  // First the command line alone: errors and help are about what the user typed.
  TrainOptions typed;
  const std::unique_ptr<CLI::App> first = make_app(typed);
  int code = run_app(*first, argc, argv, [] { return 0; });
  if (code != 0 || first->count("--help") > 0) return code;
  const std::set<std::string> keys = typed_keys(*first);
  TrainOptions merged;
  TrainOptions own;
  const auto prepare = [&] {
    if (!typed.resume.empty()) {
      for (const char* other : {"config", "recipe", "output", "force", "find-lr"})
        if (keys.contains(other))
          fail(ErrorKind::usage,
               "--resume and --{} exclude each other: a run goes on in its folder with its own "
               "options",
               other);
      typed.config = (fs::path(typed.resume) / run_files::kConfig).string();
      require_reachable(typed.config);
      std::error_code error;
      if (!fs::exists(typed.config, error))
        fail(ErrorKind::input,
             "{}: no run to resume: it has no config.toml; begin it anew, with -o and no --resume",
             printable(typed.resume));
    }
    if (!typed.from.empty()) {
      begin_from(merged, typed, keys);
      return 0;
    }
    merged.config_of_run.recipe = Recipe::named(typed.recipe_name);
    if (typed.config.empty()) return 0;
    const std::vector<options::OptionLine> lines = options::read_options_file(typed.config);
    if (lines.empty() && !typed.resume.empty())
      fail(
          ErrorKind::input,
          "{}: empty, and a run cannot go on without its options; train anew, or put back the file",
          printable(fs::path(typed.config)));
    own = merged;
    merge(own, lines, {});
    merge(merged, lines, overruled(keys));
    return 0;
  };
  code = guarded([&] { return reporting_errors(typed.status_fd, prepare); });
  if (code != 0) return code;
  const Recipe beneath = merged.config_of_run.recipe;
  const std::unique_ptr<CLI::App> second = make_app(merged);
  const auto go = [&] {
    if (!typed.resume.empty()) {
      // Left to the processor once, when the run began.
      Precision& precision = merged.config_of_run.recipe.precision;
      if (precision == Precision::automatic) precision = own.config_of_run.recipe.precision;
      refuse_changed_options(keys, own, merged);
    }
    if (typed.resume.empty()) merged.config_of_run.recipe.settle(beneath, keys);
    merged.config = typed.config;
    find_place(merged);
    return run(merged);
  };
  return run_app(*second, argc, argv, [&] { return reporting_errors(typed.status_fd, go); });
}

fs::path new_run_folder(const TrainOptions& o) {
  std::error_code error;
  std::string name = fs::weakly_canonical(o.data, error).stem().string();
  if (name.empty()) name = "data";
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  std::string stamp(32, '\0');
  stamp.resize(std::strftime(stamp.data(), stamp.size(), "-%Y%m%d-%H%M%S", &local));
  fs::path folder = fs::path("runs") / (name + stamp);
  for (int i = 2; fs::exists(folder, error); ++i)
    folder = fs::path("runs") / fmt::format("{}{}-{}", name, stamp, i);
  return folder;
}

fs::path run_folder(const TrainOptions& o) {
  if (!o.resume.empty()) {
    check_run_folder(o.resume, RunMode::resume);
    return o.resume;
  }
  fs::path folder = o.output.empty() ? new_run_folder(o) : fs::path(o.output);
  if (same_file(folder, o.data))
    fail(ErrorKind::usage, "-o: {} is DATA; choose another folder for the run", printable(folder));
  check_run_folder(folder, o.force ? RunMode::replace : RunMode::fresh);
  return folder;
}

TrainPlan make_plan(const TrainOptions& o) {
  const RunConfig& c = o.config_of_run;
  // Better told before the data is looked at.
  c.recipe.check();
  if (!o.resume.empty()) require_precision_of(o.resume, c.recipe);
  static_cast<void>(resolve_precision(c.recipe.precision, c.recipe.device));
  static_cast<void>(make_backbone(c.recipe.model));
  // The folder is rank 0's, which may have begun to write it.
  if (o.place.rank == 0) static_cast<void>(run_folder(o));
  Recipe recipe = c.recipe;
  if (!o.resume.empty()) keep_own_split(recipe, o.resume);
  // The rate that is suggested is given as --lr, with which the backbone stays frozen.
  if (o.find_lr && recipe.model.fine_tune.empty()) recipe.model.fine_tune = "0";
  Dataset data = open_dataset(o.data, c.val, c.test, o.common.context());
  if (!c.corrections.empty() || !o.earlier.file.empty()) {
    const fs::path file =
        o.resume.empty() ? fs::path(c.corrections) : run_corrections(o.resume, c.corrections);
    apply_corrections(data, file == o.earlier.file ? fs::path() : file, o.earlier);
    if (!c.corrections.empty()) data.corrections = c.corrections;
  }
  return plan(std::move(data), recipe, c.cache(), o.common.context());
}

}  // namespace graft::cli
