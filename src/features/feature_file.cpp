#include "features/feature_file.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/utf8.h"
#include "base/words.h"
#include "base/zip_writer.h"
#include "features/npy.h"
#include "graft/features.h"

namespace graft {
namespace {

class NpyFile : public FeatureFile {
 public:
  NpyFile(const fs::path& path, const std::vector<int64_t>& row_shape) : npy_(path, row_shape) {}
  void add(const fs::path& /*image*/, std::span<const float> row) override { npy_.add(row); }
  void commit() override { npy_.commit(); }

 private:
  NpyWriter npy_;
};

/// numpy.savez: a zip file of .npy files, here `features` and `paths`.
class NpzFile : public FeatureFile {
 public:
  NpzFile(const fs::path& path, const std::vector<int64_t>& row_shape)
      : zip_file_(path), features_(beside(path), row_shape) {}
  void add(const fs::path& image, std::span<const float> row) override {
    features_.add(row);
    paths_.push_back(code_points(image.native()));
  }
  void commit() override {
    // The archive needs the array's checksum before it, so the array was written beside it.
    const fs::path& scratch = features_.end();
    const MappedFile content(scratch);
    ZipWriter zip(zip_file_);
    zip.add("features.npy", content.bytes());
    zip.add("paths.npy", paths_array());
    zip.finish();
    zip_file_.commit();
  }

 private:
  static fs::path beside(fs::path path) { return path += ".features"; }

  /// What is no UTF-8 becomes U+FFFD, as in Python's errors="replace".
  static std::u32string code_points(std::string_view text) {
    std::u32string out;
    while (!text.empty()) {
      const int32_t c = take_code_point(text);
      if (c < 0) text.remove_prefix(1);
      out += c < 0 ? U'\uFFFD' : static_cast<char32_t>(c);
    }
    return out;
  }

  [[nodiscard]] std::string paths_array() const {
    size_t width = 1;
    for (const std::u32string& path : paths_) width = std::max(width, path.size());
    std::string out = npy_header(fmt::format("<U{}", width), fmt::format("{},", paths_.size()));
    for (const std::u32string& path : paths_) {
      std::u32string padded = path;
      padded.resize(width, U'\0');
      out.append(reinterpret_cast<const char*>(padded.data()), padded.size() * sizeof(char32_t));
    }
    return out;
  }

  AtomicFile zip_file_;
  NpyWriter features_;
  std::vector<std::u32string> paths_;
};

class CsvFile : public FeatureFile {
 public:
  CsvFile(const fs::path& path, const std::vector<int64_t>& row_shape) : file_(path) {
    int64_t columns = 1;
    for (const int64_t extent : row_shape) columns *= extent;
    file_.write("path");
    for (int64_t i = 0; i < columns; ++i) file_.write(fmt::format(",f{}", i));
    file_.write("\n");
  }
  void add(const fs::path& image, std::span<const float> row) override {
    fmt::memory_buffer line;
    fmt::format_to(std::back_inserter(line), "{}", csv_field(image.string()));
    // The shortest digits that read back as the same float.
    for (const float value : row) fmt::format_to(std::back_inserter(line), ",{}", value);
    line.push_back('\n');
    file_.write(std::string_view(line.data(), line.size()));
  }
  void commit() override { file_.commit(); }

 private:
  AtomicFile file_;
};

}  // namespace

std::unique_ptr<FeatureFile> make_feature_file(const fs::path& path,
                                               const std::vector<int64_t>& row_shape) {
  const fs::path suffix = path.extension();
  if (suffix == ".npy") return std::make_unique<NpyFile>(path, row_shape);
  if (suffix == ".npz") return std::make_unique<NpzFile>(path, row_shape);
  if (suffix == ".csv") return std::make_unique<CsvFile>(path, row_shape);
  fail(ErrorKind::usage, "'{}' must end in .npy, .npz or .csv", clipped(path.string()));
}

FeatureTable::FeatureTable(const fs::path& file, fs::path list,
                           const std::vector<int64_t>& row_shape)
    : list_(std::move(list)), rows_text_(kFeatureListHeader) {
  if (!list_.empty() && same_file(file, list_))
    fail(ErrorKind::usage, "{}: one file for features and list; name two", printable(file));
  file_ = make_feature_file(file, row_shape);
}

void FeatureTable::add(const fs::path& image, std::span<const float> row) {
  file_->add(image, row);
  if (!list_.empty()) rows_text_ += fmt::format("{},{}\n", rows_, csv_field(image.string()));
  ++rows_;
}

size_t FeatureTable::commit(size_t images) {
  if (rows_ == 0) fail(ErrorKind::input, "none of the {} images could be read", images);
  if (!list_.empty()) write_file_atomic(list_, rows_text_);
  file_->commit();
  return rows_;
}

}  // namespace graft
