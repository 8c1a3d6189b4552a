// Reading reviews of labels, and doing what they say.
#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/utf8.h"
#include "dataset/archive.h"
#include "dataset/dataset.h"
#include "dataset/labels.h"
#include "dataset/review.h"
#include "dataset/table_file.h"
#include "graft/labels.h"

namespace graft {
namespace {

constexpr const char* kExpected =
    "expected a review as 'graft check --review' writes it: a first line "
    "path,label,suggestion,confidence,action,content and a line for each image";
constexpr const char* kActions = "keep, drop, relabel (as the suggestion says), or a class";
constexpr std::array<std::string_view, 3> kWords = {"keep", "drop", "relabel"};

enum class Action { none, keep, drop, relabel };

/// A line of the file.
struct Row {
  std::string where;  // file and line, for messages
  std::string path;
  std::string label;
  std::string suggestion;
  std::string confidence;
  std::string action;
  std::string new_label;
  std::string content;  // of the image that was judged; may be empty
};

struct Decision {
  Action action = Action::none;
  int label = -1;  // of relabel
  bool operator==(const Decision&) const = default;
};

bool is_utf8(std::string_view text) {
  while (!text.empty())
    if (take_code_point(text) < 0) return false;
  return true;
}

/// Where a decision was read.
struct Decided {
  Decision decision;
  std::string where;
  bool beneath = false;
};

/// Which column each of a row's fields stands in; past the end: in none.
class Columns {
 public:
  Columns(const TableFile& table, const std::string& name) : header_(table.rows[0].fields) {
    for (const auto& [wanted, at] : {std::pair("path", &path_),
                                     {"label", &label_},
                                     {"suggestion", &suggestion_},
                                     {"confidence", &confidence_},
                                     {"action", &action_},
                                     {"new_label", &new_label_},
                                     {"content", &content_}})
      for (size_t k = 0; k < header_.size(); ++k) {
        if (column_name(header_[k]) != wanted) continue;
        if (*at != kNone) fail(ErrorKind::input, "{}: two columns are called '{}'", name, wanted);
        *at = k;
      }
    if (path_ == kNone || (action_ == kNone && new_label_ == kNone))
      fail(ErrorKind::input, "{}: not a review: its first line is '{}'; {}", name,
           excerpt(table.first_line), kExpected);
  }

  [[nodiscard]] bool has_new_label() const { return new_label_ != kNone; }

  [[nodiscard]] Row read(const CsvRow& row, const std::string& name) const {
    Row out;
    out.where = fmt::format("{}:{}", name, row.line);
    // Spreadsheets leave out or add empty fields at the end.
    for (size_t k = header_.size(); k < row.fields.size(); ++k)
      if (!row.fields[k].empty())
        fail(ErrorKind::input, "{}: {} fields where the header has {}", out.where,
             row.fields.size(), header_.size());
    const auto field = [&](size_t column) {
      return column < row.fields.size() ? std::string(trimmed(row.fields[column])) : std::string();
    };
    out.path = path_ < row.fields.size() ? row.fields[path_] : "";
    out.label = label_of_field(field(label_));
    out.suggestion = label_of_field(field(suggestion_));
    out.confidence = field(confidence_);
    out.action = label_of_field(field(action_));
    out.new_label = label_of_field(field(new_label_));
    out.content = field(content_);
    return out;
  }

 private:
  static constexpr size_t kNone = static_cast<size_t>(-1);
  const std::vector<std::string>& header_;
  size_t path_ = kNone, label_ = kNone, suggestion_ = kNone, confidence_ = kNone, action_ = kNone,
         new_label_ = kNone, content_ = kNone;
};

/// Finds the samples that a path of a review names; one image may be in two splits.
class Finder {
 public:
  Finder(const Dataset& dataset, const fs::path& file)
      : dataset_(dataset), folders_{review_folder(dataset), fs::absolute(file).parent_path()} {
    for (size_t i = 0; i < dataset.samples.size(); ++i) {
      const fs::path whole = fs::absolute(dataset.samples[i].path).lexically_normal();
      by_path_[whole.string()].push_back(i);
      by_name_[whole.filename().string()].push_back(i);
    }
  }

  [[nodiscard]] std::vector<size_t> find(const Row& row) {
    const fs::path path(row.path);
    if (path.is_absolute()) return find_whole(path);
    for (const fs::path& folder : folders_)
      if (std::vector<size_t> found = find_whole(folder / path); !found.empty()) return found;
    return find_ending(path.lexically_normal(), row.where);
  }

