#include "dataset/join_labels.h"

#include <algorithm>

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
    if (label < 0) {
      const std::string& name = dataset.classes[sample.label];
      const bool number =
          std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
      fail(ErrorKind::input, "{}: class '{}' is not among the model's classes ({}){}",
           printable(dataset.root), name, label_list(classes),
           number ? "; labels of tar shards that are numbers get their names from a classes.txt "
                    "beside the tars, a name a line"
                  : near_label_hint(classes, name));
    }
    sample.label = label;
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace graft
