#include "run/skipped_images.h"

#include <algorithm>

#include "base/fail.h"
#include "base/file.h"
#include "dataset/labels.h"
#include "run/run_folder.h"

namespace graft {

SkippedImages::SkippedImages(const TrainPlan& plan, std::filesystem::path run,
                             const RunContext& context)
    : plan_(plan), run_(std::move(run)), context_(context) {
  for (const SkippedImage& image : plan.dataset.skipped) add(image);
}

void SkippedImages::read(const std::vector<size_t>& samples, const std::vector<std::string>& why) {
  for (size_t k = 0; k < samples.size(); ++k) add(samples[k], why[k]);
  if (all_.empty()) return;
  write_and_tell();
  const Dataset& dataset = plan_.dataset;
  std::vector<bool> out(dataset.samples.size());
  for (const size_t i : samples) out[i] = true;
  const std::string list = printable(run_ / run_files::kSkipped);
  const std::vector<std::string> without = classes_without(dataset, Split::train, out);
  if (!without.empty())
    fail(ErrorKind::input, "{}: no training image of class {} can be read; {} says why",
         printable(plan_.dataset.root), label_list(without), list);
  require_few_skipped(
      all_, dataset.samples.size() + dataset.skipped.size(), plan_.recipe.data.max_skipped,
      printable(plan_.dataset.root),
      fmt::format("mend them ({} has all), leave damaged ones out with `exclude corrupt`", list));
  const Dataset used = what_is_used();
  context_.tell(Severity::info, "images used:\n" + class_table(used));
  warn_of_classes_without(used, Split::validation);
}

void SkippedImages::add(size_t sample, const std::string& why) {
  const Sample& s = plan_.dataset.samples[sample];
  add(skipped_image(s, plan_.dataset.classes[static_cast<size_t>(s.label)], why));
}

void SkippedImages::add(SkippedImage image) {
  if (known_.emplace(image.path, image.split).second) all_.push_back(std::move(image));
}

bool SkippedImages::finish() {
  if (all_.size() > told_) write_and_tell();
  std::vector<SkippedImage> test;
  std::copy_if(all_.begin(), all_.end(), std::back_inserter(test),
               [](const SkippedImage& image) { return image.split == Split::test; });
  if (test.empty()) return true;
  warn_of_classes_without(what_is_used(), Split::test);
  const Dataset& dataset = plan_.dataset;
  const auto in_test = [](const auto& image) { return image.split == Split::test; };
  const auto images =
      static_cast<size_t>(std::count_if(dataset.samples.begin(), dataset.samples.end(), in_test) +
                          std::count_if(dataset.skipped.begin(), dataset.skipped.end(), in_test));
  if (static_cast<double>(test.size()) <=
      plan_.recipe.data.max_skipped * static_cast<double>(images))
    return true;
  context_.tell(Severity::warning,
                fmt::format("{} of {} test images could not be read, more than `max-skipped {:g}` "
                            "allows: the model is complete, its test metrics are not",
                            test.size(), images, plan_.recipe.data.max_skipped));
  return false;
}

Dataset SkippedImages::what_is_used() const {
  Dataset used = plan_.dataset;
  std::erase_if(used.samples, [&](const Sample& sample) {
    return known_.contains({sample.path, sample.split});
  });
  return used;
}

void SkippedImages::warn_of_classes_without(const Dataset& used, Split split) const {
  const std::vector<std::string> without = classes_without(used, split, {});
  // Those that had none from the beginning have been told.
  if (without != classes_without(plan_.dataset, split, {}))
    context_.tell(Severity::warning, fmt::format("warning: no {} image of class {} can be read",
                                                 to_string(split), label_list(without)));
}

std::vector<std::string> SkippedImages::lines() const {
  std::vector<std::string> out;
  out.reserve(all_.size());
  for (const SkippedImage& image : all_) out.push_back(printable(image.path) + ": " + image.why);
  return out;
}

void SkippedImages::write_and_tell() {
  const std::filesystem::path list = run_ / run_files::kSkipped;
  write_file_atomic(list, skipped_csv(all_));
  told_ = all_.size();
  for (const std::string& line :
       skipped_summary(all_, plan_.dataset.samples.size() + plan_.dataset.skipped.size(), list))
    context_.tell(Severity::note, line);
}

}  // namespace graft