 private:
  [[nodiscard]] std::vector<size_t> find_whole(const fs::path& path) {
    if (const auto at = by_path_.find(path.lexically_normal().string()); at != by_path_.end())
      return at->second;
    std::error_code error;
    const fs::path real = fs::weakly_canonical(path, error);
    if (error || kind_of_path(real) == PathKind::nothing) return {};
    if (by_real_path_.empty())
      for (const auto& [whole, samples] : by_path_)
        by_real_path_.emplace(fs::weakly_canonical(whole, error).string(), samples);
    const auto at = by_real_path_.find(real.string());
    return at == by_real_path_.end() ? std::vector<size_t>() : at->second;
  }

  /// A folder above or below the one that was checked is given, or the data has moved with it.
  [[nodiscard]] std::vector<size_t> find_ending(const fs::path& path,
                                                const std::string& where) const {
    const auto named = by_name_.find(path.filename().string());
    if (named == by_name_.end()) return {};
    std::map<std::string, std::vector<size_t>> found;
    for (const size_t i : named->second) {
      const std::string whole = fs::absolute(dataset_.samples[i].path).lexically_normal().string();
      if (whole.ends_with("/" + path.string())) found[whole].push_back(i);
    }
    if (found.size() > 1)
      fail(ErrorKind::input,
           "{}: '{}' may be {} or {}; name the DATA that was checked, or write the whole path",
           where, excerpt(path.string()), printable(found.begin()->first),
           printable(std::next(found.begin())->first));
    return found.empty() ? std::vector<size_t>() : found.begin()->second;
  }

  const Dataset& dataset_;
  std::array<fs::path, 2> folders_;
  std::map<std::string, std::vector<size_t>> by_path_;
  std::map<std::string, std::vector<size_t>> by_real_path_;  // filled where it is needed
  std::map<std::string, std::vector<size_t>> by_name_;
};

class Corrections {
 public:
  Corrections(Dataset& dataset, const EarlierCorrections& earlier)
      : dataset_(dataset),
        gone_(gone(earlier.classes, dataset.classes)),
        decided_(dataset.samples.size()) {}

  /// `beneath`: decisions on an earlier state of the dataset, which count where no others do.
  void read_file(const fs::path& file, bool beneath, bool lenient) {
    lenient_ = lenient;
    beneath_ = beneath;
    name_ = printable(file);
    const TableFile table = read_table_file(file, "review", kExpected, ",;\t");
    const Columns columns(table, name_);
    Finder finder(dataset_, file);
    bool any = false;
    for (size_t k = 1; k < table.rows.size(); ++k) {
      const CsvRow& fields = table.rows[k];
      // Spreadsheets keep lines whose fields were emptied.
      if (std::all_of(fields.fields.begin(), fields.fields.end(),
                      [](const std::string& field) { return trimmed(field).empty(); }))
        continue;
      const Row row = columns.read(fields, name_);
      if (row.path.empty()) fail(ErrorKind::input, "{}: the path is empty", row.where);
      const std::optional<Decision> read_as = read_or_leave(row, columns.has_new_label());
      if (!read_as) continue;
      const Decision decision = *read_as;
      const std::vector<size_t> samples = finder.find(row);
      if (samples.empty() && !is_utf8(row.path))
        fail(
            ErrorKind::input,
            "{}: the path is not UTF-8, as some spreadsheets save text; save the file as CSV UTF-8",
            row.where);
      any = any || !samples.empty();
      if (!row.content.empty() && decision.action != Action::none && is_another(samples, row)) {
        ++replaced_;
        continue;
      }
      if (decision.action == Action::none) ++undecided_;
      if (decision.action != Action::none && !is_decided_above(samples))
        decisions_ += as_csv(row, decision, samples);
      if (samples.empty() && decision.action != Action::none && unknown_++ == 0)
        first_unknown_ = row.path;
      for (const size_t i : samples) decide(i, row, decision);
    }
    if (!any && !lenient_ && table.rows.size() > 1)
      fail(ErrorKind::input,
           "{}: none of its images is in {}; paths are relative to the DATA that was checked",
           name_, printable(dataset_.root));
    names_ += (names_.empty() ? "" : " and ") + name_;
  }

  void apply(const fs::path& file) {
    require_all_classes();
    change_dataset();
    dataset_.corrections = file;
    dataset_.decisions = decisions_ == kReviewHeader ? "" : std::move(decisions_);
  }

 private:
  /// As people type it: in any case too, where that is one class alone. Letters are not: data of
  /// handwriting has "a" and "A". −1: there is none.
  [[nodiscard]] int find_class(const std::string& label) const {
    const int same = find_label(dataset_.classes, label);
    if (same >= 0 || label.size() < 2) return same;
    const std::string folded = folded_label(label);
    const auto alike = [&](const std::string& name) { return folded_label(name) == folded; };
    const auto begin = dataset_.classes.begin();
    const auto first = std::find_if(begin, dataset_.classes.end(), alike);
    if (first == dataset_.classes.end()) return -1;
    return std::find_if(first + 1, dataset_.classes.end(), alike) == dataset_.classes.end()
               ? static_cast<int>(first - begin)
               : -1;
  }

