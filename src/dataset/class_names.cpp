// Names of classes as people type them: class_names() of graft/weights.h.
#include <algorithm>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "dataset/labels.h"
#include "graft/weights.h"

namespace graft {
namespace {

constexpr uint64_t kMostBytes = uint64_t{16} << 20U;

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> out;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find(separator, at), text.size());
    out.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

}  // namespace

std::vector<std::string> class_names(const std::string& text) {
  if (text.empty()) return {};
  std::error_code error;
  const bool is_file = fs::is_regular_file(text, error);
  if (!is_file && text.find(',') == std::string::npos)
    fail(
        ErrorKind::usage,
        "`classes`: '{}' is no file, and names of classes stand between commas: 'cat,dog'; or give "
        "a text file with one a line",
        clipped(printable(text)));
  std::string content = is_file ? read_text_file(text, kMostBytes) : text;
  const std::string where = is_file ? printable(text) : "`classes`";
  if (content.starts_with("\xEF\xBB\xBF")) content.erase(0, 3);
  std::vector<std::string> lines = split(content, is_file ? '\n' : ',');
  while (is_file && !lines.empty() && canonical_label(lines.back()).empty()) lines.pop_back();
  std::vector<std::string> out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].ends_with('\r')) lines[i].pop_back();
    const std::string place = is_file ? fmt::format("{}, line {}", where, i + 1)
                                      : fmt::format("{}, name {}", where, i + 1);
    try {
      require_label(lines[i], place);
    } catch (const Error& refusal) {
      fail(ErrorKind::usage, "{}", refusal.what());
    }
    out.push_back(canonical_label(lines[i]));
    if (out.back().empty()) fail(ErrorKind::usage, "{}: a name is empty", place);
    if (std::find(out.begin(), out.end() - 1, out.back()) != out.end() - 1)
      fail(ErrorKind::usage, "{}: '{}' stands twice", place, clipped(out.back()));
  }
  return out;
}

}  // namespace graft
