#include "run/run_config.h"

#include <optional>
#include <set>
#include <type_traits>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "dataset/split_file.h"
#include "graft/labels.h"
#include "recipe/options_text.h"
#include "run/learned.h"
#include "run/run_folder.h"

namespace graft {

std::string to_toml(const RunConfig& config) {
  RunConfig c = config;
  c.recipe = c.recipe.resolved();
  std::string text =
      fmt::format("{} Repeat it with: graft train DATA --config THIS_FILE\n", kConfigStart);
  if (!c.data.empty())
    text += fmt::format("data = {}\n",
                        options::toml_path(fs::absolute(c.data).lexically_normal().string()));
  visit_run_config(
      [&](const options::Option& option, auto& member, const auto& what) {
        using What = std::decay_t<decltype(what)>;
        if (std::is_same_v<What, options::Flag> && options::value_text(member) == "false") return;
        // Each excludes the other.
        if (option.name == "val-split" && !c.val.empty()) return;
        if (option.name == "test-split" && c.recipe.data.test_split == 0) return;
        options::OptionWriter{text}(option, member, what);
      },
      c);
  return text;
}

RunConfig read_run_config(const std::filesystem::path& run) {
  const fs::path file = run / run_files::kConfig;
  std::error_code error;
  if (!fs::exists(file, error))
    fail(ErrorKind::input, "{}: no run: it has no config.toml", printable(run));
  RunConfig config;
  for (const options::OptionLine& line : options::read_options_file(file)) {
    if (line.key == "data") config.data = line.value;
    visit_run_config(options::OptionReader{line.key, line.value, line.place}, config);
  }
  return config;
}

void keep_own_split(Recipe& recipe, const std::filesystem::path& run) {
  std::string& from = recipe.data.split_from;
  std::error_code error;
  if (!from.empty() && !fs::exists(fs::path(from) / run_files::kSplit, error)) from = run.string();
}

void require_precision_of(const std::filesystem::path& run, const Recipe& recipe) {
  if (recipe.precision != Precision::bf16) return;
  try {
    static_cast<void>(resolve_precision(recipe.precision, recipe.device));
  } catch (const Error&) {
    fail(ErrorKind::usage,
         "{}: this run is computed with `precision bf16`, which this processor does not have (AMX "
         "or "
         "AVX512_BF16); go on where it began, name a GPU with `device cuda`, "
         "or "
         "train a run of its own",
         printable(run));
  }
}

fs::path run_corrections(const fs::path& run, const fs::path& named) {
  std::error_code error;
  const fs::path copy = run / run_files::kCorrections;
  return !named.empty() && fs::exists(copy, error) ? copy : named;
}

EarlierCorrections earlier_corrections(const fs::path& model) {
  const std::optional<fs::path> run = run_of_model(model);
  std::error_code error;
  if (!run || !fs::exists(*run / run_files::kCorrections, error)) return {};
  std::set<std::string> classes;
  for (const SplitRow& row : read_split(*run / run_files::kSplit)) classes.insert(row.label);
  return {.file = *run / run_files::kCorrections, .classes = {classes.begin(), classes.end()}};
}

RunSettings run_settings(const std::filesystem::path& folder) {
  const RunConfig c = read_run_config(folder);
  return {.data = c.data,
          .validation = c.val,
          .test = c.test,
          .corrections = run_corrections(folder, c.corrections),
          .recipe = c.recipe,
          .cache = c.cache(),
          .report = !c.no_report,
          .check_labels = c.check_labels};
}

}  // namespace graft