  [[nodiscard]] int class_of(const std::string& label, const Row& row, const char* what) const {
    const int found = find_class(label);
    if (found < 0)
      fail(ErrorKind::input, "{}: {} '{}' is no class of the data ({}){}", row.where, what,
           excerpt(label), label_list(dataset_.classes), near_label_hint(dataset_.classes, label));
    return found;
  }

  /// What a row says. `apart`: classes have a column of their own.
  [[nodiscard]] Decision read(const Row& row, bool apart) const {
    const std::string word = folded_label(row.action);
    const bool is_word = std::find(kWords.begin(), kWords.end(), word) != kWords.end();
    if (is_word && !apart && find_class(row.action) >= 0)
      fail(
          ErrorKind::input,
          "{}: '{}' is an action, and a class of the data; add a column new_label for classes, and "
          "the action alone is meant",
          row.where, excerpt(row.action));
    if (!row.new_label.empty()) {
      const int label = class_of(row.new_label, row, "new_label");
      if (!word.empty() && word != "relabel" && find_class(row.action) != label)
        fail(ErrorKind::input, "{}: the action '{}' and the new_label '{}' contradict each other",
             row.where, excerpt(row.action), excerpt(row.new_label));
      return {Action::relabel, label};
    }
    if (word.empty()) return {};
    if (word == "keep") return {Action::keep, -1};
    if (word == "drop") return {Action::drop, -1};
    if (word == "relabel") {
      if (row.suggestion.empty())
        fail(ErrorKind::input, "{}: relabel, and there is no suggestion; write the class itself",
             row.where);
      return {Action::relabel, class_of(row.suggestion, row, "the suggestion")};
    }
    const int label = find_class(row.action);
    if (label < 0)
      fail(ErrorKind::input, "{}: the action '{}' is none of {} of the data ({}){}", row.where,
           excerpt(row.action), kActions, label_list(dataset_.classes),
           near_label_hint(dataset_.classes, row.action));
    return {Action::relabel, label};
  }

  static std::set<std::string> gone(std::span<const std::string> earlier,
                                    const std::vector<std::string>& classes) {
    std::set<std::string> out;
    for (const std::string& label : earlier)
      if (find_label(classes, label) < 0) out.insert(folded_label(label));
    return out;
  }

  /// Nothing for a decision on a class that there is no more.
  [[nodiscard]] std::optional<Decision> read_or_leave(const Row& row, bool apart) {
    try {
      return read(row, apart);
    } catch (const Error&) {
      const std::string word = folded_label(row.action);
      const std::string label = folded_label(!row.new_label.empty() ? row.new_label
                                             : word == "relabel"    ? row.suggestion
                                                                    : row.action);
      if (!lenient_ || !gone_.contains(label)) throw;
      ++outdated_;
      return std::nullopt;
    }
  }

  void decide(size_t i, const Row& row, const Decision& decision) {
    if (beneath_ && decided_[i] && decided_[i]->beneath != beneath_) return;
    const Sample& sample = dataset_.samples[i];
    const int stated = row.label.empty() ? sample.label : find_class(row.label);
    const bool settled = decision.action == Action::drop ||
                         (decision.action == Action::relabel && decision.label == sample.label);
    if (stated != sample.label && !settled && lenient_) {
      ++outdated_;
      return;
    }
    if (stated != sample.label && !settled)
      fail(
          ErrorKind::input,
          "{}: the label is '{}' here and '{}' in the data; to change it, write the class into the "
          "column action, else take the line out",
          row.where, excerpt(row.label), dataset_.classes[static_cast<size_t>(sample.label)]);
    if (decision.action == Action::none) return;
    if (decided_[i] && decided_[i]->decision != decision)
      fail(ErrorKind::input, "{}: another decision on '{}' than in {}", row.where,
           excerpt(row.path), decided_[i]->where);
    decided_[i] = {decision, row.where, beneath_};
  }

  /// Whether the path has another image by now than the one that was decided on.
  [[nodiscard]] bool is_another(const std::vector<size_t>& samples, const Row& row) {
    return std::any_of(samples.begin(), samples.end(),
                       [&](size_t i) { return !content(i).empty() && content(i) != row.content; });
  }

  /// Of the file, which is read once; empty where it cannot be.
  const std::string& content(size_t i) {
    Sample& sample = dataset_.samples[i];
    if (sample.content.empty()) sample.content = content_hashes({&sample.path, 1}, {})[0];
    return sample.content;
  }

