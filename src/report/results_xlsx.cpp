#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xlsxwriter.h>
#include <zip.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "base/columns.h"
#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "report/result_file.h"

namespace graft {
namespace {

constexpr double kMostColumnWidth = 60;  // characters

/// While it lives nothing reaches standard error, which has no buffer: libxlsxwriter prints there
/// what it returns, too.
class Silence {
 public:
  Silence() : kept_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1)) {
    const Descriptor nowhere(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    if (kept_.valid() && nowhere.valid()) ::dup2(nowhere.get(), STDERR_FILENO);
  }
  ~Silence() {
    if (kept_.valid()) ::dup2(kept_.get(), STDERR_FILENO);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  Descriptor kept_;
};

/// Rows of a sheet inside the file, and whether its text is there to its end. libxlsxwriter does
/// not look at what its temporary files, which a full disk cuts off, take.
bool holds_rows(zip_t* archive, const char* name, size_t rows) {
  const std::unique_ptr<zip_file_t, decltype(&zip_fclose)> file(zip_fopen(archive, name, 0),
                                                                &zip_fclose);
  if (file == nullptr) return false;
  constexpr std::string_view kRow = "<row ";
  constexpr std::string_view kEnd = "</worksheet>";
  std::string text;  // a chunk, behind the end of the one before, in which a mark may begin
  std::array<char, 1U << 16U> buffer{};
  size_t found = 0;
  for (zip_int64_t n = 0; (n = zip_fread(file.get(), buffer.data(), buffer.size())) != 0;) {
    if (n < 0) return false;
    const size_t counted = std::min(text.size(), kRow.size() - 1);
    text = text.substr(text.size() - std::min(text.size(), kEnd.size()));
    size_t at = text.size() - counted;
    text.append(buffer.data(), static_cast<size_t>(n));
    for (; (at = text.find(kRow, at)) != std::string::npos; at += kRow.size()) ++found;
  }
  return found == rows && text.ends_with(kEnd);
}

class XlsxFile : public ResultFile {
 public:
  XlsxFile(const fs::path& file, ResultOptions options)
      : path_(file), file_(file), options_(std::move(options)) {
    const std::vector<std::string> columns = result_columns(options_);
    if (columns.size() + 1 > kMostSheetColumns)
      fail(ErrorKind::usage, "{}: {} columns, and a sheet has room for {}; write a .csv file",
           printable(file), columns.size() + 1, kMostSheetColumns);
    // Rows go to a temporary file of the library's as they come.
    lxw_workbook_options settings{};
    settings.constant_memory = LXW_TRUE;
    settings.use_zip64 = LXW_TRUE;
    book_ = workbook_new_opt(file_.temporary().c_str(), &settings);
    if (book_ == nullptr) fail_write("no memory");
    head_ = workbook_add_format(book_);
    format_set_bold(head_);
    share_ = workbook_add_format(book_);
    format_set_num_format(share_, "0.0%");
    sheet_ = begin("predictions", columns);
    size_t longest = 12;
    for (const std::string& name : options_.classes) longest = std::max(longest, columns_of(name));
    for (size_t c = 0; c < columns.size(); ++c) {
      const bool label = columns[c].starts_with("label");
      worksheet_set_column(
          sheet_, static_cast<lxw_col_t>(c + 1), static_cast<lxw_col_t>(c + 1),
          label ? std::min(kMostColumnWidth, static_cast<double>(longest + 2)) : 12, nullptr);
    }
  }
  ~XlsxFile() override {
    if (book_ != nullptr) workbook_close(book_);
  }
  XlsxFile(const XlsxFile&) = delete;
  XlsxFile& operator=(const XlsxFile&) = delete;

  void add(const fs::path& path, const Prediction& prediction, const Image&) override {
    if (++rows_ >= kMostSheetRows) check_size(path_, rows_);
    lxw_col_t column = 0;
    text(sheet_, rows_, column++, printable(path));
    for (size_t k = 0; k < std::min(options_.top, options_.classes.size()); ++k) {
      const auto label = static_cast<size_t>(prediction.ranking.at(k));
      text(sheet_, rows_, column++, printable(options_.classes[label]));
      number(column++, prediction.probabilities.at(label), share_);
      if (options_.logits) number(column++, prediction.logits.at(label), nullptr);
    }
    if (options_.probabilities)
      for (const float p : prediction.probabilities) number(column++, p, share_);
  }

  void add_error(const std::string& path, const std::string& why) override {
    if (errors_.size() + 2 < kMostSheetRows) errors_.emplace_back(path, why);
  }

  void finish() override {
    worksheet_autofilter(sheet_, 0, 0, static_cast<lxw_row_t>(rows_),
                         static_cast<lxw_col_t>(result_columns(options_).size()));
    if (!errors_.empty()) {
      lxw_worksheet* sheet = begin("not read", {"why"});
      worksheet_set_column(sheet, 1, 1, kMostColumnWidth, nullptr);
      for (size_t i = 0; i < errors_.size(); ++i) {
        text(sheet, i + 1, 0, printable(errors_[i].first));
        text(sheet, i + 1, 1, printable(errors_[i].second));
      }
    }
    lxw_error error = LXW_NO_ERROR;
    int reason = 0;
    {
      const Silence silence;
      errno = 0;
      error = workbook_close(std::exchange(book_, nullptr));
      reason = errno;
    }
    if (error != LXW_NO_ERROR)
      fail_write(reason != 0 ? system_error_text(reason).c_str() : lxw_strerror(error));
    zip_t* archive = zip_open(file_.temporary().c_str(), ZIP_RDONLY, nullptr);
    const bool whole =
        archive != nullptr && holds_rows(archive, "xl/worksheets/sheet1.xml", rows_ + 1) &&
        (errors_.empty() || holds_rows(archive, "xl/worksheets/sheet2.xml", errors_.size() + 1));
    if (archive != nullptr) zip_discard(archive);
    if (!whole)
      fail_write("what was written does not hold all rows; is the disk of temporary files full?");
    file_.commit();
  }

 private:
  [[noreturn]] void fail_write(const char* why) const {
    fail(ErrorKind::io, "{}: cannot write: {}", printable(path_), why);
  }
  lxw_worksheet* begin(const char* name, const std::vector<std::string>& columns) {
    lxw_worksheet* sheet = workbook_add_worksheet(book_, name);
    if (sheet == nullptr) fail_write("no memory");
    worksheet_freeze_panes(sheet, 1, 1);
    worksheet_set_column(sheet, 0, 0, kMostColumnWidth, nullptr);
    text(sheet, 0, 0, "path", head_);
    for (size_t c = 0; c < columns.size(); ++c)
      text(sheet, 0, static_cast<lxw_col_t>(c + 1), printable(columns[c]), head_);
    return sheet;
  }
  /// Always a text, whatever it begins with.
  void text(lxw_worksheet* sheet, size_t row, lxw_col_t column, const std::string& value,
            lxw_format* format = nullptr) {
    constexpr size_t kMostText = 32'767;  // characters of a cell
    const std::string& shown =
        value.size() > kMostText ? cut_to_columns(value, kMostText / 4) : value;
    check(
        worksheet_write_string(sheet, static_cast<lxw_row_t>(row), column, shown.c_str(), format));
  }
  void number(lxw_col_t column, double value, lxw_format* format) {
    check(worksheet_write_number(sheet_, static_cast<lxw_row_t>(rows_), column, value, format));
  }
  void check(lxw_error error) const {
    if (error != LXW_NO_ERROR) fail_write(lxw_strerror(error));
  }

  fs::path path_;
  AtomicFile file_;
  ResultOptions options_;
  lxw_workbook* book_ = nullptr;
  lxw_format* head_ = nullptr;
  lxw_format* share_ = nullptr;
  lxw_worksheet* sheet_ = nullptr;
  size_t rows_ = 0;
  std::vector<std::pair<std::string, std::string>> errors_;
};

}  // namespace

std::unique_ptr<ResultFile> make_xlsx_results(const fs::path& file, ResultOptions options) {
  return std::make_unique<XlsxFile>(file, std::move(options));
}

}  // namespace graft
