// report.html: one page about a model and how it does on a set of images.
#pragma once

#include <string>

#include "dataset/dataset.h"
#include "graft/context.h"
#include "graft/labels.h"
#include "model/model_file.h"
#include "report/predictions.h"
#include "run/run_folder.h"

namespace graft {

struct ReportJob {
  const ModelFile& model;
  const Predictions& predictions;  ///< on the images that the report is about
  const Metrics& metrics;          ///< of them
  std::string split;               ///< "test", "val", …
  const Dataset& dataset;          ///< for the summary of the data
  RunFolder run;                   ///< parts that are missing leave their section out
  std::string command;             ///< to reproduce it
  size_t trained_on = 0;           ///< of the images, those that the model was trained on
  RunContext context{};
  Precision precision = Precision::fp32;  ///< that the predictions were computed with
  std::string
      changes{};  ///< HTML: what is new in the data since the run that this one goes on from
  const LabelCheck* labels = nullptr;  ///< of the dataset; null: nobody looked
  bool of_run = false;  ///< the page belongs to the run: the time for it is counted too
};

/// The document: curves, metrics, mistakes with Grad-CAM, data, network, configuration, model card.
/// Takes seconds: it explains two dozen images.
std::string report_page(const ReportJob& job);

}  // namespace graft
