// Predictions as files: CSV, JSON, a spreadsheet, a page of images.
//
//   auto file = graft::ResultFile::create("labels.xlsx", {.classes = classifier.classes()});
//   graft::classify_files(classifier, paths, file->thumbnail(), [&](size_t i, const auto& p, const
//       graft::Image& small) { file->add(paths[i], p, small); }, …);
//   file->finish();
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graft/classifier.h"
#include "graft/image.h"
#include "graft/precision.h"

#pragma GCC visibility push(default)
namespace graft {

/// What is told of each image, and of them all.
struct ResultOptions {
  std::vector<std::string> classes;  ///< the model's
  size_t top = 1;                    ///< labels of an image, the most probable ones
  bool logits = false;               ///< theirs too; in JSON those of all classes
  bool probabilities = false;        ///< of all classes, in their order
  double unsure = 0;                 ///< pages show images below this probability apart
  std::string title{};               ///< of a page
  Precision precision = Precision::fp32;
};

/// "path,label,probability", and with options "logit", "label_2" …, "p:<class>"; without line end.
std::string result_csv_header(const ResultOptions& options);
/// Six digits for the probabilities of the top labels, all of a float for the other figures.
std::string result_csv_row(const std::string& path, const Prediction& prediction,
                           const ResultOptions& options);
/// One JSON object in a line: path, label, probability, top [{label, probability}], and with
/// options logits [] and probabilities [] of all classes. Bytes that are no UTF-8 are replaced.
std::string result_json(const std::string& path, const Prediction& prediction,
                        const ResultOptions& options);

/// A file of results. Not thread-safe.
class ResultFile {
 public:
  /// By the suffix:
  /// - .csv (RFC 4180). A text that a spreadsheet would compute, because it begins with = + - @, is
  ///   kept from that: a path has "./" in front, which names the same file, a label an apostrophe;
  /// - .json, one document: predictions [result_json()], errors [{path, error}], precision, and
  ///   classes where they are needed;
  /// - .jsonl, a result_json() or {path, error} a line;
  /// - .xlsx, with the sheets "predictions" and "not read"; texts are texts whatever they say;
  /// - .html, one page that asks for nothing from anywhere: thumbnails by class, the surest first.
  /// The file gets its name in finish(), when it is whole. Throws Error(usage) for another suffix
  /// and for what a sheet cannot hold; Error(io).
  static std::unique_ptr<ResultFile> create(const std::filesystem::path& file,
                                            ResultOptions options);
  /// A .csv or .jsonl file that every result is added to at once, also to those that are there.
  /// Throws Error(usage) for another suffix, Error(input) where the file has other columns.
  static std::unique_ptr<ResultFile> append(const std::filesystem::path& file,
                                            ResultOptions options);
  /// Throws Error(usage) unless the name ends in one of the suffixes.
  static void check_name(const std::filesystem::path& file);
  /// Throws Error(usage) where so many images are more than the kind of file holds.
  static void check_size(const std::filesystem::path& file, size_t images);

  virtual ~ResultFile() = default;
  ResultFile(const ResultFile&) = delete;
  ResultFile& operator=(const ResultFile&) = delete;

  /// Pixels of the longer side of the images that add() wants; 0: none.
  [[nodiscard]] virtual int thumbnail() const { return 0; }
  /// `image`: where thumbnail() says so; a larger one is made smaller.
  virtual void add(const std::filesystem::path& path, const Prediction& prediction,
                   const Image& image) = 0;
  /// An image that could not be classified.
  virtual void add_error(const std::string& path, const std::string& why) = 0;
  virtual void finish() = 0;

 protected:
  ResultFile() = default;
};

}  // namespace graft
#pragma GCC visibility pop
