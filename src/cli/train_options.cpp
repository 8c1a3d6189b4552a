#include "cli/train_options.h"

#include <toml++/toml.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/file.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/numbers.h"
#include "cli/recipes.h"
#include "cli/resume_options.h"
#include "cli/toml_text.h"
#include "dataset/inspect.h"
#include "graft/error.h"

namespace graft::cli {
namespace {

void add_options(CLI::App& app, TrainOptions& o) {
  app.add_option("DATA", o.data,
                 "A folder of class folders; one with train/ (val/, test/); or a CSV manifest")
      ->required();
  app.add_option("-o,--output", o.output, "The run folder to make (default: runs/<data>-<time>)")
      ->type_name("RUN");
  auto* val = app.add_option("--val", o.val, "Validation pictures: a folder of class folders")
                  ->type_name("DIR");
  app.add_option("--val-split", o.val_split,
                 "Share of the training pictures set aside for validation, where there are none")
      ->check(number(0.01, 0.9))
      ->capture_default_str()
      ->excludes(val)
      ->type_name("F");
  auto* test = app.add_option("--test", o.test, "Test pictures, evaluated once at the end")
                   ->type_name("DIR");
  app.add_option("--test-split", o.test_split,
                 "Share of the training pictures set aside as test pictures (default: none)")
      ->check(number(0.0, 0.9))
      ->excludes(test)
      ->type_name("F");
  app.add_option("--exclude", o.exclude,
                 fmt::format("Pictures to leave out, as 'graft check' finds them: {}",
                             fmt::join(kExclusions, ", ")))
      ->check([](const std::string& text) {
        for (const std::string& word : split_words(text))
          if (std::find(std::begin(kExclusions), std::end(kExclusions), word) ==
              std::end(kExclusions))
            return fmt::format(
                "'{}' is none of {}{}", clipped(word), fmt::join(kExclusions, ", "),
                did_you_mean(word, {std::begin(kExclusions), std::end(kExclusions)}));
        return std::string();
      })
      ->type_name("WORDS");
  app.add_option("--max-skipped", o.max_skipped,
                 "Share of the images that may be missing or unreadable; more is an error")
      ->check(within(0.0, 1.0))
      ->capture_default_str()
      ->type_name("SHARE");
  add_backbone_options(app, o.network);
  add_head_options(app, o.network);
  app.add_option("--epochs", o.epochs, "Passes over the training pictures")
      ->check(whole_number(1, 100000))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--batch-size", o.batch_size, "Pictures per optimiser step")
      ->check(whole_number(1, 65536))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--optimizer", o.optimizer, "adam, adamw or sgd")
      ->check(one_of({"adam", "adamw", "sgd"}))
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--lr", o.lr,
                 "Learning rate (default: 2e-3; 1e-4 where pretrained layers train too)")
      ->check(number(1e-12, 1e3))
      ->type_name("F");
  app.add_option("--augment", o.augment,
                 "Random variants of the training pictures: none, light, or words such as "
                 "'rotate:90 shift:0.5 brightness:0.1-0.7 hflip vflip' (docs/augmentation.md)")
      ->capture_default_str()
      ->check(parsed_by([](const std::string& text) { parse_augmentation(text); }))
      ->type_name("WORDS");
  app.add_option(
         "--views", o.views,
         "Views drawn of each picture, once, their features cached; 0: new ones in every "
         "epoch, not cached (default: 4, or the flips there are; 0 where nothing is frozen)")
      ->check(whole_number(0, 1000))
      ->type_name("K");
  app.add_option("--freeze-epochs", o.freeze_epochs,
                 "Of the epochs, the first that train the head alone, before --fine-tune")
      ->check(whole_number(0, 100000))
      ->capture_default_str()
      ->type_name("E");
  app.add_option("--head-lr", o.head_lr, "Learning rate of the freeze epochs")
      ->check(number(1e-12, 1e3))
      ->capture_default_str()
      ->type_name("F");
  app.add_option("--lr-decay-per-block", o.lr_decay_per_block,
                 "Learning rate of the backbone's last block over the head's, and of each block "
                 "over the next")
      ->check(number(0.0, 1.0))
      ->capture_default_str()
      ->type_name("F");
  app.add_option("--ema", o.ema,
                 "Decay of a moving average of the weights, which is then what is validated and "
                 "saved, as in 0.999; 0: none")
      ->check(number(0.0, 0.99999))
      ->capture_default_str()
      ->type_name("F");
  app.add_flag("--find-lr", o.find_lr,
               "Learning-rate range test: train at rising rates, plot the loss, suggest --lr");
  app.add_option("--weight-decay", o.weight_decay, "Decay of the weights (adamw: decoupled)")
      ->check(number(0.0, 10.0))
      ->capture_default_str()
      ->type_name("F");
  app.add_option("--momentum", o.momentum, "Momentum of sgd")
      ->check(number(0.0, 0.9999))
      ->capture_default_str()
      ->type_name("F");
  app.add_option("--schedule", o.schedule,
                 "The learning rate over the run: constant, cosine (down to 0) or one-cycle")
      ->check(one_of({"constant", "cosine", "one-cycle"}))
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--warmup-epochs", o.warmup_epochs,
                 "Epochs in which the learning rate rises to --lr (constant, cosine)")
      ->check(number(0.0, 1000.0))
      ->capture_default_str()
      ->type_name("F");
  app.add_option("--label-smoothing", o.label_smoothing,
                 "Share of each target spread evenly over all classes")
      ->check(number(0.0, 0.999))
      ->capture_default_str()
      ->type_name("F");
  app.add_option("--clip-gradients", o.clip_gradients,
                 "Largest norm of all gradients together; 0: no limit")
      ->check(number(0.0, 1e9))
      ->capture_default_str()
      ->type_name("F");
  app.add_option("--class-weights", o.class_weights,
                 "balanced: rare classes count as much as frequent ones")
      ->check(one_of({"none", "balanced"}))
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--patience", o.patience,
                 "Stop after this many epochs without a better validation accuracy; 0: never "
                 "(default: 5; 0 with one-cycle or cosine, which are best at their end)")
      ->check(whole_number(0, 100000))
      ->type_name("N");
  app.add_option("--init", o.init, "How the head's weights start: he-normal or glorot-uniform")
      ->check(one_of({"he-normal", "glorot-uniform"}))
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--seed", o.seed, "For the split, new weights, order and dropout")
      ->check(seed_number())
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--device", o.device, "auto, cpu or cuda")
      ->check(one_of({"auto", "cpu", "cuda"}))
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--cache-dir", o.cache_dir,
                 "Graft's cache folder, for weights and features (default: $XDG_CACHE_HOME/graft)")
      ->type_name("DIR");
  app.add_option("--cache-dtype", o.cache_dtype,
                 "How features of the frozen prefix are stored in the cache: fp16 or fp32")
      ->check(one_of({"fp16", "fp32"}))
      ->capture_default_str()
      ->type_name("TYPE");
  app.add_option("--cache-limit", o.cache_limit,
                 "Most disk space for cached features; the least recently used go first")
      ->check(number(0.001, 100000.0))
      ->capture_default_str()
      ->type_name("GB");
  app.add_flag("--no-cache", o.no_cache, "Neither read nor write cached features");
  app.add_option(
         "--recipe", o.recipe,
         fmt::format("Settings to start from: default, {}", fmt::join(recipe_names(), ", ")))
      ->capture_default_str()
      ->type_name("NAME");
  app.add_option("--config", o.config, "A TOML file of options; the command line wins over it")
      ->type_name("FILE");
  app.add_option("--resume", o.resume,
                 "Go on with this run from its last whole epoch, with its options; same pictures")
      ->type_name("RUN");
  app.add_option("--dashboard", o.dashboard,
                 "Show the curves live at http://127.0.0.1:PORT/ while training")
      ->check(whole_number(1, 65535))
      ->type_name("PORT");
  app.add_flag("--force", o.force, "Train into a run folder that exists, replacing its files");
  app.add_flag("--dry-run", o.dry_run, "Print plan, memory and expected time; train nothing");
  app.add_flag("--no-report", o.no_report, "Do not write report.html into the run folder");
  app.add_flag("--json", o.json, "The final metrics as one JSON document on stdout");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft train photos/                          feature extraction with VGG16\n"
      "  graft train photos/ --fine-tune 2 -o runs/b  the last two layers train too\n"
      "  graft train photos/ --recipe notebook --backbone vgg19\n"
      "  graft train photos/ --backbone vgg19 --weights blocks1-3.h5 \\\n"
      "      --until block3_pool --input-size 150\n"
      "Ctrl-C saves the state in the run folder and exits with 130.");
}

