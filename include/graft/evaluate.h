// A classifier on labelled images: figures, predictions, a page about it.
//
//   const graft::Evaluation result = graft::evaluate(classifier, graft::open_dataset("photos/"));
//   fmt::print("{}", graft::metrics_text(result.metrics, classifier.classes()));
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/classifier.h"
#include "graft/context.h"
#include "graft/dataset.h"
#include "graft/group.h"
#include "graft/metrics.h"

#pragma GCC visibility push(default)
namespace graft {

struct Run;

/// Images with their labels (indices into `classes`) and logits, those that could be read.
struct Predictions {
  std::vector<std::string> classes;
  std::vector<Sample> samples;
  std::vector<float> logits;  ///< (samples, classes)

  void add(const Sample& sample, std::span<const float> row);
  [[nodiscard]] std::span<const float> row(size_t i) const {
    return {&logits[i * classes.size()], classes.size()};
  }
  [[nodiscard]] int predicted(size_t i) const;
  [[nodiscard]] Metrics measure() const;
};

struct Evaluation {
  std::string split;                      ///< "test", "val", "train" or "all"
  Predictions predictions;                ///< of the images that could be read
  Metrics metrics;                        ///< of them
  std::vector<SkippedImage> skipped;      ///< the others
  Precision precision = Precision::fp32;  ///< the classifier's
};

/// Measures a classifier on a split of a dataset: "test", "val" (or "validation"), "train" or
/// "all"; "auto" is the
/// test images, else the validation images, else all. Labels are joined by name. Tells what is
/// evaluated, and what could not be read. Throws Error(input) where there is no such split, a class
/// is not the classifier's, no image can be read, or the network's answer is not finite.
Evaluation evaluate(const Classifier& classifier, const Dataset& dataset,
                    std::string_view split = "auto", const RunContext& context = {});

/// As one process of a group (group_rank()), all of which call it alike: the images are cut into
/// parts in a folder under `folder`, which all can write to, and whoever is done takes the next.
/// Rank 0 puts them together, removes them, and is returned what evaluate() would have; the others
/// nothing. Throws Error(io) that names processes which do not come within 25 s, Error(input) in
/// one whose images or model are not rank 0's, and as evaluate().
std::optional<Evaluation> evaluate_in_group(const Classifier& classifier, const Dataset& dataset,
                                            std::string_view split, const GroupPlace& place,
                                            const std::filesystem::path& folder,
                                            const RunContext& context = {});

/// How many of the images that were measured the model has learned from, in its run or in one whose
/// weights that went on from: figures on those tell little. Images are told by their content. 0
/// where `model` is a file alone, without a run folder around it.
size_t images_trained_on(const std::filesystem::path& model, const Evaluation& evaluation,
                         const RunContext& context = {});

/// Throws Error(input) if more than that share of the images was skipped. `name` begins the
/// message.
void require_few_skipped(const Evaluation& evaluation, double max_share, std::string_view name);

/// Everything as a JSON document: what `graft evaluate --json` prints. `trained_on`: what
/// images_trained_on() says.
std::string evaluation_json(const Evaluation& evaluation, size_t trained_on);
/// path,label,predicted,probability, and each class's probability under "p:<class>", with all
/// digits of a double.
std::string predictions_csv(const Evaluation& evaluation);

/// Writes a self-contained HTML page: metrics, mistakes with Grad-CAM, data, network, model card,
/// and where `model` is a run folder its curves and configuration. Takes seconds. `command`: to
/// reproduce it, shown on the page.
void write_report(const Evaluation& evaluation, const std::filesystem::path& model,
                  const Dataset& dataset, const std::filesystem::path& file,
                  const std::string& command = {}, const RunContext& context = {});
/// Of a run, on its test images, else its validation images, which are evaluated anew.
void write_report(const Run& run, const std::filesystem::path& file,
                  const RunContext& context = {});

}  // namespace graft
#pragma GCC visibility pop
