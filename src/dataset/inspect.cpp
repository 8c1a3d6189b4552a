#include "graft/inspect.h"
#include "dataset/dataset.h"
#include "dataset/facts.h"
#include "dataset/perceptual_hash.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <numbers>
#include <numeric>
#include <set>

#include "base/disjoint_sets.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/helper_process.h"
#include "base/progress.h"
#include "base/threads.h"
#include "dataset/archive.h"
#include "dataset/folders.h"
#include "image/codecs.h"
#include "image/formats.h"

namespace graft {
namespace {

constexpr int kLeastSide = 32;
constexpr double kMostAspect = 4;
// Of a PNG with 16 bits a channel, of which the upper 8 are read: cameras and scanners leave 10 or
// 12 bits as they are.
constexpr int kNearlyBlack = 4096;
// Of 64 signs; two unrelated images differ in about half of them. Skies and seas come near each
// other by chance, so the second condition decides (docs/data.md has the measurement).
constexpr int kHashBits = 10;
constexpr double kCorrelation = 0.97;
// Under this contrast (standard deviation of grey values) an image is too flat to compare.
constexpr double kLeastContrast = 4;

/// HEIC and AVIF share a container, and .heif may stand for both.
bool extension_fits(const fs::path& path, ImageFormat format) {
  const std::string suffix = lower_suffix(path);
  return format_of_suffix(suffix) == format ||
         (format == ImageFormat::avif && (suffix == ".heif" || suffix == ".hif"));
}

void describe(size_t i, const Sample& sample, const Facts& facts, Inspection& out) {
  if (!facts.error.empty())
    (facts.unsupported ? out.unsupported : out.corrupt).push_back({i, facts.error});
  if (!facts.known) return;
  const ImageFacts& image = facts.image;
  const int64_t least = std::min(image.width, image.height);
  const int64_t most = std::max(image.width, image.height);
  const std::string size = fmt::format("{}x{} pixels", image.width, image.height);
  if (!extension_fits(sample.path, image.format))
    out.wrong_extension.push_back({i, fmt::format("it is a {} file", format_name(image.format))});
  if (least < kLeastSide) out.tiny.push_back({i, size});
  if (static_cast<double>(most) > kMostAspect * static_cast<double>(least))
    out.extreme_aspect.push_back({i, size});
  if (image.grey || facts.colourless)
    out.greyscale.push_back(
        {i, image.grey ? "stored as grey" : "stored in colour, every pixel grey"});
  if (image.cmyk) out.cmyk.push_back({i, "CMYK"});
  if (image.animated) out.animated.push_back({i, "more than one frame; the first is read"});
  if (facts.largest > 0 && facts.largest < kNearlyBlack)
    out.nearly_black.push_back(
        {i, fmt::format("16 bits a channel, but no value over {} of 65535 ({} bits); scale the "
                        "values up",
                        facts.largest, std::bit_width(static_cast<unsigned>(facts.largest)))});
}

bool in_split(const Sample& sample, Split split) {
  return sample.split == split || (split == Split::train && sample.split == Split::unassigned);
}

bool spans(const Dataset& dataset, const SampleGroup& group, Split a, Split b) {
  const auto has = [&](Split split) {
    return std::any_of(group.begin(), group.end(),
                       [&](size_t i) { return in_split(dataset.samples[i], split); });
  };
  return has(a) && has(b);
}

bool conflicts(const Dataset& dataset, const SampleGroup& group) {
  return std::any_of(group.begin(), group.end(), [&](size_t i) {
    return dataset.samples[i].label != dataset.samples[group[0]].label;
  });
}

/// Groups of at least two with the same key, in the order of their first member.
std::vector<SampleGroup> group_by(const std::vector<std::string>& keys) {
  std::map<std::string_view, SampleGroup> groups;
  for (size_t i = 0; i < keys.size(); ++i)
    if (!keys[i].empty()) groups[keys[i]].push_back(i);
  std::vector<SampleGroup> out;
  for (auto& [key, members] : groups)
    if (members.size() > 1) out.push_back(std::move(members));
  std::sort(out.begin(), out.end());
  return out;
}

/// Finds which of `candidates` look alike and joins them into groups.
std::vector<SampleGroup> near_duplicate_groups(const std::vector<Facts>& facts,
                                               const std::vector<size_t>& candidates,
                                               const RunContext& context) {
  ThreadPool pool(context.thread_count());
  constexpr size_t kPiece = 1024;  // images between two looks at the progress bar
  std::vector<std::vector<size_t>> matches(candidates.size());
  // Side by side: of a million images, what decides nearly all pairs fits into a cache.
  std::vector<uint64_t> signs;
  signs.reserve(candidates.size());
  for (const size_t i : candidates) signs.push_back(facts[i].look.hash);
  Progress progress(context, "comparing", candidates.size(), "images");
  for (size_t first = 0; first < candidates.size(); first += kPiece) {
    const size_t n = std::min(kPiece, candidates.size() - first);
    pool.parallel_for(n, [&](size_t i) {
      const size_t a = first + i;
      const PerceptualHash& mine = facts[candidates[a]].look;
      for (size_t b = a + 1; b < candidates.size(); ++b)
        if (std::popcount(signs[a] ^ signs[b]) <= kHashBits &&
            near_duplicate(mine, facts[candidates[b]].look))
          matches[a].push_back(b);
    });
    progress.update(first + n);
    context.check_stop();
  }
  progress.finish();
  DisjointSets alike(candidates.size());
  for (size_t a = 0; a < matches.size(); ++a)
    for (const size_t b : matches[a]) alike.join(a, b);
  std::vector<std::string> keys(facts.size());
  for (size_t a = 0; a < candidates.size(); ++a)
    keys[candidates[a]] = std::to_string(alike.root(a));
  return group_by(keys);
}

}  // namespace

bool Inspection::any() const {
  const auto found = [this](const auto& kind) { return !(this->*kind.list).empty(); };
  return std::any_of(std::begin(kFindingKinds), std::end(kFindingKinds), found) ||
         std::any_of(std::begin(kGroupKinds), std::end(kGroupKinds), found);
}

PerceptualHash perceptual_hash(const Image& image) {
  constexpr int kSide = 32;
  constexpr int kLow = 8;
  const auto grey = [&](int side) {
    const Image small = resize(image, side, side, Resampling::bilinear);
    std::vector<double> values(static_cast<size_t>(side) * side);
    for (size_t i = 0; i < values.size(); ++i)  // ITU-R BT.601 luma
      values[i] = 0.299 * small.pixels[i * 3] + 0.587 * small.pixels[i * 3 + 1] +
                  0.114 * small.pixels[i * 3 + 2];
    return values;
  };
  const std::vector<double> values = grey(kSide);
  // The lowest frequencies of the cosine transform, rows first.
  static const auto kCosines = [] {
    std::array<std::array<double, kSide>, kLow + 1> table{};
    for (int u = 0; u <= kLow; ++u)
      for (int x = 0; x < kSide; ++x)
        table.at(u).at(x) = std::cos(std::numbers::pi * u * (x + 0.5) / kSide);
    return table;
  }();
  std::array<double, 64> frequencies{};
  for (int u = 1; u <= kLow; ++u) {
    std::array<double, kSide> column{};
    for (int y = 0; y < kSide; ++y)
      for (int x = 0; x < kSide; ++x) column.at(x) += values[y * kSide + x] * kCosines.at(u).at(y);
    for (int v = 1; v <= kLow; ++v)
      for (int x = 0; x < kSide; ++x)
        frequencies.at((u - 1) * kLow + v - 1) += column.at(x) * kCosines.at(v).at(x);
  }
  std::array<double, 64> sorted = frequencies;
  std::nth_element(sorted.begin(), sorted.begin() + 32, sorted.end());
  PerceptualHash out;
  for (size_t i = 0; i < frequencies.size(); ++i)
    out.hash |= static_cast<uint64_t>(frequencies.at(i) > sorted[32]) << i;
  for (const double v : grey(kLookSide)) out.grey.push_back(static_cast<uint8_t>(std::lround(v)));
  return out;
}

bool near_duplicate(const PerceptualHash& a, const PerceptualHash& b) {
  if (std::popcount(a.hash ^ b.hash) > kHashBits) return false;
  const auto n = static_cast<double>(a.grey.size());
  double sum_a = 0, sum_b = 0, aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.grey.size(); ++i) {
    const double x = a.grey[i];
    const double y = b.grey[i];
    sum_a += x, sum_b += y, aa += x * x, bb += y * y, ab += x * y;
  }
  const double variance_a = aa / n - sum_a / n * (sum_a / n);
  const double variance_b = bb / n - sum_b / n * (sum_b / n);
  if (std::min(variance_a, variance_b) < kLeastContrast * kLeastContrast) return false;
  const double covariance = ab / n - sum_a / n * (sum_b / n);
  return covariance >= kCorrelation * std::sqrt(variance_a * variance_b);
}

