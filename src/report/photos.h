// The report's section of photos: mistakes and unsure answers, with where the evidence lies.
#pragma once

#include <optional>
#include <string>

#include "dataset/dataset.h"
#include "graft/context.h"
#include "model/model_file.h"
#include "report/predictions.h"

namespace graft {

/// One image's answer in words: "sea, classified as street, 96 %". Text, not HTML.
std::string answer_in_words(const std::string& label, const std::string& predicted,
                            double probability);

/// The same as a caption (HTML), with the path to copy. `of_label`: the label's probability, which
/// mistakes show.
std::string answer_caption(const std::string& label, const std::string& predicted,
                           double probability, const std::filesystem::path& path,
                           const std::filesystem::path& root,
                           std::optional<double> of_label = std::nullopt);

/// A path as it stands below `root`, else as it is.
std::string path_below(const std::filesystem::path& path, const std::filesystem::path& root);

struct PhotosJob {
  const ModelFile& model;
  const Predictions& predictions;
  const std::filesystem::path& root;  ///< that paths are shown below
  const RunContext& context;
};

/// The worst mistakes and the least sure other images with Grad-CAM, photos of every cell of the
/// confusion matrix, and a table of the mistakes; no image twice. Bounded in size and time: what is
/// left out is said. Everything in it has the numbers of its label and prediction, by which the
/// page's script filters.
std::string photos_section(const PhotosJob& job);

}  // namespace graft