  [[nodiscard]] bool is_decided_above(const std::vector<size_t>& samples) const {
    return beneath_ && std::any_of(samples.begin(), samples.end(),
                                   [&](size_t i) { return decided_[i] && !decided_[i]->beneath; });
  }

  /// The row with its decision, as this program writes it.
  [[nodiscard]] std::string as_csv(const Row& row, const Decision& decision,
                                   const std::vector<size_t>& samples) {
    const std::string path =
        samples.empty() ? row.path : review_path(dataset_, dataset_.samples[samples[0]].path);
    std::string suggestion = row.suggestion;
    if (decision.action == Action::relabel)
      suggestion = dataset_.classes[static_cast<size_t>(decision.label)];
    const bool same = suggestion == row.suggestion;
    return review_line(path, row.label, suggestion, same ? csv_field(row.confidence) : "",
                       kWords.at(static_cast<size_t>(decision.action) - 1),
                       row.content.empty() && !samples.empty() ? content(samples[0]) : row.content);
  }

  void require_all_classes() const {
    std::vector<bool> before(dataset_.classes.size());
    std::vector<bool> after(dataset_.classes.size());
    for (size_t i = 0; i < dataset_.samples.size(); ++i) {
      const int label = dataset_.samples[i].label;
      const Decision decision = decided_[i] ? decided_[i]->decision : Decision{};
      before[static_cast<size_t>(label)] = true;
      if (decision.action != Action::drop)
        after[static_cast<size_t>(decision.action == Action::relabel ? decision.label : label)] =
            true;
    }
    for (size_t c = 0; c < before.size(); ++c)
      if (before[c] && !after[c])
        fail(ErrorKind::input, "{}: it leaves no image of class '{}'", names_, dataset_.classes[c]);
  }

  void change_dataset() {
    size_t relabelled = 0;
    size_t kept = 0;
    std::vector<Sample> samples;
    samples.reserve(dataset_.samples.size());
    for (size_t i = 0; i < dataset_.samples.size(); ++i) {
      Sample& sample = dataset_.samples[i];
      const Decision decision = decided_[i] ? decided_[i]->decision : Decision{};
      if (decision.action == Action::drop) continue;
      if (decision.action == Action::keep) ++kept;
      if (decision.action == Action::relabel) {
        if (sample.label != decision.label) ++relabelled;
        sample.label = decision.label;
      }
      sample.reviewed = sample.reviewed || decision.action != Action::none;
      samples.push_back(std::move(sample));
    }
    const size_t dropped = dataset_.samples.size() - samples.size();
    dataset_.samples = std::move(samples);
    dataset_.notes.push_back(fmt::format(
        "`corrections` {}: {} relabelled, {} dropped, {} kept{}", names_, relabelled, dropped, kept,
        undecided_ > 0 ? fmt::format(", {} undecided", undecided_) : ""));
    if (outdated_ > 0)
      dataset_.notes.push_back(
          fmt::format("{}: {} left out, on classes or labels that the data has no more", names_,
                      outdated_ == 1 ? "1 decision" : fmt::format("{} decisions", outdated_)));
    if (replaced_ > 0)
      dataset_.notes.push_back(fmt::format(
          "{}: {} left out, since another image is in that place by now; empty the column content "
          "of a line to decide on what is there",
          names_, replaced_ == 1 ? "1 decision" : fmt::format("{} decisions", replaced_)));
    if (unknown_ > 0)
      dataset_.notes.push_back(
          fmt::format("{}: {} of an image that is not in the data, the first: {}", names_,
                      unknown_ == 1 ? "1 decision" : fmt::format("{} decisions, each", unknown_),
                      excerpt(first_unknown_)));
  }

  Dataset& dataset_;
  std::set<std::string> gone_;  // classes of the earlier state that there are no more, folded
  std::string name_;            // of the file that is read
  bool lenient_ = false;        // its decisions are on the earlier state
  bool beneath_ = false;
  std::string names_;  // of all files
  std::string decisions_ = std::string(kReviewHeader);
  std::vector<std::optional<Decided>> decided_;  // by sample
  size_t outdated_ = 0;
  size_t replaced_ = 0;
  size_t undecided_ = 0;
  size_t unknown_ = 0;
  std::string first_unknown_;
};

}  // namespace

void apply_corrections(Dataset& dataset, const fs::path& file, const EarlierCorrections& earlier) {
  check_dataset(dataset);
  Corrections corrections(dataset, earlier);
  if (!file.empty()) corrections.read_file(file, false, earlier.both);
  if (!earlier.file.empty()) corrections.read_file(earlier.file, true, true);
  corrections.apply(file.empty() ? earlier.file : file);
}

}  // namespace graft