/// Keys that belong to one invocation and not to a configuration.
bool is_configurable(const std::string& key) {
  return key != "config" && key != "recipe" && key != "resume" && key != "help" &&
         key != "dry-run" && key != "find-lr" && key != "dashboard" && key != "DATA";
}

// A configuration is some 40 lines of KEY = VALUE. What the parser takes apart by recursion, each
// dot of a dotted key, is held to a depth that any stack has room for.
constexpr uint64_t kMostConfigBytes = 256 * 1024;
constexpr std::ptrdiff_t kMostConfigDots = 4096;

std::string read_config(const fs::path& path) {
  std::error_code error;
  if (const auto size = fs::file_size(path, error); !error && size > kMostConfigBytes)
    fail(ErrorKind::usage, "{}: {} bytes; a file of options has at most {}", printable(path), size,
         kMostConfigBytes);
  return read_text_file(path);
}

std::string value_text(const toml::node& node, const std::string& name, const std::string& key) {
  if (const auto* text = node.as_string()) {
    if (text->get().find('\0') != std::string::npos)
      fail(ErrorKind::usage, "{}:{}: '{}' holds a NUL character, which would cut it short", name,
           node.source().begin.line, key);
    return text->get();
  }
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  fail(ErrorKind::usage, "{}:{}: '{}' must be a string, a number, true or false", name,
       node.source().begin.line, key);
}

