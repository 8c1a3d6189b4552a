#include "graft/results.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/csv.h"
#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/words.h"
#include "recipe/option_values.h"
#include "report/gallery.h"
#include "report/result_file.h"

namespace graft {
namespace {

constexpr std::array<std::string_view, 5> kSuffixes = {".csv", ".json", ".jsonl", ".xlsx", ".html"};

size_t labels_told(const ResultOptions& options) {
  return std::min(options.top, options.classes.size());
}

std::string dump(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string error_json(const std::string& path, const std::string& why) {
  return dump({{"path", path}, {"error", why}});
}

/// Classes whose names a spreadsheet takes for texts.
ResultOptions as_texts(ResultOptions options) {
  for (std::string& name : options.classes)
    if (is_formula(name)) name.insert(0, 1, '\'');
  return options;
}

/// The same file's path, which a spreadsheet takes for a text.
std::string as_text(const fs::path& path) {
  return is_formula(path.native()) ? "./" + path.native() : path.native();
}

class CsvFile : public ResultFile {
 public:
  CsvFile(const fs::path& file, ResultOptions options)
      : file_(file), options_(as_texts(std::move(options))) {
    file_.write(result_csv_header(options_) + "\n");
  }
  void add(const fs::path& path, const Prediction& prediction, const Image&) override {
    file_.write(result_csv_row(as_text(path), prediction, options_) + "\n");
  }
  void add_error(const std::string&, const std::string&) override {}
  void finish() override { file_.commit(); }

 private:
  AtomicFile file_;
  ResultOptions options_;
};

class JsonFile : public ResultFile {
 public:
  JsonFile(const fs::path& file, ResultOptions options)
      : file_(file), options_(std::move(options)) {
    file_.write("{\n\"predictions\": [");
  }
  void add(const fs::path& path, const Prediction& prediction, const Image&) override {
    file_.write((std::exchange(first_, false) ? "\n" : ",\n") +
                result_json(path.string(), prediction, options_));
  }
  void add_error(const std::string& path, const std::string& why) override {
    errors_ += (errors_.empty() ? "\n" : ",\n") + error_json(path, why);
  }
  void finish() override {
    file_.write(fmt::format("\n],\n\"errors\": [{}{}],\n", errors_, errors_.empty() ? "" : "\n"));
    if (options_.logits || options_.probabilities)
      file_.write(fmt::format("\"classes\": {},\n", dump(options_.classes)));
    file_.write(fmt::format("\"precision\": \"{}\"\n}}\n", options::word(options_.precision)));
    file_.commit();
  }

 private:
  AtomicFile file_;
  ResultOptions options_;
  std::string errors_;
  bool first_ = true;
};

class JsonLines : public ResultFile {
 public:
  JsonLines(const fs::path& file, ResultOptions options)
      : file_(file), options_(std::move(options)) {}
  void add(const fs::path& path, const Prediction& prediction, const Image&) override {
    file_.write(result_json(path.string(), prediction, options_) + "\n");
  }
  void add_error(const std::string& path, const std::string& why) override {
    file_.write(error_json(path, why) + "\n");
  }
  void finish() override { file_.commit(); }

 private:
  AtomicFile file_;
  ResultOptions options_;
};

class HtmlFile : public ResultFile {
 public:
  HtmlFile(const fs::path& file, ResultOptions options)
      : file_(file), gallery_(std::move(options)) {}
  [[nodiscard]] int thumbnail() const override { return kGalleryThumbnail; }
  void add(const fs::path& path, const Prediction& prediction, const Image& thumbnail) override {
    gallery_.add(path, prediction, thumbnail);
  }
  void add_error(const std::string& path, const std::string& why) override {
    gallery_.add_error(path, why);
  }
  void finish() override {
    file_.write(gallery_.page());
    file_.commit();
  }

 private:
  AtomicFile file_;
  Gallery gallery_;
};

/// Lines added to a file, each at once and whole.
class Appended : public ResultFile {
 public:
  Appended(const fs::path& path, ResultOptions options)
      : path_(path), csv_(path.extension() == ".csv") {
    options_ = csv_ ? as_texts(std::move(options)) : std::move(options);
    file_ = Descriptor(
        ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666));
    struct stat info {};
    if (!file_.valid() || ::fstat(file_.get(), &info) != 0) fail_write();
    if (!S_ISREG(info.st_mode))
      fail(ErrorKind::usage, "{}: is no regular file, which lines could be added to",
           printable(path));
    const std::string header = csv_ ? result_csv_header(options_) + "\n" : "";
    if (info.st_size == 0) {
      write(header);
      return;
    }
    if (csv_ && !file_begins_with(path, header))
      fail(ErrorKind::input,
           "{}: has other columns than '{}'; choose another name, or the options that it was "
           "written with",
           printable(path), clipped(result_csv_header(options_)));
    // The last line of a process that was killed may be a part.
    char last = 0;
    if (::pread(file_.get(), &last, 1, info.st_size - 1) == 1 && last != '\n') write("\n");
  }
  void add(const fs::path& path, const Prediction& prediction, const Image&) override {
    write((csv_ ? result_csv_row(as_text(path), prediction, options_)
                : result_json(path.string(), prediction, options_)) +
          "\n");
  }
  void add_error(const std::string& path, const std::string& why) override {
    if (!csv_) write(error_json(path, why) + "\n");
  }
  void finish() override {
    if (::fsync(file_.get()) != 0) fail_write();
  }

 private:
  void write(std::string_view text) {
    while (!text.empty()) {
      const ssize_t written = ::write(file_.get(), text.data(), text.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) fail_write();
      text.remove_prefix(static_cast<size_t>(written));
    }
  }
  [[noreturn]] void fail_write() const {
    fail(ErrorKind::io, "{}: cannot write: {}", printable(path_), system_error_text(errno));
  }

  fs::path path_;
  bool csv_;
  ResultOptions options_;
  Descriptor file_;
};

}  // namespace

std::vector<std::string> result_columns(const ResultOptions& options) {
  std::vector<std::string> columns;
  for (size_t k = 1; k <= labels_told(options); ++k) {
    const std::string number = k > 1 ? fmt::format("_{}", k) : "";
    columns.push_back("label" + number);
    columns.push_back("probability" + number);
    if (options.logits) columns.push_back("logit" + number);
  }
  if (options.probabilities)
    for (const std::string& name : options.classes) columns.push_back("p:" + name);
  return columns;
}

std::string result_csv_header(const ResultOptions& options) {
  std::string line = "path";
  for (const std::string& column : result_columns(options)) line += "," + csv_field(column);
  return line;
}

std::string result_csv_row(const std::string& path, const Prediction& prediction,
                           const ResultOptions& options) {
  std::string line = csv_field(path);
  for (size_t k = 0; k < labels_told(options); ++k) {
    const auto label = static_cast<size_t>(prediction.ranking.at(k));
    line += fmt::format(",{},{:.6f}", csv_field(options.classes.at(label)),
                        prediction.probabilities.at(label));
    if (options.logits) line += fmt::format(",{}", prediction.logits.at(label));
  }
  if (options.probabilities)
    for (const float p : prediction.probabilities) line += fmt::format(",{}", p);
  return line;
}

std::string result_json(const std::string& path, const Prediction& prediction,
                        const ResultOptions& options) {
  const auto of = [&](size_t k) {
    const auto label = static_cast<size_t>(prediction.ranking.at(k));
    return nlohmann::json{{"label", options.classes.at(label)},
                          {"probability", prediction.probabilities.at(label)}};
  };
  nlohmann::json row = of(0);
  row["path"] = path;
  row["top"] = nlohmann::json::array();
  for (size_t k = 0; k < labels_told(options); ++k) row["top"].push_back(of(k));
  if (options.logits) row["logits"] = prediction.logits;
  if (options.probabilities) row["probabilities"] = prediction.probabilities;
  return dump(row);
}

void ResultFile::check_name(const fs::path& file) {
  const std::string suffix = file.extension().string();
  if (std::find(kSuffixes.begin(), kSuffixes.end(), suffix) == kSuffixes.end())
    fail(ErrorKind::usage,
         "{}: the name of the file to write must end in .csv, .json, .jsonl, "
         ".xlsx or .html",
         printable(file));
}

void ResultFile::check_size(const fs::path& file, size_t images) {
  if (file.extension() == ".xlsx" && images >= kMostSheetRows)
    fail(ErrorKind::usage, "{}: {} images, and a sheet has room for {}; write a .csv file",
         printable(file), images, kMostSheetRows - 1);
}

std::unique_ptr<ResultFile> ResultFile::create(const fs::path& file, ResultOptions options) {
  check_name(file);
  const fs::path suffix = file.extension();
  if (suffix == ".csv") return std::make_unique<CsvFile>(file, std::move(options));
  if (suffix == ".json") return std::make_unique<JsonFile>(file, std::move(options));
  if (suffix == ".jsonl") return std::make_unique<JsonLines>(file, std::move(options));
  if (suffix == ".xlsx") return make_xlsx_results(file, std::move(options));
  return std::make_unique<HtmlFile>(file, std::move(options));
}

std::unique_ptr<ResultFile> ResultFile::append(const fs::path& file, ResultOptions options) {
  if (file.extension() != ".csv" && file.extension() != ".jsonl")
    fail(ErrorKind::usage, "{}: only .csv and .jsonl files can be added to as results come",
         printable(file));
  return std::make_unique<Appended>(file, std::move(options));
}

}  // namespace graft
