#include "train/sources.h"

#include <algorithm>
#include <filesystem>
#include <numeric>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "features/image_stream.h"
#include "features/sample_source.h"
#include "train/device.h"
#include "train/group_features.h"

namespace graft {

/// A split's images as a source takes them.
struct Sources::Described {
  PrefixJob prefix;
  SourceJob source;
  std::vector<size_t> indices;  // of the samples
  std::vector<fs::path> paths;
};

std::unique_ptr<Sources::Described> Sources::describe(const TrainPhase& phase, Split split) {
  const Network& net = job_.metadata.network;
  auto out = std::make_unique<Described>(
      Described{.prefix = {net, phase.prefix_end, job_.backbone, job_.cache, job_.feature_type,
                           job_.recipe.precision, 0, job_.device},
                .source = {.network = net, .preprocessing = job_.metadata.preprocessing},
                .indices = job_.dataset.of(split),
                .paths = {}});
  auto& [prefix, source, indices, paths] = *out;
  // The next phase's prefix is shorter: its features are on the way.
  for (size_t k = 0; k + 1 < job_.phases.size(); ++k)
    if (&job_.phases[k] == &phase) {
      PrefixJob next = prefix;
      next.end = job_.phases[k + 1].prefix_end;
      if (next.end > 1) prefix.waypoint = stored_end(next);
    }
  source.prefix = phase.prefix_end > 1 ? &prefix : nullptr;
  source.keep_features = phase.keep_features;
  source.seed = job_.recipe.seed;
  source.context = job_.context;
  if (split == Split::train) {
    source.augmentation = parse_augmentation(job_.recipe.views.augment);
    source.views = job_.views;
  }
  paths.reserve(indices.size());
  for (const size_t i : indices) paths.push_back(job_.dataset.samples[i].path);
  source.paths = paths;
  // A later phase takes the images that the first one took.
  std::vector<std::string>& hashes = hashes_[split];
  if (hashes.empty())
    for (const size_t i : indices) hashes.push_back(job_.dataset.samples[i].content);
  source.hashes = hashes;
  source.label = fmt::format(
      "{}, {}", source.prefix != nullptr && source.views > 0 ? "features" : "reading images",
      to_string(split));
  return out;
}

void Sources::extract(const TrainPhase& phase, Split split, const std::string& name) {
  const std::unique_ptr<Described> all = describe(phase, split);
  if (all->source.prefix != nullptr && all->source.views > 0)
    extract_together(all->source, name, *job_.group);
}

std::unique_ptr<Batches> Sources::open(const TrainPhase& phase, Split split) {
  const std::unique_ptr<Described> all = describe(phase, split);
  const SourceJob& source = all->source;
  const std::vector<size_t>& indices = all->indices;
  const size_t known = excluded_.size();
  std::unique_ptr<SampleSource> rows =
      make_sample_source(source, [&](size_t i, const std::string& message) {
        // A second phase reads them again.
        if (std::find(excluded_.begin(), excluded_.end(), indices[i]) != excluded_.end()) return;
        excluded_.push_back(indices[i]);
        errors_.push_back(message);
      });
  if (rows->usable().empty())
    fail(ErrorKind::input, "none of the {} {} images could be read{}", indices.size(),
         to_string(split), errors_.size() <= known ? "" : "; the first: " + errors_[known]);
  std::vector<int64_t> labels;
  std::vector<size_t> samples;
  for (const size_t i : rows->usable()) {
    samples.push_back(indices[i]);
    labels.push_back(job_.dataset.samples[indices[i]].label);
  }
  const Shape shape = output_shapes(job_.metadata.network)[phase.prefix_end - 1];
  return std::make_unique<Batches>(
      std::move(rows), std::move(labels), std::move(samples),
      shape.flat ? std::vector<int64_t>{shape.channels}
                 : std::vector<int64_t>{shape.channels, shape.height, shape.width},
      !torch_device(job_.device).is_cpu());
}

void Sources::note_lost(const Batches::Batch& batch, const Batches& batches, int epoch) {
  // The rows of a batch are shared out before anybody knows.
  if (job_.group != nullptr && !batch.lost.empty())
    fail(
        ErrorKind::io,
        "{}: could be read at first, but no longer in epoch {}; bring it back, then go on with "
        "`resume` {}",
        printable(job_.dataset.samples[batches.samples()[static_cast<size_t>(batch.lost[0])]].path),
        epoch, printable(job_.run));
  constexpr size_t kShown = 5;
  const size_t before = lost_.size();
  for (const int64_t row : batch.lost) {
    const size_t sample = batches.samples()[static_cast<size_t>(row)];
    if (!lost_.insert(sample).second) continue;
    excluded_.push_back(sample);
    errors_.push_back(fmt::format("{}: could be read at first, but no longer in epoch {}",
                                  printable(job_.dataset.samples[sample].path), epoch));
    if (lost_.size() <= kShown)
      job_.context.tell(Severity::note, "going on without " + errors_.back());
  }
  if (lost_.size() == before) return;
  const std::vector<size_t>& all = batches.samples();
  std::vector<size_t> left(job_.metadata.classes.size());
  std::vector<size_t> gone(left.size());
  for (const size_t sample : all)
    ++(lost_.contains(sample) ? gone : left)[job_.dataset.samples[sample].label];
  const size_t total = std::accumulate(gone.begin(), gone.end(), size_t{0});
  bool class_is_gone = false;
  for (size_t c = 0; c < left.size(); ++c) class_is_gone |= left[c] == 0 && gone[c] > 0;
  if (2 * total > all.size() || class_is_gone)
    fail(ErrorKind::io,
         "{} of {} images can no longer be read in epoch {}, the last: {}; bring them back, then "
         "go on with `resume` {}",
         total, all.size(), epoch, errors_.back(), printable(job_.run));
}

}  // namespace graft
