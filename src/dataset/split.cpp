#include "dataset/split.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <span>
#include <string>

#include "base/disjoint_sets.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "graft/image.h"

namespace graft {
namespace {

/// Samples that stay on one side.
struct Group {
  std::vector<size_t> members;
  int label = 0;  ///< the class that it counts for: the first member's
  double draw = 0;
  bool settled = false;  ///< its members' split stays
};

bool is_candidate(const Sample& sample) {
  return sample.split == Split::train || sample.split == Split::unassigned;
}

/// What stands for an image: its bytes, or where they cannot be read (which is told once it is to
/// be decoded) its path.
std::string identity(const Sample& sample) {
  return sample.content.empty() ? "path " + sample.path.string() : sample.content;
}

/// Uniform in [0, 1).
double draw_of(uint64_t seed, const std::string& identity) {
  const std::string text = fmt::format("{}\n{}", seed, identity);
  const std::string digits = content_hash(std::as_bytes(std::span(text))).substr(0, 13);
  uint64_t number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number, 16);
  return static_cast<double>(number) / static_cast<double>(uint64_t{1} << 52U);
}

/// In the order of their first members.
std::vector<Group> make_groups(const Dataset& dataset, uint64_t seed,
                               const std::vector<SampleGroup>& together,
                               const std::vector<bool>& settled) {
  DisjointSets joined(dataset.samples.size());
  std::map<std::string, size_t> first;
  for (size_t i = 0; i < dataset.samples.size(); ++i)
    joined.join(i, first.emplace(identity(dataset.samples[i]), i).first->second);
  for (const SampleGroup& group : together)
    for (const size_t i : group) joined.join(group[0], i);
  std::vector<Group> groups;
  std::map<size_t, size_t> place;  // root → group
  std::vector<std::string> least;  // of each group
  for (size_t i = 0; i < dataset.samples.size(); ++i) {
    const Sample& sample = dataset.samples[i];
    if (!is_candidate(sample)) continue;
    const auto [at, fresh] = place.emplace(joined.root(i), groups.size());
    if (fresh) {
      groups.push_back({{}, sample.label});
      least.push_back(identity(sample));
    }
    Group& group = groups[at->second];
    group.members.push_back(i);
    group.settled |= !settled.empty() && settled[i];
    least[at->second] = std::min(least[at->second], identity(sample));
  }
  for (size_t g = 0; g < groups.size(); ++g) groups[g].draw = draw_of(seed, least[g]);
  return groups;
}

/// Throws Error(input) where a class of one file, or of copies of one, is of none that can be read:
/// an error page saved under many names is no matter of splitting.
void require_readable(const Dataset& dataset, const Group& group) {
  const size_t images = group.members.size();
  try {
    static_cast<void>(load_image(dataset.samples[group.members[0]].path));
  } catch (const Error& error) {
    fail(ErrorKind::input, "class '{}': {}: {}", dataset.classes[static_cast<size_t>(group.label)],
         images == 1
             ? "its only image cannot be read"
             : fmt::format("none of its {} images, copies of one file, can be read", images),
         error.what());
  }
}

[[noreturn]] void refuse_class_of_one(const Dataset& dataset, const Group& group) {
  require_readable(dataset, group);
  const std::string& label = dataset.classes[static_cast<size_t>(group.label)];
  const size_t images = group.members.size();
  const auto set_aside =
      std::count_if(dataset.samples.begin(), dataset.samples.end(), [&](const Sample& sample) {
        return sample.label == group.label && sample.split == Split::test;
      });
  if (set_aside > 0)
    fail(ErrorKind::input,
         "class '{}' has {} beside its {} test image{}: it cannot be split into training and "
         "validation; add images, give `val` DIR, or set fewer test images aside",
         label, images == 1 ? "only one image" : "only copies of one file", set_aside,
         set_aside == 1 ? "" : "s");
  fail(ErrorKind::input,
       "class '{}' has {}: it cannot be split into training and validation; "
       "add images, remove the class, or give `val` DIR",
       label, images == 1 ? "only one image" : "only copies of one file");
}

/// The groups that are to be moved.
std::vector<const Group*> chosen(const Dataset& dataset, std::vector<const Group*> mine,
                                 const SplitShare& share) {
  const auto stays = [](const Group* group) { return group->settled; };
  bool aside = std::any_of(dataset.samples.begin(), dataset.samples.end(), [&](const Sample& s) {
    return s.label == mine[0]->label && s.split == share.to;
  });
  bool training = std::any_of(mine.begin(), mine.end(), stays);
  mine.erase(std::remove_if(mine.begin(), mine.end(), stays), mine.end());
  std::sort(mine.begin(), mine.end(),
            [](const Group* a, const Group* b) { return a->draw < b->draw; });
  size_t count = 0;
  while (count < mine.size() && mine[count]->draw < share.fraction) ++count;
  if (count == 0 && !aside && !mine.empty()) count = 1;
  const size_t least = aside ? 0 : 1;
  while (count > least && mine.size() - count + (training ? 1 : 0) < share.left) --count;
  mine.resize(count);
  return mine;
}

}  // namespace

std::vector<std::string> contents_of(const Dataset& dataset, const RunContext& context) {
  std::vector<std::string> out;
  std::vector<size_t> unknown;
  std::vector<fs::path> paths;
  for (const Sample& sample : dataset.samples) {
    if (sample.content.empty()) {
      unknown.push_back(out.size());
      paths.push_back(sample.path);
    }
    out.push_back(sample.content);
  }
  std::vector<std::string> contents = content_hashes(paths, context);
  for (size_t k = 0; k < unknown.size(); ++k) out[unknown[k]] = std::move(contents[k]);
  return out;
}

void read_contents(Dataset& dataset, const RunContext& context) {
  std::vector<std::string> contents = contents_of(dataset, context);
  for (size_t i = 0; i < contents.size(); ++i) dataset.samples[i].content = std::move(contents[i]);
}

void split_off(Dataset& dataset, const SplitShare& share, const std::vector<SampleGroup>& together,
               const std::vector<bool>& settled) {
  const std::vector<Group> groups = make_groups(dataset, share.seed, together, settled);
  std::vector<std::vector<const Group*>> of_class(dataset.classes.size());
  for (const Group& group : groups) of_class[static_cast<size_t>(group.label)].push_back(&group);
  std::vector<const Group*> moved;
  for (std::vector<const Group*>& mine : of_class) {
    if (mine.empty()) continue;
    if (mine.size() < 2 && !mine[0]->settled) refuse_class_of_one(dataset, *mine[0]);
    const std::vector<const Group*> away = chosen(dataset, std::move(mine), share);
    moved.insert(moved.end(), away.begin(), away.end());
  }
  for (const Group& group : groups)
    for (const size_t i : group.members) dataset.samples[i].split = Split::train;
  for (const Group* group : moved)
    for (const size_t i : group->members) dataset.samples[i].split = share.to;
}

}  // namespace graft