bool is_path(const std::string& key) {
  return key == "weights" || key == "val" || key == "test" || key == "cache-dir" || key == "output";
}

std::vector<std::string> keys_of(const CLI::App& app) {
  std::vector<std::string> keys;
  for (const std::string& name : option_names(app))
    if (name.starts_with("--") && is_configurable(name.substr(2))) keys.push_back(name.substr(2));
  return keys;
}

/// A TOML table as command-line arguments. Unknown keys are errors.
std::vector<std::string> toml_arguments(const std::string& text, const std::string& name,
                                        CLI::App& app) {
  std::vector<std::string> arguments;
  if (std::count(text.begin(), text.end(), '.') > kMostConfigDots)
    fail(ErrorKind::usage, "{}: over {} dots; expected lines of KEY = VALUE", name,
         kMostConfigDots);
  try {
    const toml::table table = toml::parse(text);
    for (const auto& [key_view, node] : table) {
      const std::string key(key_view.str());
      const CLI::Option* option = app.get_option_no_throw("--" + key);
      if (option == nullptr || !is_configurable(key))
        fail(ErrorKind::usage,
             "{}:{}: unknown key '{}'{}; keys are train's long options without the "
             "dashes",
             name, node.source().begin.line, clipped(key), did_you_mean(key, keys_of(app)));
      std::string value = value_text(node, name, key);
      if (is_path(key)) value = path_of_value(value);
      if (value.empty())
        fail(ErrorKind::usage, "{}:{}: '{}' is empty; give a value, or leave the line out", name,
             node.source().begin.line, key);
      arguments.push_back("--" + key + "=" + value);
    }
  } catch (const toml::parse_error& error) {
    fail(ErrorKind::usage, "{}:{}: not TOML: {}", name, error.source().begin.line,
         clipped(error.description()));
  }
  return arguments;
}

