// Visitors of the option table that turn options into text and text into options.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "recipe/option_values.h"
#include "recipe/options.h"
#include "recipe/options_file.h"

namespace graft::options {

/// Sets the option of that name.
struct OptionReader {
  std::string_view key;
  const std::string& value;
  const std::string& place;  ///< for messages
  bool* found = nullptr;

  template <typename T, typename What>
  void operator()(const Option& option, T& member, const What& what) const {
    if (option.name != key) return;
    if (found != nullptr) *found = true;
    try {
      read_value(value, member, what);
    } catch (const Error& error) {
      fail(error.kind(), "{}: `{}`: {}", place, option.name,
           without_name(error.what(), option.name));
    }
  }
};

/// Collects names.
struct NameLister {
  std::vector<std::string>& names;
  template <typename T, typename What>
  void operator()(const Option& option, T&, const What&) const {
    names.emplace_back(option.name);
  }
};

/// A line of TOML for each option that is not left open.
struct OptionWriter {
  std::string& out;

  template <typename T, typename What>
  void operator()(const Option& option, T& member, const What& what) const {
    const std::string text = value_text(member);
    if (text.empty()) return;
    out += fmt::format("{} = {}\n", option.name, toml(member, text, what));
  }

 private:
  template <typename T, typename What>
  static std::string toml(const T& member, const std::string& text,
                          [[maybe_unused]] const What& what) {
    if constexpr (std::is_same_v<What, PathText>) {
      const std::vector<std::string> words =
          what.words != nullptr ? what.words() : std::vector<std::string>();
      const bool named = std::find(words.begin(), words.end(), text) != words.end();
      // So that the file works from anywhere.
      return named ? toml_quoted(text) : toml_path(fs::absolute(text).lexically_normal().string());
    } else if constexpr (std::is_same_v<T, uint64_t>) {
      // TOML's integers have 63 bits.
      return member <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
                 ? text
                 : toml_quoted(text);
    } else if constexpr (std::is_same_v<What, Number> || std::is_same_v<What, WholeNumber> ||
                         std::is_same_v<What, Flag>) {
      return text;
    } else {
      return toml_quoted(text);
    }
  }
};

/// "label_smoothing" and "label-smoothing": in records and everywhere else.
std::string record_key(std::string_view option);
std::string option_name(std::string_view key);

/// Each option but paths under its record_key(); numbers as numbers.
struct OptionRecorder {
  nlohmann::json& out;
  bool renewable = true;  ///< with those that a run that is resumed may change

  template <typename T, typename What>
  void operator()(const Option& option, T& member, const What&) const {
    if (std::is_same_v<What, PathText> || (option.renewable && !renewable)) return;
    if constexpr (std::is_arithmetic_v<T>)
      out[record_key(option.name)] = member;
    else if constexpr (std::is_same_v<T, std::optional<int>> ||
                       std::is_same_v<T, std::optional<double>>) {
      if (member) out[record_key(option.name)] = *member;
    } else if (const std::string text = value_text(member); !text.empty())
      out[record_key(option.name)] = text;
  }
};

/// Throws Error(usage) that names an option whose value the command line would not take.
struct OptionChecker {
  template <typename T, typename What>
  void operator()(const Option& option, T& member, const What& what) const {
    const std::string text = value_text(member);
    if (text.empty()) return;
    try {
      read_value(text, member, what);
    } catch (const Error& error) {
      fail(error.kind(), "`{}`: {}", option.name, without_name(error.what(), option.name));
    }
  }
};

}  // namespace graft::options
