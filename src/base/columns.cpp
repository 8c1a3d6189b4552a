#include "base/columns.h"

#include <utf8proc.h>

#include <algorithm>

#include "base/utf8.h"

namespace graft {
namespace {

/// Takes a character with the marks on it off the text; returns how many columns it has.
size_t take_character(std::string_view& text) {
  const int32_t first = take_code_point(text);
  if (first < 0) {
    text.remove_prefix(1);
    return 1;
  }
  auto width = static_cast<size_t>(std::max(0, utf8proc_charwidth(first)));
  for (std::string_view rest = text; !rest.empty(); text = rest) {
    const int32_t next = take_code_point(rest);
    if (next < 0 || utf8proc_charwidth(next) > 0 || breaks_a_line(next)) break;
  }
  return width;
}

}  // namespace

size_t columns_of(std::string_view text) {
  size_t columns = 0;
  while (!text.empty()) columns += take_character(text);
  return columns;
}

std::string cut_to_columns(std::string_view text, size_t columns) {
  constexpr std::string_view kCut = "…";
  const size_t all = columns_of(text);
  if (all <= columns) return std::string(text);
  if (columns == 0) return {};
  const size_t front = columns / 2;
  const size_t back = columns - 1 - front;
  std::string out;
  std::string_view rest = text;
  size_t used = 0;
  for (std::string_view before = rest; !rest.empty(); before = rest) {
    const size_t width = take_character(rest);
    if (used + width > front) {
      rest = before;
      break;
    }
    out += before.substr(0, before.size() - rest.size());
    used += width;
  }
  out += kCut;
  while (columns_of(rest) > back) take_character(rest);
  return out.append(rest);
}

std::string in_columns(std::string_view text, size_t columns, bool right) {
  std::string out = cut_to_columns(text, columns);
  const std::string pad(columns - columns_of(out), ' ');
  return right ? pad + out : out + pad;
}

std::string wrapped(std::string_view text, size_t columns, size_t hanging) {
  hanging = std::min(hanging, columns / 2);
  std::string out;
  size_t used = 0;        // of the line, without the spaces at its end
  bool has_word = false;  // on the line
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\n') {
      out += '\n';
      used = 0;
      has_word = false;
      ++at;
      continue;
    }
    const size_t word = std::min(text.find_first_not_of(' ', at), text.size());
    const size_t end = std::min(text.find_first_of(" \n", word), text.size());
    const size_t spaces = word - at;
    const size_t wide = columns_of(text.substr(word, end - word));
    if (wide > 0 && has_word && used + spaces + wide > columns) {
      out += '\n' + std::string(hanging, ' ');
      used = hanging;
    } else {
      out.append(spaces, ' ');
      used += spaces;
    }
    out += text.substr(word, end - word);
    used += wide;
    has_word = has_word || wide > 0;
    at = end;
  }
  return out;
}

}  // namespace graft
