#include "dataset/join_labels.h"

#include "base/fail.h"
#include "base/file.h"
#include "dataset/labels.h"

namespace graft {

std::vector<Sample> join_labels(const Dataset& dataset, const std::vector<size_t>& indices,
                                const std::vector<std::string>& classes) {
  std::vector<int> translation;
  translation.reserve(dataset.classes.size());
  for (const std::string& name : dataset.classes) translation.push_back(find_label(classes, name));
  std::vector<Sample> samples;
  for (const size_t i : indices) {
    Sample sample = dataset.samples[i];
    const int label = translation[sample.label];
    if (label < 0)
      fail(ErrorKind::input, "{}: class '{}' is not among the model's classes ({}){}",
           printable(dataset.root), dataset.classes[sample.label], label_list(classes),
           near_label_hint(classes, dataset.classes[sample.label]));
    sample.label = label;
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace graft
