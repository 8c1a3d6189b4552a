#include "dataset/labels.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>

#include "base/file.h"
#include "base/utf8.h"
#include "graft/error.h"

namespace graft {
namespace {

bool is_space(int32_t c) {
  return c == ' ' || c == '\t' || c == 0xFEFF || utf8proc_category(c) == UTF8PROC_CATEGORY_ZS;
}

std::string map(std::string_view text, int options) {
  utf8proc_uint8_t* out = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &out,
                                   static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, &std::free);
  if (length < 0)
    return std::string(text);  // not UTF-8: a label of an old model, compared by bytes
  return {reinterpret_cast<const char*>(out), static_cast<size_t>(length)};
}

std::string_view trimmed(std::string_view text) {
  size_t first = text.size();
  size_t last = 0;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t begin = text.size() - rest.size();
    const int32_t c = take_code_point(rest);
    if (c < 0) return text;
    if (is_space(c)) continue;
    first = std::min(first, begin);
    last = text.size() - rest.size();
  }
  return first < last ? text.substr(first, last - first) : std::string_view();
}

/// Latin letters that others are taken for, after letter case is folded: of Unicode's table of
/// confusable characters (UTS 39) the Cyrillic and Greek ones that keyboards have.
int32_t latin_look(int32_t c) {
  struct Look {
    int32_t letter;
    char as;
  };
  constexpr Look kLooks[] = {{0x430, 'a'}, {0x432, 'b'}, {0x435, 'e'}, {0x43A, 'k'}, {0x43C, 'm'},
                             {0x43D, 'h'}, {0x43E, 'o'}, {0x440, 'p'}, {0x441, 'c'}, {0x442, 't'},
                             {0x443, 'y'}, {0x445, 'x'}, {0x455, 's'}, {0x456, 'i'}, {0x458, 'j'},
                             {0x3B1, 'a'}, {0x3B2, 'b'}, {0x3B5, 'e'}, {0x3B6, 'z'}, {0x3B7, 'h'},
                             {0x3B9, 'i'}, {0x3BA, 'k'}, {0x3BC, 'm'}, {0x3BD, 'n'}, {0x3BF, 'o'},
                             {0x3C1, 'p'}, {0x3C4, 't'}, {0x3C5, 'y'}, {0x3C7, 'x'}, {0x131, 'i'}};
  for (const auto& [letter, as] : kLooks)
    if (letter == c) return as;
  return c;
}

bool is_digit(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }

/// What is left of a label to the eye: letters and digits, without accents, and the signs that tell
/// names apart ("c" and "c++"). Spaces, dots, dashes and the like count between digits alone.
std::string skeleton(std::string_view label) {
  const std::string folded =
      map(label, UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE | UTF8PROC_CASEFOLD |
                     UTF8PROC_IGNORE | UTF8PROC_STRIPMARK);
  std::string out;
  int32_t before = 0;
  std::string between;  // signs since the last that counted
  std::string_view rest = folded;
  while (!rest.empty()) {
    const std::string_view at = rest;
    const int32_t c = take_code_point(rest);
    if (c < 0) return folded;
    const std::string_view text = at.substr(0, at.size() - rest.size());
    const auto category = utf8proc_category(c);
    if (is_space(c) || c == '.' || c == ',' || c == '\'' || category == UTF8PROC_CATEGORY_PD ||
        category == UTF8PROC_CATEGORY_PC) {
      between += text;
      continue;
    }
    if (is_digit(before) && is_digit(c)) out += between;
    between.clear();
    before = c;
    const int32_t look = latin_look(c);
    if (look == c)
      out += text;
    else
      out += static_cast<char>(look);
  }
  return out;
}

bool single_letter(std::string_view label) { return take_code_point(label) >= 0 && label.empty(); }

}  // namespace

