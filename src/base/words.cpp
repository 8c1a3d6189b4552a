#include "base/words.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace graft {
namespace {

/// The largest number of bytes, at most `most`, that does not cut a character of UTF-8.
size_t whole_characters(std::string_view text, size_t most) {
  if (text.size() <= most) return text.size();
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80) --end;
  return end;
}

std::string plain(std::string_view word) {
  std::string out(word);
  for (char& c : out)
    c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

// An exchange of neighbours is the commonest slip: two of them cost one letter.
constexpr size_t kExchange = 1;
constexpr size_t kLetter = 2;

/// Letters to add, drop, replace or exchange (optimal string alignment), weighted as above.
size_t distance(std::string_view a, std::string_view b) {
  std::array<std::vector<size_t>, 3> rows;
  for (auto& row : rows) row.resize(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) rows[0][j] = kLetter * j;
  for (size_t i = 1; i <= a.size(); ++i) {
    const auto& before = rows[(i - 1) % 3];
    auto& row = rows[i % 3];
    row[0] = kLetter * i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({before[j] + kLetter, row[j - 1] + kLetter,
                         before[j - 1] + (a[i - 1] == b[j - 1] ? 0 : kLetter)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && a[i - 1] != b[j - 1])
        row[j] = std::min(row[j], rows[(i - 2) % 3][j - 2] + kExchange);
    }
  }
  return rows[a.size() % 3][b.size()];
}

}  // namespace

std::string clipped(std::string_view text) {
  constexpr size_t kMostBytes = 80;
  if (text.size() <= kMostBytes) return std::string(text);
  return std::string(text.substr(0, whole_characters(text, kMostBytes))) + "…";
}

std::string bounded(const std::string& message) {
  constexpr size_t kMostStretch = 4096;  // PATH_MAX: no longer path is a file's
  constexpr size_t kMostMessage = 3 * kMostStretch;
  constexpr std::string_view kBlanks = " \t\n";
  std::string out;
  for (size_t at = 0; at < message.size();) {
    const size_t end = std::min(message.find_first_of(kBlanks, at), message.size());
    const std::string_view stretch = std::string_view(message).substr(at, end - at);
    if (stretch.size() > kMostStretch) {
      const size_t kept = stretch.find_last_not_of(":;,.')") + 1;  // of the message, what follows
      out += clipped(stretch.substr(0, kept));
      if (stretch.size() - kept < 4) out += stretch.substr(kept);
    } else {
      out += stretch;
    }
    const size_t next = std::min(message.find_first_not_of(kBlanks, end), message.size());
    out += message.substr(end, next - end);
    at = next;
  }
  if (out.size() <= kMostMessage) return out;
  // What stands at the end says what to do.
  std::string_view tail = std::string_view(out).substr(out.size() - kMostStretch / 4);
  while (!tail.empty() && (static_cast<unsigned char>(tail[0]) & 0xC0U) == 0x80)
    tail.remove_prefix(1);
  return out.substr(0, whole_characters(out, kMostStretch)) + " … " + std::string(tail);
}

std::string nearest_word(std::string_view typed, const std::vector<std::string>& known) {
  constexpr size_t kLongest = 64;   // longer ones are no slip, and would take long
  constexpr size_t kBeginning = 3;  // letters that may stand for the rest
  constexpr size_t kLettersAnEdit = 4;
  if (typed.empty() || typed.size() > kLongest) return {};
  const std::string word = plain(typed);
  const std::string* best = nullptr;
  const std::string* longer = nullptr;
  size_t longer_words = 0;
  size_t least = std::string::npos;
  for (const std::string& candidate : known) {
    const std::string name = plain(candidate);
    if (word.size() >= kBeginning && name.starts_with(word)) {
      longer = &candidate;
      ++longer_words;
    }
    if (name.size() > 2 * kLongest) continue;
    const size_t allowed = kLetter * std::max(word.size(), name.size()) / kLettersAnEdit;
    if (const size_t d = distance(word, name); d <= allowed && d < least) {
      least = d;
      best = &candidate;
    }
  }
  if (best != nullptr) return *best;
  return longer_words == 1 ? *longer : std::string();
}

std::string did_you_mean(std::string_view typed, const std::vector<std::string>& known) {
  const std::string word = nearest_word(typed, known);
  return word.empty() ? "" : " (did you mean " + word + "?)";
}

std::vector<std::string> split_words(const std::string& text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (std::string_view(", \t\n").find(c) == std::string_view::npos)
      words.back() += c;
    else if (!words.back().empty())
      words.emplace_back();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::string shell_quoted(const std::string& argument) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:=,+@%";
  if (!argument.empty() && argument.find_first_not_of(kPlain) == std::string::npos) return argument;
  std::string out = "'";
  for (const char c : argument) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace graft
