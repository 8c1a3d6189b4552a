// The options of a table as flags of a command.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

#include "cli/arguments.h"
#include "graft/error.h"
#include "recipe/option_values.h"
#include "recipe/options.h"

namespace graft::cli {

/// A text of the library, which names options `so`, as a person at a command line needs it: --so.
std::string with_flags(std::string_view text);

/// What the help calls a group.
std::string group_title(options::OptionGroup group);

/// Visits a table of options: each becomes a flag that fills its member. The members must outlive
/// the app.
struct FlagAdder {
  CLI::App& app;

  template <typename T, typename What>
  void operator()(const options::Option& option, T& member, const What& what) const {
    std::string name = "--" + std::string(option.name);
    if (option.letter != 0) name = std::string{'-', option.letter, ','} + name;
    const auto check = [what, name = std::string(option.name)](std::string& text) {
      try {
        T scratch{};
        options::read_value(text, scratch, what);
        return std::string();
      } catch (const Error& error) {
        return with_flags(options::without_name(error.what(), name));
      }
    };
    CLI::Option* flag = nullptr;
    if constexpr (std::is_same_v<What, options::Flag>) {
      flag = app.add_flag(name, member, with_flags(option.help));
    } else {
      flag = app.add_option_function<std::string>(
          name,
          [&member, what](const std::string& text) { options::read_value(text, member, what); },
          with_flags(option.help));
      CLI::Validator checked(check, "");
      if constexpr (std::is_same_v<What, options::Word>)
        checked =
            with_choices(checked, {options::Words<T>::list.begin(), options::Words<T>::list.end()});
      if constexpr (std::is_same_v<What, options::Text>)
        if (what.examples != nullptr) checked = with_choices(checked, what.examples());
      if constexpr (std::is_same_v<What, options::PathText>)
        if (what.words != nullptr) checked = with_choices(checked, what.words());
      flag->check(checked);
      flag->type_name(std::string(option.value));
      if (const std::string text = options::value_text(member); !text.empty() && option.has_default)
        flag->default_str(text);
    }
    flag->group(group_title(option.group));
  }
};

}  // namespace graft::cli