/// Later arguments win over earlier ones, so that recipe, file and command line can be chained.
void let_last_win(CLI::App& app) {
  for (CLI::Option* option : app.get_options())
    if (!option->get_positional()) option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

std::unique_ptr<CLI::App> make_app(TrainOptions& options) {
  auto app = std::make_unique<CLI::App>(
      "Trains a classifier on a folder of labelled pictures by transfer learning.", "graft train");
  add_options(*app, options);
  return app;
}

int parse(CLI::App& app, std::vector<std::string> arguments, const std::function<int()>& run) {
  arguments.insert(arguments.begin(), "train");
  std::vector<char*> pointers;
  pointers.reserve(arguments.size());
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  return run_app(app, static_cast<int>(pointers.size()), pointers.data(), run);
}

/// The options that stood on a command line, without dashes.
std::vector<std::string> typed_keys(const CLI::App& app) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : app.get_options())
    if (option->count() > 0 && !option->get_lnames().empty())
      keys.push_back(option->get_lnames().front());
  return keys;
}

}  // namespace

std::vector<std::string> split_words(const std::string& text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c != ',' && c != ' ')
      words.back() += c;
    else if (!words.back().empty())
      words.emplace_back();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

double TrainOptions::learning_rate() const {
  if (lr > 0) return lr;
  return network.fine_tune != "0" && network.weight_source() != "none" ? 1e-4 : 2e-3;
}

int TrainOptions::patience_in_effect() const {
  if (patience >= 0) return patience;
  return schedule == "constant" ? 5 : 0;
}

int TrainOptions::view_count(bool has_prefix) const {
  const Augmentation a = augmentation();
  if (a.leaves_pictures()) return 1;
  if (views >= 0) return views;
  if (!has_prefix) return 0;
  constexpr int kViews = 4;
  return a.flip_views() > 0 ? a.flip_views() : kViews;
}

int run_train_app(int argc, char** argv, const std::function<int(const TrainOptions&)>& run) {
  // First the command line alone: errors and help are about what the user typed.
  TrainOptions typed;
  const std::unique_ptr<CLI::App> first = make_app(typed);
  int code = run_app(*first, argc, argv, [] { return 0; });
  if (code != 0 || first->count("--help") > 0) return code;
  if (!typed.resume.empty()) {
    for (const char* other : {"--config", "--recipe", "--output", "--force", "--find-lr"})
      if (first->count(other) > 0)
        return guarded([&]() -> int {
          fail(ErrorKind::usage,
               "--resume and {} exclude each other: a run goes on in its folder "
               "with its own options",
               other);
        });
    typed.config = (fs::path(typed.resume) / "config.toml").string();
    code = guarded([&] {
      std::error_code error;
      if (!fs::exists(typed.config, error))
        fail(ErrorKind::input, "{}: no run to resume: it has no config.toml",
             printable(typed.resume));
      return 0;
    });
    if (code != 0) return code;
  }
  if (typed.recipe == "default" && typed.config.empty()) return guarded([&] { return run(typed); });

  TrainOptions merged;
  const std::unique_ptr<CLI::App> second = make_app(merged);
  let_last_win(*second);
  std::vector<std::string> arguments;
  std::vector<std::string> own;
  code = guarded([&] {
    if (typed.recipe != "default")
      arguments = toml_arguments(recipe_text(typed.recipe), "recipe " + typed.recipe, *second);
    if (!typed.config.empty()) {
      const auto more = toml_arguments(read_config(typed.config), printable(typed.config), *second);
      arguments.insert(arguments.end(), more.begin(), more.end());
    }
    own = arguments;
    // Of two options that exclude each other, the one on the command line puts a configured other
    // out of force.
    for (const auto& [given, other] : {std::pair("--val", "--val-split="),
                                       {"--val-split", "--val="},
                                       {"--test", "--test-split="},
                                       {"--test-split", "--test="}})
      if (first->count(given) > 0)
        std::erase_if(arguments,
                      [&, other = other](const auto& a) { return a.starts_with(other); });
    return 0;
  });
  if (code != 0) return code;
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  if (typed.resume.empty()) return parse(*second, arguments, [&] { return run(merged); });

  // A run goes on with its own options: those typed are compared with them.
  TrainOptions configured;
  const std::unique_ptr<CLI::App> third = make_app(configured);
  own.push_back("--");
  own.push_back(typed.data);
  code = parse(*third, own, [] { return 0; });
  if (code != 0) return code;
  return parse(*second, arguments, [&] {
    refuse_changed_options(typed_keys(*first), configured, merged);
    return run(merged);
  });
}

