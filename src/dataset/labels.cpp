#include "dataset/labels.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/utf8.h"

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

/// Cyrillic and Greek letters that look like Latin ones, and the Turkish i without its dot.
constexpr std::pair<int32_t, char> kLikeLatin[] = {
    // Cyrillic
    {0x0410, 'A'},
    {0x0412, 'B'},
    {0x0415, 'E'},
    {0x0405, 'S'},
    {0x0406, 'I'},
    {0x0408, 'J'},
    {0x041A, 'K'},
    {0x041C, 'M'},
    {0x041D, 'H'},
    {0x041E, 'O'},
    {0x0420, 'P'},
    {0x0421, 'C'},
    {0x0422, 'T'},
    {0x0423, 'Y'},
    {0x0425, 'X'},
    {0x0430, 'a'},
    {0x0435, 'e'},
    {0x043E, 'o'},
    {0x0440, 'p'},
    {0x0441, 'c'},
    {0x0443, 'y'},
    {0x0445, 'x'},
    {0x0455, 's'},
    {0x0456, 'i'},
    {0x0458, 'j'},
    {0x04AE, 'Y'},
    {0x04BA, 'H'},
    {0x04BB, 'h'},
    {0x04C0, 'I'},
    {0x04CF, 'l'},
    {0x0500, 'D'},
    {0x0501, 'd'},
    {0x051A, 'Q'},
    {0x051B, 'q'},
    {0x051C, 'W'},
    {0x051D, 'w'},
    // Greek
    {0x0391, 'A'},
    {0x0392, 'B'},
    {0x0395, 'E'},
    {0x0396, 'Z'},
    {0x0397, 'H'},
    {0x0399, 'I'},
    {0x039A, 'K'},
    {0x039C, 'M'},
    {0x039D, 'N'},
    {0x039F, 'O'},
    {0x03A1, 'P'},
    {0x03A4, 'T'},
    {0x03A5, 'Y'},
    {0x03A7, 'X'},
    {0x03B1, 'a'},
    {0x03B9, 'i'},
    {0x03BA, 'k'},
    {0x03BD, 'v'},
    {0x03BF, 'o'},
    {0x03C1, 'p'},
    {0x03C5, 'u'},
    {0x03C7, 'x'},
    {0x03F3, 'j'},
    {0x0131, 'i'}};

/// Accents of Latin, Greek and Cyrillic letters. Marks of other scripts are vowels and more.
bool is_accent(int32_t c) { return c >= 0x0300 && c <= 0x036F; }

bool is_digit(int32_t c) { return utf8proc_category(c) == UTF8PROC_CATEGORY_ND; }

/// What stands between words, or is easily left out. Not #, %, & and the like: "c#" is not "c".
bool is_loose(int32_t c) {
  constexpr std::string_view kLoose = "!\"',./:;?\\";
  if (is_space(c)) return true;
  if (c < 0x80 && kLoose.find(static_cast<char>(c)) != std::string_view::npos) return true;
  switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_PC:  // underscores
    case UTF8PROC_CATEGORY_PD:  // hyphens and dashes
    case UTF8PROC_CATEGORY_PS:  // brackets and quotes
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
      return true;
    default:
      return false;
  }
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
  std::string folded =
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

std::string label_skeleton(std::string_view label) {
  const std::string text =
      map(label, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT | UTF8PROC_IGNORE);
  std::string out;
  std::string between;  // loose characters since the last kept one
  int32_t last = -1;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view before = rest;
    const int32_t c = take_code_point(rest);
    if (c < 0) return "";
    if (is_accent(c)) continue;
    const std::string_view bytes = before.substr(0, before.size() - rest.size());
    if (is_loose(c)) {
      const auto category = utf8proc_category(c);
      const bool gap =
          is_space(c) || category == UTF8PROC_CATEGORY_PC || category == UTF8PROC_CATEGORY_PD;
      between += gap ? "-" : bytes;
      continue;
    }
    // Between digits, and as a sign, they matter: 1.5 is not 15, nor -5 a 5.
    if (is_digit(c) && (is_digit(last) || (last < 0 && between.ends_with('-')))) out += between;
    between.clear();
    const auto* like = std::find_if(std::begin(kLikeLatin), std::end(kLikeLatin),
                                    [&](const auto& pair) { return pair.first == c; });
    if (like != std::end(kLikeLatin))
      out += like->second;
    else
      out += bytes;
    last = c;
  }
  return map(out, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD);
}

std::vector<std::string> look_alike_notes(const std::vector<std::string>& labels) {
  constexpr size_t kMostNotes = 10;
  std::map<std::string, const std::string*> seen;
  std::vector<std::string> notes;
  size_t more = 0;
  for (const std::string& label : labels) {
    const std::string skeleton = label_skeleton(label);
    if (skeleton.empty() || single_letter(label)) continue;
    const auto [at, fresh] = seen.emplace(skeleton, &label);
    if (fresh) continue;
    if (notes.size() == kMostNotes)
      ++more;
    else
      notes.push_back(
          fmt::format("labels '{}' and '{}' look alike; if they are one class, merge them",
                      printable(*at->second), printable(label)));
  }
  if (more > 0) notes.push_back(fmt::format("{} more pairs of labels look alike", more));
  return notes;
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
  const std::string skeleton = label_skeleton(label);
  for (const std::string& name : classes)
    if (!skeleton.empty() && label_skeleton(name) == skeleton)
      return fmt::format("; '{}' looks like it: rename the folder or label if they are one",
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
