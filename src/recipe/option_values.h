// Values of options as text, both ways: for command lines, files of options and records alike.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/recipe.h"
#include "image/resample.h"

namespace graft::options {

/// What a value may be.
struct WholeNumber {
  uint64_t least = 0;
  uint64_t most = 0;
};
struct Number {
  double least = 0;
  double most = 0;
};
/// Any text that `check` takes, which throws Error(usage) for others; null: any.
struct Text {
  void (*check)(const std::string& text) = nullptr;
  /// The text as it is kept; null: as it is.
  std::string (*canonical)(const std::string& text) = nullptr;
  /// What a shell offers; null: nothing.
  std::vector<std::string> (*examples)() = nullptr;
};
/// The path of a file or folder, or a word that stands for one.
struct PathText {
  /// Such words; null: there are none.
  std::vector<std::string> (*words)() = nullptr;
};
/// One of the words of the member's type.
struct Word {};
/// "224" or "150x200", height first.
struct Extent {};
/// Present or not; in files true or false.
struct Flag {};

/// Throws Error(usage): there is no value of that number.
[[noreturn]] void refuse_enum(size_t value);

/// The words for an enumeration's values, in their order.
template <typename E>
struct Words;
template <>
struct Words<OptimizerKind> {
  static constexpr std::array<std::string_view, 3> list = {"adam", "adamw", "sgd"};
};
template <>
struct Words<Schedule> {
  static constexpr std::array<std::string_view, 3> list = {"constant", "cosine", "one-cycle"};
};
template <>
struct Words<ClassWeights> {
  static constexpr std::array<std::string_view, 2> list = {"none", "balanced"};
};
template <>
struct Words<Initializer> {
  static constexpr std::array<std::string_view, 2> list = {"he-normal", "glorot-uniform"};
};
template <>
struct Words<PixelFamily> {
  static constexpr std::array<std::string_view, 7> list = {
      "weights", "keras", "torch", "unit", "torch-stretched", "raw", "symmetric"};
};
template <>
struct Words<Resampling> {
  static constexpr auto list = kResamplingNames;
};
template <>
struct Words<FeatureType> {
  static constexpr std::array<std::string_view, 2> list = {"fp16", "fp32"};
};
template <>
struct Words<Precision> {
  static constexpr std::array<std::string_view, 3> list = {"fp32", "bf16", "auto"};
};

template <typename E>
struct Words<std::optional<E>> : Words<E> {};

/// Throws Error(usage) for a value that is none.
template <typename E>
std::string_view word(E value) {
  const auto index = static_cast<size_t>(value);
  if (index >= Words<E>::list.size()) refuse_enum(index);
  return Words<E>::list[index];
}

/// A message without the option's name in front, where a check put it there itself.
std::string without_name(const std::string& message, std::string_view option);

/// All throw Error(usage), which says what was expected and names no option.
uint64_t read_whole_number(const std::string& text, const WholeNumber& range);
double read_number(const std::string& text, const Number& range);
size_t read_word(const std::string& text, std::span<const std::string_view> words);
InputSize read_extent(const std::string& text);

/// Reads `text` into a member; `what` is one of the kinds above.
inline void read_value(const std::string& text, int& member, const WholeNumber& what) {
  member = static_cast<int>(read_whole_number(text, what));
}
inline void read_value(const std::string& text, uint64_t& member, const WholeNumber& what) {
  member = read_whole_number(text, what);
}
inline void read_value(const std::string& text, double& member, const Number& what) {
  member = read_number(text, what);
}
inline void read_value(const std::string& text, std::string& member, const Text& what) {
  const std::string kept = what.canonical != nullptr ? what.canonical(text) : text;
  if (what.check != nullptr) what.check(kept);
  member = kept;
}
inline void read_value(const std::string& text, std::string& member, const PathText&) {
  member = text;
}
inline void read_value(const std::string& text, InputSize& member, const Extent&) {
  member = read_extent(text);
}
inline void read_value(const std::string& text, bool& member, const Flag&) {
  constexpr std::string_view kWords[] = {"false", "true"};
  member = read_word(text, kWords) == 1;
}
template <typename E>
requires std::is_enum_v<E>
void read_value(const std::string& text, E& member, const Word&) {
  member = static_cast<E>(read_word(text, Words<E>::list));
}
template <typename T, typename What>
void read_value(const std::string& text, std::optional<T>& member, const What& what) {
  T value{};
  read_value(text, value, what);
  member = value;
}

/// The text that read_value() takes for the value; empty where the member is left open.
inline std::string value_text(int value) { return std::to_string(value); }
inline std::string value_text(uint64_t value) { return std::to_string(value); }
std::string value_text(double value);
inline std::string value_text(bool value) { return value ? "true" : "false"; }
inline std::string value_text(const std::string& value) { return value; }
std::string value_text(const InputSize& value);
template <typename E>
requires std::is_enum_v<E> std::string value_text(E value) { return std::string(word(value)); }
template <typename T>
std::string value_text(const std::optional<T>& value) {
  return value ? value_text(*value) : std::string();
}

}  // namespace graft::options
