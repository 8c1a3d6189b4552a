// What was typed on a command line, checked alike for all commands.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

namespace graft::cli {

/// One of these words; a near one is suggested.
CLI::Validator one_of(const std::vector<std::string>& words);
/// The words that an option takes, where it is one of a few; for completions.
std::vector<std::string> choices(CLI::Option& option);
/// Notes them on a check that is not one_of().
CLI::Validator with_choices(CLI::Validator check, const std::vector<std::string>& words);

/// A text that `parse` takes, which throws Error(usage) for others.
CLI::Validator parsed_by(const std::function<void(const std::string&)>& parse);

/// The names that an app's options have, "--epochs", "-o".
std::vector<std::string> option_names(const CLI::App& app);

/// Makes the app refuse empty values of its options and positionals: they come of shell variables
/// that are not set, and would count as nothing given.
void refuse_empty_values(CLI::App& app);

/// What parsing would leave for later or take otherwise than meant: options that are not known,
/// '--weights=' (which would take the next word), '-o --force' (which would make a folder of that
/// name). Throws Error(usage). Help that is asked for goes before.
void check_options(const CLI::App& app, int argc, char** argv);

/// The words that no option and no positional took, as an error's text.
std::string unexpected_words(const CLI::App& app, const std::vector<std::string>& words);

/// Help texts in lines of 80 columns.
class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_description(const CLI::App* app) const override;
  std::string make_footer(const CLI::App* app) const override;
};

/// Text in lines of at most `width` columns, all but the first indented; the first begins in
/// `column`. A word that is longer has a line of its own; line ends stay.
std::string wrapped(const std::string& text, size_t width, size_t indent, size_t column = 0);

}  // namespace graft::cli