Inspection inspect(const Dataset& dataset, InspectionDepth depth, const RunContext& context) {
  check_dataset(dataset);
  constexpr size_t kPiece = 64;  // images between two looks at the progress bar
  const size_t count = dataset.samples.size();
  std::vector<Facts> facts(count);
  ThreadPool pool(context.thread_count());
  std::vector<uintmax_t> sizes(count);
  std::map<uintmax_t, size_t> of_size;
  for (size_t i = 0; i < count; ++i) {
    sizes[i] = size_of_path(dataset.samples[i].path).value_or(0);
    ++of_size[sizes[i]];
  }
  {
    Progress progress(context, "checking", count, "images");
    for (size_t first = 0; first < count; first += kPiece) {
      const size_t n = std::min(kPiece, count - first);
      pool.parallel_for(n, [&](size_t i) {
        const size_t k = first + i;
        facts[k] = examine(dataset.samples[k], depth, of_size.at(sizes[k]) == 1);
      });
      progress.update(first + n);
      context.check_stop();
    }
    progress.finish();
  }

  return conclude(dataset, facts, depth, context);
}

Inspection conclude(const Dataset& dataset, const std::vector<Facts>& facts, InspectionDepth depth,
                    const RunContext& context) {
  const size_t count = dataset.samples.size();
  Inspection out;
  out.class_counts.assign(dataset.classes.size(), 0);
  std::vector<size_t> readable(dataset.classes.size());
  std::vector<std::string> hashes(count);
  for (size_t i = 0; i < count; ++i) {
    ++out.class_counts[dataset.samples[i].label];
    if (facts[i].error.empty()) ++readable[dataset.samples[i].label];
    describe(i, dataset.samples[i], facts[i], out);
    hashes[i] = facts[i].hash;
  }
  const auto [least, most] = std::minmax_element(readable.begin(), readable.end());
  out.imbalance = static_cast<double>(*most) / static_cast<double>(std::max<size_t>(*least, 1));
  out.duplicates = group_by(hashes);
  std::vector<bool> copy(count, false);
  for (const SampleGroup& group : out.duplicates) {
    for (size_t k = 1; k < group.size(); ++k) copy[group[k]] = true;
    if (conflicts(dataset, group)) out.conflicting_labels.push_back(group);
    if (spans(dataset, group, Split::train, Split::test)) out.train_test_leaks.push_back(group);
    if (spans(dataset, group, Split::train, Split::validation))
      out.train_val_leaks.push_back(group);
  }
  if (depth == InspectionDepth::pixels) {
    std::vector<size_t> candidates;
    for (size_t i = 0; i < count; ++i)
      if (!copy[i] && !facts[i].look.grey.empty()) candidates.push_back(i);
    out.near_duplicates = near_duplicate_groups(facts, candidates, context);
  }
  return out;
}