void require_label(std::string_view label, std::string_view where) {
  if (trimmed(label).empty()) fail(ErrorKind::input, "{}: the label is empty", where);
  if (label.size() > kMaxLabelBytes)
    fail(ErrorKind::input, "{}: a label of {} bytes; at most {} are allowed", where, label.size(),
         kMaxLabelBytes);
  std::string_view rest = label;
  while (!rest.empty()) {
    const int32_t c = take_code_point(rest);
    if (c < 0)
      fail(ErrorKind::input,
           "{}: the label '{}' is not UTF-8 (perhaps Latin-1 or another old encoding); rename it, "
           "or save the file as UTF-8",
           where, printable(std::string(label)));
    if (breaks_a_line(c))
      fail(ErrorKind::input,
           "{}: the label '{}' has a control character (U+{:04X}) in it; rename it", where,
           printable(std::string(label)), static_cast<uint32_t>(c));
  }
}

std::string canonical_label(std::string_view label) {
  const bool ascii = std::all_of(label.begin(), label.end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (ascii) return std::string(trimmed(label));
  return std::string(trimmed(map(label, UTF8PROC_STABLE | UTF8PROC_COMPOSE)));
}

std::string folded_label(std::string_view label) {
  const std::string folded =
      map(label, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE);
  std::string out;
  std::string_view rest = trimmed(folded);
  bool space = false;
  while (!rest.empty()) {
    const std::string_view before = rest;
    const int32_t c = take_code_point(rest);
    if (c < 0) return folded;
    if (is_space(c)) {
      space = true;
      continue;
    }
    if (space) out += ' ';
    space = false;
    out += before.substr(0, before.size() - rest.size());
  }
  return out;
}

void require_distinct(const std::vector<std::string>& labels, std::string_view where) {
  std::map<std::string, const std::string*> seen;
  for (const std::string& label : labels) {
    const auto [at, fresh] = seen.emplace(folded_label(label), &label);
    if (fresh || (single_letter(label) && single_letter(*at->second))) continue;
    fail(ErrorKind::input,
         "{}: the classes '{}' and '{}' differ only in letter case, spaces or invisible "
         "characters; if they are one class, give both the same name, else name them apart",
         where, printable(*at->second), printable(label));
  }
}

std::vector<std::string> look_alike_notes(const std::vector<std::string>& labels) {
  std::map<std::string, const std::string*> seen;
  std::vector<std::string> notes;
  for (const std::string& label : labels) {
    const std::string look = skeleton(label);
    if (look.empty()) continue;
    const auto [at, fresh] = seen.emplace(look, &label);
    if (!fresh && !(single_letter(label) && single_letter(*at->second)))
      notes.push_back(
          fmt::format("the classes '{}' and '{}' look alike; if they are one, give both "
                      "the same name",
                      printable(*at->second), printable(label)));
  }
  return notes;
}

int find_label(const std::vector<std::string>& classes, std::string_view label) {
  auto at = std::find(classes.begin(), classes.end(), label);
  if (at == classes.end()) {
    const std::string wanted = canonical_label(label);
    at = std::find_if(classes.begin(), classes.end(),
                      [&](const std::string& name) { return canonical_label(name) == wanted; });
  }
  return at == classes.end() ? -1 : static_cast<int>(at - classes.begin());
}

std::string near_label_hint(const std::vector<std::string>& classes, std::string_view label) {
  const std::string folded = folded_label(label);
  for (const std::string& name : classes)
    if (folded_label(name) == folded)
      return fmt::format(
          "; '{}' differs from it only in letter case, spaces or invisible characters: rename "
          "the folder or label if they are one",
          printable(name));
  return "";
}

std::string label_list(const std::vector<std::string>& labels) {
  constexpr size_t kShown = 12;
  std::string out;
  for (size_t i = 0; i < std::min(labels.size(), kShown); ++i)
    out += (i > 0 ? ", " : "") + printable(labels[i]);
  if (labels.size() > kShown) out += fmt::format(", … ({} in all)", labels.size());
  return out;
}

}  // namespace graft
