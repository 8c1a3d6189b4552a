#include "cli/arguments.h"

#include "cli/option_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/fail.h"
#include "base/option_synonyms.h"
#include "base/words.h"

namespace graft::cli {
namespace {

const std::string kChoices = "choices:";
constexpr size_t kColumns = 80;
constexpr size_t kNameColumns = 30;
constexpr const char* kEmpty =
    "empty value; give one, or leave it out (is a variable of the shell not set?)";

/// Characters of UTF-8, each of which is a column wide in our texts.
size_t columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80;
  }));
}

bool takes_value(const CLI::Option& option) {
  return std::min(option.get_type_size_min(), option.get_items_expected_min()) > 0;
}

/// "--weights" of "--weights=x"; nothing where the word is no option.
std::string name_of(std::string_view word) {
  if (word.starts_with("--")) return std::string(word.substr(0, word.find('=')));
  const bool is_short = word.size() > 1 && word[0] == '-' && (word[1] < '0' || word[1] > '9');
  return std::string(is_short ? word.substr(0, 2) : "");
}

std::string unknown_option(const CLI::App& app, const std::string& name) {
  return fmt::format("unknown option '{}'{}", clipped(name),
                     did_you_mean_option(name, option_names(app)));
}

}  // namespace

CLI::Validator one_of(const std::vector<std::string>& words) {
  const CLI::Validator check(
      [words](const std::string& text) {
        if (std::find(words.begin(), words.end(), text) != words.end()) return std::string();
        return fmt::format("'{}' is none of {}{}", clipped(text), fmt::join(words, ", "),
                           did_you_mean(text, words));
      },
      "");
  return with_choices(check, words);
}

// CLI11 has no place for them but a validator's name, which it shows nowhere.
CLI::Validator with_choices(CLI::Validator check, const std::vector<std::string>& words) {
  return check.name(kChoices + fmt::format("{}", fmt::join(words, "|")));
}

std::vector<std::string> choices(CLI::Option& option) {
  try {
    for (int i = 0;; ++i) {
      const std::string name = option.get_validator(i)->get_name();
      if (name.starts_with(kChoices)) return CLI::detail::split(name.substr(kChoices.size()), '|');
    }
  } catch (const CLI::OptionNotFound&) {
    return {};
  }
}

CLI::Validator parsed_by(const std::function<void(const std::string&)>& parse) {
  return {[parse](const std::string& text) {
            try {
              parse(text);
              return std::string();
            } catch (const Error& error) {
              // The option's name comes in front again.
              const std::string message = with_flags(error.what());
              const std::string_view what = message;
              const size_t colon = what.find(": ");
              const bool named = what.starts_with("--") && colon != std::string_view::npos &&
                                 what.find(' ') > colon;
              return std::string(named ? what.substr(colon + 2) : what);
            }
          },
          ""};
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

void refuse_empty_values(CLI::App& app) {
  const CLI::Validator not_empty(
      [](const std::string& text) { return std::string(text.empty() ? kEmpty : ""); }, "");
  for (CLI::Option* option : app.get_options()) {
    if (!takes_value(*option) && !option->get_positional()) continue;
    // transform() puts a check before those that are there.
    option->transform(not_empty);
  }
}

void check_options(const CLI::App& app, int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  std::string problem;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--") break;
    const std::string name = name_of(words[i]);
    if (name.empty()) continue;
    if (name == "--help" || name == "-h") return;
    const CLI::Option* option = app.get_option_no_throw(name);
    const bool joined = words[i].size() > name.size();
    std::string found;
    if (option == nullptr) {
      found = unknown_option(app, name);
    } else if (joined && name.starts_with("--") && words[i].size() == name.size() + 1) {
      found = fmt::format("{}: {}", name, kEmpty);
    } else if (takes_value(*option) && !joined && i + 1 < words.size()) {
      const std::string& value = words[++i];
      if (value.starts_with("--") && app.get_option_no_throw(name_of(value)) != nullptr)
        found = fmt::format("{}: no value; '{}' comes next", name, clipped(value));
    }
    if (problem.empty()) problem = std::move(found);
  }
  if (!problem.empty()) throw Error(ErrorKind::usage, problem);
}

std::string unexpected_words(const CLI::App& app, const std::vector<std::string>& words) {
  for (const std::string& word : words)
    if (const std::string name = name_of(word);
        !name.empty() && app.get_option_no_throw(name) == nullptr)
      return unknown_option(app, name);
  const bool tar = !words.empty() && words.front().ends_with(".tar");
  return fmt::format("unexpected argument '{}'{}{}", words.empty() ? "" : clipped(words.front()),
                     words.size() > 1 ? fmt::format(" and {} more", words.size() - 1) : "",
                     tar ? "; shards are named together, quoted: 'photos-{0000..0007}.tar'" : "");
}

std::string wrapped(const std::string& text, size_t width, size_t indent, size_t column) {
  std::string out;
  size_t begin = column;  // of this line's text
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of(" \n", at), text.size());
    const std::string word = text.substr(at, end - at);
    if (column > begin && column + columns(word) > width) {
      while (!out.empty() && out.back() == ' ') out.pop_back();
      out += "\n" + std::string(indent, ' ');
      begin = column = indent;
    }
    out += word;
    column += columns(word);
    if (end < text.size()) {
      out += text[end];
      column = text[end] == '\n' ? 0 : column + 1;
      if (column == 0) begin = 0;
    }
    at = end + 1;
  }
  return out;
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  const std::string name = make_option_name(option, is_positional) + make_option_opts(option);
  std::string out = "  " + wrapped(name, kColumns, kNameColumns, 2);
  const std::string description = make_option_desc(option);
  if (description.empty()) return out + "\n";
  const size_t last = out.rfind('\n') == std::string::npos ? 0 : out.rfind('\n') + 1;
  const size_t used = columns(std::string_view(out).substr(last));
  if (last > 0 || used + 1 > kNameColumns)
    out += "\n" + std::string(kNameColumns, ' ');
  else
    out += std::string(kNameColumns - used, ' ');
  return out + wrapped(description, kColumns, kNameColumns, kNameColumns) + "\n";
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  return wrapped(CLI::Formatter::make_description(app), kColumns, 0);
}

std::string HelpFormatter::make_footer(const CLI::App* app) const {
  return wrapped(CLI::Formatter::make_footer(app), kColumns, 0);
}

}  // namespace graft::cli