InspectionDepth depth_of(std::string_view exclusion) {
  if (exclusion == "corrupt" || exclusion == "near-duplicates" || exclusion == "greyscale")
    return InspectionDepth::pixels;
  return exclusion == "tiny" || exclusion == "extreme-aspect" ? InspectionDepth::files
                                                              : InspectionDepth::copies;
}

void check_inspection(const Dataset& dataset, const Inspection& found) {
  const auto require = [&](size_t sample) {
    if (sample >= dataset.samples.size())
      fail(ErrorKind::usage, "findings of another dataset: image {} of {}", sample,
           dataset.samples.size());
  };
  for (const FindingKind& kind : kFindingKinds)
    for (const Finding& finding : found.*kind.list) require(finding.sample);
  for (const GroupKind& kind : kGroupKinds)
    for (const SampleGroup& group : found.*kind.list)
      for (const size_t sample : group) require(sample);
}

std::vector<size_t> excluded_samples(const Dataset& dataset, const Inspection& inspection,
                                     const std::vector<std::string>& exclusions) {
  check_inspection(dataset, inspection);
  std::set<size_t> out;
  const auto all_but_first = [&](const std::vector<SampleGroup>& groups) {
    for (const SampleGroup& group : groups) {
      std::set<Split> seen;  // leaks between splits are another matter
      for (const size_t i : group)
        if (!seen.insert(dataset.samples[i].split).second) out.insert(i);
    }
  };
  const auto each = [&](const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) out.insert(finding.sample);
  };
  for (const std::string& word : exclusions) {
    if (word == "corrupt") {
      each(inspection.corrupt);
      each(inspection.unsupported);
    } else if (word == "tiny") {
      each(inspection.tiny);
    } else if (word == "extreme-aspect") {
      each(inspection.extreme_aspect);
    } else if (word == "greyscale") {
      each(inspection.greyscale);
    } else if (word == "duplicates") {
      all_but_first(inspection.duplicates);
    } else if (word == "near-duplicates") {
      all_but_first(inspection.near_duplicates);
    } else if (word == "conflicts") {
      for (const SampleGroup& group : inspection.conflicting_labels)
        out.insert(group.begin(), group.end());
    } else if (word == "leaks") {
      for (const auto* groups : {&inspection.train_test_leaks, &inspection.train_val_leaks})
        for (const SampleGroup& group : *groups)
          for (const size_t i : group)
            if (in_split(dataset.samples[i], Split::train)) out.insert(i);
    } else {
      fail(ErrorKind::usage, "`exclude`: '{}' is none of {}", word, fmt::join(kExclusions, ", "));
    }
  }
  return {out.begin(), out.end()};
}

}  // namespace graft
