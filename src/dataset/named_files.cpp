#include "dataset/named_files.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "dataset/archive.h"
#include "dataset/folders.h"
#include "dataset/table_file.h"

namespace graft {
namespace {

constexpr size_t kMostNames = 1'000'000;

std::optional<uint64_t> number(std::string_view text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "0000..0999" or "a,b"; nothing for what a shell would leave as it is.
std::vector<std::string> alternatives(std::string_view inside) {
  std::vector<std::string> out;
  if (const size_t dots = inside.find(".."); dots != std::string_view::npos) {
    const std::string_view left = inside.substr(0, dots);
    const std::string_view right = inside.substr(dots + 2);
    const std::optional<uint64_t> first = number(left);
    const std::optional<uint64_t> last = number(right);
    if (!first || !last) return out;
    if (*last < *first || *last - *first >= kMostNames)
      fail(ErrorKind::usage,
           "'{{{}}}': expected a first number that is not over the last, and at most {} of them",
           clipped(std::string(inside)), kMostNames);
    // As wide as the first, if that begins with a zero: as in shells.
    const bool padded =
        (left.size() > 1 && left[0] == '0') || (right.size() > 1 && right[0] == '0');
    const size_t width = padded ? std::max(left.size(), right.size()) : 0;
    for (uint64_t k = *first; k <= *last; ++k) out.push_back(fmt::format("{:0{}}", k, width));
    return out;
  }
  if (inside.find(',') == std::string_view::npos) return out;
  for (;;) {
    const size_t comma = std::min(inside.find(','), inside.size());
    out.emplace_back(inside.substr(0, comma));
    if (comma == inside.size()) return out;
    inside.remove_prefix(comma + 1);
  }
}

/// Whether a text file begins as a manifest does, whose suffix nobody has asked for so far.
bool is_manifest(const fs::path& file) {
  constexpr size_t kHead = 256;
  std::string head(kHead, '\0');
  std::ifstream stream(file, std::ios::binary);
  stream.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<size_t>(stream.gcount()));
  const std::string line = head.substr(0, head.find_first_of("\r\n"));
  bool path = false;
  bool label = false;
  for (size_t start = 0; start <= line.size();) {
    const size_t end = std::min(line.find(',', start), line.size());
    const std::string column = column_name(line.substr(start, end - start));
    path |= column == "path";
    label |= column == "label";
    start = end + 1;
  }
  return path && label;
}

std::vector<fs::path> read_list(const fs::path& file) {
  const std::string name = printable(file);
  std::string text = read_text_file(file);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  if (text.find('\0') != std::string::npos)
    fail(ErrorKind::input, "{}: no text; expected a list of paths, one a line", name);
  std::vector<fs::path> out;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!trimmed(line).empty()) out.push_back(file.parent_path() / line);
  }
  if (out.empty()) fail(ErrorKind::input, "{}: an empty list; expected paths, one a line", name);
  return out;
}

/// The list that "@list.txt" means, also in "folder/@list.txt", as it is written once it is whole.
fs::path without_at(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.size() > 1 && name[0] == '@' ? path.parent_path() / name.substr(1) : fs::path();
}

}  // namespace

std::vector<std::string> expand_braces(const std::string& text) {
  for (size_t open = text.find('{'); open != std::string::npos; open = text.find('{', open + 1)) {
    const size_t close = text.find('}', open);
    if (close == std::string::npos) break;
    const std::vector<std::string> inside =
        alternatives(std::string_view(text).substr(open + 1, close - open - 1));
    if (inside.empty()) continue;
    std::vector<std::string> out;
    const std::vector<std::string> tails = expand_braces(text.substr(close + 1));
    if (inside.size() * tails.size() > kMostNames)
      fail(ErrorKind::usage, "'{}': more than {} names", clipped(text), kMostNames);
    for (const std::string& word : inside)
      for (const std::string& tail : tails) out.push_back(text.substr(0, open) + word + tail);
    return out;
  }
  return {text};
}

std::optional<std::vector<fs::path>> named_files(const fs::path& path) {
  std::error_code error;
  const bool is_list =
      lower_suffix(path) == ".txt" && fs::is_regular_file(path, error) && !is_manifest(path);
  if (is_list) return read_list(path);
  if (fs::exists(path, error)) return std::nullopt;
  if (const fs::path list = without_at(path); !list.empty()) return read_list(list);
  // "@a/list.txt" has the sign in its first part.
  if (const std::string& text = path.native(); text.starts_with('@') && text.size() > 1)
    return read_list(text.substr(1));
  const std::vector<std::string> names = expand_braces(path.string());
  if (names.size() == 1 && names[0] == path.native()) return std::nullopt;
  if (kind_of_path(path) != PathKind::nothing) return std::nullopt;  // in an archive
  std::vector<fs::path> out(names.begin(), names.end());
  const auto missing = [&](const fs::path& file) { return !fs::exists(file, error); };
  if (const auto first = std::find_if(out.begin(), out.end(), missing); first != out.end())
    fail(ErrorKind::input,
         "{}: {} of the {} files that the pattern names {} not there, the first: {}",
         printable(path), std::count_if(first, out.end(), missing), out.size(),
         std::count_if(first, out.end(), missing) == 1 ? "is" : "are", printable(*first));
  return out;
}

}  // namespace graft
