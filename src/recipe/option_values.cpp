#include "recipe/option_values.h"

#include <algorithm>
#include <charconv>

#include "base/fail.h"
#include "base/words.h"

namespace graft::options {
namespace {

constexpr int kMostPixels = 16384;

/// The whole text as a number; false for anything else.
template <typename T>
bool parse(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string without_name(const std::string& message, std::string_view option) {
  const std::string start = fmt::format("`{}`: ", option);
  return message.starts_with(start) ? message.substr(start.size()) : message;
}

uint64_t read_whole_number(const std::string& text, const WholeNumber& range) {
  uint64_t value = 0;
  // Elsewhere a leading zero means octal.
  const bool octal = text.size() > 1 && text[0] == '0';
  if (octal || !parse(text, value) || value < range.least || value > range.most)
    fail(ErrorKind::usage, "'{}' is not a whole number from {} to {}, in decimal digits",
         clipped(text), range.least, range.most);
  return value;
}

double read_number(const std::string& text, const Number& range) {
  double value = 0;
  // Written so that "nan" is refused.
  if (!(parse(text, value) && value >= range.least && value <= range.most))
    fail(ErrorKind::usage, "'{}' is not a number from {:g} to {:g}", clipped(text), range.least,
         range.most);
  return value;
}

size_t read_word(const std::string& text, std::span<const std::string_view> words) {
  const auto at = std::find(words.begin(), words.end(), text);
  if (at == words.end())
    fail(ErrorKind::usage, "'{}' is none of {}{}", clipped(text), fmt::join(words, ", "),
         did_you_mean(text, {words.begin(), words.end()}));
  return static_cast<size_t>(at - words.begin());
}

InputSize read_extent(const std::string& text) {
  const size_t cross = text.find('x');
  const std::string_view all = text;
  InputSize size;
  const bool good = parse(all.substr(0, cross), size.height) &&
                    (cross == std::string::npos ? (size.width = size.height, true)
                                                : parse(all.substr(cross + 1), size.width)) &&
                    size.height >= 1 && size.height <= kMostPixels && size.width >= 1 &&
                    size.width <= kMostPixels;
  if (!good)
    fail(ErrorKind::usage, "'{}' is not a size; write 224 or, height first, 150x200",
         clipped(text));
  return size;
}

std::string value_text(double value) { return fmt::format("{}", value); }

std::string value_text(const InputSize& value) {
  return value == InputSize() ? std::string() : fmt::format("{}x{}", value.height, value.width);
}

void refuse_enum(size_t value) {
  fail(ErrorKind::usage, "{} is the number of no value of this option", value);
}

}  // namespace graft::options
