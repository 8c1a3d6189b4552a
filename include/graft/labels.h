// Labels that are probably wrong: found, put before a person, corrected.
//
//   graft::LabelCheckOptions options;
//   options.model = "runs/pets";
//   const graft::LabelCheck found = graft::check_labels(data, options, context);
//   graft::write_review(data, found, "review.csv");
//   // A person fills in its column `action`; then, in a new program:
//   graft::Dataset corrected = graft::open_dataset("photos/");
//   graft::apply_corrections(corrected, "review.csv");
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/recipe.h"
#include "graft/train.h"

#pragma GCC visibility push(default)
namespace graft {

/// What speaks against one image's label.
struct LabelDoubt {
  size_t sample = 0;            ///< index into Dataset::samples
  int suggestion = 0;           ///< the most probable class but that of its label
  double confidence = 0;        ///< probability of the suggestion
  double label_confidence = 0;  ///< probability of its label
};

/// Images of one class that bear another's label.
struct LabelPair {
  int label = 0;       ///< that they bear
  int suggestion = 0;  ///< where they probably belong
  double images = 0;   ///< how many there are, by estimate
};

struct LabelCheck {
  /// Every image that was judged, the most doubtful first: by the odds of its label against the
  /// suggestion.
  std::vector<LabelDoubt> ranking;
  /// Of the ranking the first, which are probably wrong: as many as are wrong by estimate, without
  /// those that a person has decided on, which stand last.
  size_t doubtful = 0;
  double share = 0;                   ///< of wrong labels, by estimate
  std::vector<LabelPair> pairs;       ///< the most frequent first; under half an image: left out
  std::string features;               ///< what images were judged by: "block5_pool of vgg16"
  std::vector<SkippedImage> skipped;  ///< that could not be read
  std::vector<std::string> notes;     ///< what was not judged and why, a line each
};

/// Confident learning (Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in
/// dataset labels", 2021). `probabilities`: rows of `classes` values, each of a classifier that did
/// not learn from that row; `labels`: of the rows. LabelDoubt::sample is the row. Throws
/// Error(usage) for rows and labels that do not fit each other.
LabelCheck confident_learning(std::span<const float> probabilities, std::span<const int> labels,
                              size_t classes);

struct LabelCheckOptions {
  /// A run folder or a model file, by whose frozen layers images are judged: those have never seen
  /// a label. Where a run trained so many of its layers that too few are frozen, the backbone is
  /// the one that the run began with. Empty: see `backbone`.
  std::filesystem::path model;
  Recipe::Model backbone;  ///< backbone, weights, cut and input size, where `model` is empty
  CacheOptions cache;      ///< of features; a run's are found again
  uint64_t seed = 0;       ///< of the parts that images are divided into; a run has its own
};

/// Ranks the labels of all images of a dataset, of all splits, by probabilities of classifiers that
/// did not see the image: multinomial logistic regression on the pooled features of a backbone, by
/// cross-validation, identical files together. The result depends on images, labels, features and
/// seed alone. Throws Error(input) where fewer than two classes have two images, Error(usage) for a
/// dataset that contradicts itself, and as reading weights and models does.
LabelCheck check_labels(const Dataset& dataset, const LabelCheckOptions& options,
                        const RunContext& context = {});

/// How every review begins.
inline constexpr std::string_view kReviewStart = "path,label,suggestion,confidence,action";
inline constexpr std::string_view kReviewHeader =
    "path,label,suggestion,confidence,action,content\n";

/// The doubtful labels as CSV, a line an image, with an empty column `action` for a person to fill
/// in (docs/data.md); Dataset::decisions come first. Paths are relative to the data's folder where
/// they are in it.
std::string review_csv(const Dataset& dataset, const LabelCheck& found);
/// Writes it, atomically. Throws Error(usage) where the file holds decisions that the dataset's
/// corrections do not, as they would be lost.
void write_review(const Dataset& dataset, const LabelCheck& found,
                  const std::filesystem::path& file);
/// Throws what write_review() would throw because of the file that is there.
void require_review_replaceable(const Dataset& dataset, const std::filesystem::path& file);

/// Decisions on an earlier state of a dataset. Those on classes or labels that it has no more are
/// left out, with a note.
struct EarlierCorrections {
  std::filesystem::path file;        ///< a run's corrections.csv: they count where no others do
  std::vector<std::string> classes;  ///< that the dataset had
  bool both = false;                 ///< apply_corrections()' own file is of that state as well
};
/// Those that the run of a model (its folder, or the model file in it) began with; none where it is
/// no run's, or the run had none.
EarlierCorrections earlier_corrections(const std::filesystem::path& model);

/// Applies a review's decisions before anything else is done with the dataset: `drop` leaves an
/// image out, `keep` confirms its label, `relabel` takes the suggestion, and a class's name that
/// class. Notes what was done. Spreadsheets' separators and line ends are read. Throws Error(input)
/// that names the line for an action or class that there is not, and where nothing in the file is
/// of this dataset. `file` may be empty where `earlier` has one.
void apply_corrections(Dataset& dataset, const std::filesystem::path& file,
                       const EarlierCorrections& earlier = {});

}  // namespace graft
#pragma GCC visibility pop
