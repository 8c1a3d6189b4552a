#include "model/evaluate.h"

#include "base/file.h"
#include "dataset/labels.h"
#include "features/image_stream.h"
#include "graft/error.h"
#include "model/logits.h"

namespace graft {

void evaluate(const EvaluateJob& job, const Classifier& classifier,
              const std::function<void(const Sample&, std::span<const float>)>& sink,
              const std::function<void(const Sample&, const std::string&)>& on_error) {
  std::vector<fs::path> paths;
  paths.reserve(job.samples.size());
  for (const Sample& sample : job.samples) paths.push_back(sample.path);
  const Network& net = classifier.info().network;
  const ImageJob work{.paths = paths,
                      .height = net.input_height,
                      .width = net.input_width,
                      .preprocessing = classifier.info().preprocessing,
                      .batch = classifier.max_batch(),
                      .label = job.label,
                      .context = job.context};
  stream_features(
      work, forward_of(classifier),
      [&](const StreamedImage& image, std::span<const float> logits) {
        const Sample& sample = job.samples[image.index];
        try {
          check_logits(logits);
        } catch (const Error& error) {
          fail(error.kind(), "{}: {}", printable(sample.path), error.what());
        }
        sink(sample, logits);
      },
      [&](size_t i, const std::string& message) { on_error(job.samples[i], message); });
}

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