std::vector<std::pair<std::string, std::string>> config_entries(const TrainOptions& o) {
  std::vector<std::pair<std::string, std::string>> entries;
  const auto raw = [&](const char* key, const auto& value) {
    entries.emplace_back(key, fmt::format("{}", value));
  };
  const auto quoted = [&](const char* key, const std::string& value) {
    if (value.empty()) return;
    raw(key, toml_quoted(value));
  };
  // Folders as absolute paths, so that the file works from anywhere.
  const auto folder = [&](const char* key, const std::string& value) {
    if (!value.empty()) raw(key, toml_path(fs::absolute(value).lexically_normal().string()));
  };
  const std::string weights = o.network.weight_source();
  const bool named = weights == "imagenet" || weights == "builtin" || weights == "none";
  const auto [height, width] = o.network.size();
  quoted("backbone", o.network.backbone);
  named ? quoted("weights", weights) : folder("weights", weights);
  quoted("until", o.network.until);
  quoted("input-size", fmt::format("{}x{}", height, width));
  quoted("head", o.network.head);
  quoted("fine-tune", o.network.fine_tune);
  raw("epochs", o.epochs);
  raw("batch-size", o.batch_size);
  quoted("optimizer", o.optimizer);
  raw("lr", o.learning_rate());
  quoted("augment", o.augment);
  if (o.views >= 0) raw("views", o.views);
  raw("freeze-epochs", o.freeze_epochs);
  raw("head-lr", o.head_lr);
  raw("lr-decay-per-block", o.lr_decay_per_block);
  raw("ema", o.ema);
  raw("weight-decay", o.weight_decay);
  raw("momentum", o.momentum);
  quoted("schedule", o.schedule);
  raw("warmup-epochs", o.warmup_epochs);
  raw("label-smoothing", o.label_smoothing);
  raw("clip-gradients", o.clip_gradients);
  quoted("class-weights", o.class_weights);
  if (o.patience >= 0) raw("patience", o.patience);
  quoted("init", o.init);
  // TOML's integers have 63 bits.
  if (o.seed <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    raw("seed", o.seed);
  else
    quoted("seed", std::to_string(o.seed));
  if (o.val.empty()) raw("val-split", o.val_split);
  if (o.test_split > 0) raw("test-split", o.test_split);
  quoted("exclude", o.exclude);
  raw("max-skipped", o.max_skipped);
  folder("val", o.val);
  folder("test", o.test);
  quoted("device", o.device);
  folder("cache-dir", o.cache_dir);
  quoted("cache-dtype", o.cache_dtype);
  raw("cache-limit", o.cache_limit);
  if (o.no_report) raw("no-report", true);
  if (o.no_cache) raw("no-cache", true);
  if (o.common.threads > 0) raw("threads", o.common.threads);
  return entries;
}

std::string config_toml(const TrainOptions& o) {
  std::string text =
      fmt::format("{} Repeat it with: graft train DATA --config THIS_FILE\n", kConfigStart);
  for (const auto& [key, value] : config_entries(o)) text += fmt::format("{} = {}\n", key, value);
  return text;
}

}  // namespace graft::cli
