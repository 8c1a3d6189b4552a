#include "cli/option_flags.h"

#include <functional>
#include <set>

#include "run/run_config.h"

namespace graft::cli {

namespace {

struct Names {
  std::set<std::string, std::less<>>& names;
  template <typename T, typename What>
  void operator()(const options::Option& option, T&, const What&) const {
    names.emplace(option.name);
  }
};

/// Options that the library speaks of: names of files may hold the same quotes.
bool is_option(std::string_view name) {
  static const std::set<std::string, std::less<>> kNames = [] {
    std::set<std::string, std::less<>> names = {
        "config",        "dashboard",    "find-lr",        "explain-layer", "force",
        "freeze-epochs", "output",       "recipe",         "resume",        "images",
        "pool",          "without-head", "fold-batchnorm", "data",          "from"};
    RunConfig config;
    visit_run_config(Names{names}, config);
    return names;
  }();
  return kNames.contains(name);
}

}  // namespace

std::string with_flags(std::string_view text) {
  std::string out;
  while (true) {
    const size_t begin = text.find('`');
    const size_t end = begin == std::string_view::npos ? begin : text.find('`', begin + 1);
    if (end == std::string_view::npos) return out.append(text);
    const std::string_view inside = text.substr(begin + 1, end - begin - 1);
    if (is_option(inside.substr(0, inside.find(' ')))) {
      out.append(text.substr(0, begin)).append("--").append(inside);
      text.remove_prefix(end + 1);
    } else {
      out.append(text.substr(0, end));
      text.remove_prefix(end);
    }
  }
}

std::string group_title(options::OptionGroup group) {
  using G = options::OptionGroup;
  switch (group) {
    case G::common:
      return "Common options";
    case G::data:
      return "Data";
    case G::model:
      return "Model";
    case G::augmentation:
      return "Augmentation";
    case G::training:
      return "Training";
    case G::machine:
      return "Machine and cache";
    case G::run:
      return "The run";
  }
  return "Options";
}

}  // namespace graft::cli
