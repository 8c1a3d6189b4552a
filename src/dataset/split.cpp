#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/random.h"
#include "dataset/dataset.h"
#include "graft/image.h"

namespace graft {
namespace {

/// Samples that must stay on one side, with the class that counts for stratification.
struct Group {
  std::vector<size_t> members;
  int label = 0;
};

/// Identical files form a group; a file that cannot be read is a group of its own (it is reported
/// when it is to be decoded). Groups come in the order of their first member.
std::vector<Group> group_identical(const Dataset& dataset, const std::vector<size_t>& candidates) {
  // Only files of equal size can be identical: hash those alone.
  std::map<uintmax_t, std::vector<size_t>> by_size;
  for (const size_t i : candidates) {
    std::error_code error;
    const uintmax_t size = std::filesystem::file_size(dataset.samples[i].path, error);
    by_size[error ? 0 : size].push_back(i);
  }
  std::map<size_t, std::string> key;
  for (const auto& [size, members] : by_size) {
    for (const size_t i : members) {
      key[i] = "sample " + std::to_string(i);
      if (members.size() < 2 || size == 0) continue;
      try {
        key[i] = content_hash_of_file(dataset.samples[i].path);
      } catch (const Error&) {
        // unreadable: stays alone
      }
    }
  }
  std::vector<Group> groups;
  std::map<std::string, size_t> index;
  for (const size_t i : candidates) {
    const auto [at, fresh] = index.emplace(key.at(i), groups.size());
    if (fresh) groups.push_back({{}, dataset.samples[i].label});
    groups[at->second].members.push_back(i);
  }
  return groups;
}

/// Throws Error(input) where a class of one file, or of copies of one, is of none that can be read:
/// an error page saved under many names is no matter of splitting.
void require_readable(const Dataset& dataset, const Group& group, size_t images) {
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

}  // namespace

void split_off(Dataset& dataset, double fraction, uint64_t seed, Split to) {
  std::vector<size_t> candidates;
  for (size_t i = 0; i < dataset.samples.size(); ++i) {
    const Split split = dataset.samples[i].split;
    if (split == Split::train || split == Split::unassigned) candidates.push_back(i);
  }
  const std::vector<Group> groups = group_identical(dataset, candidates);
  for (size_t label = 0; label < dataset.classes.size(); ++label) {
    std::vector<size_t> mine;
    size_t images = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
      if (groups[g].label != static_cast<int>(label)) continue;
      mine.push_back(g);
      images += groups[g].members.size();
    }
    if (mine.empty()) continue;
    if (mine.size() < 2) {
      require_readable(dataset, groups[mine[0]], images);
      const auto set_aside =
          std::count_if(dataset.samples.begin(), dataset.samples.end(), [&](const Sample& sample) {
            return sample.label == static_cast<int>(label) && sample.split == Split::test;
          });
      if (set_aside > 0)
        fail(ErrorKind::input,
             "class '{}' has {} beside its {} test images: it cannot be split into training and "
             "validation; add images, or set fewer test images aside (`test-split`)",
             dataset.classes[label], images == 1 ? "only one image" : "only copies of one file",
             set_aside);
      fail(ErrorKind::input,
           "class '{}' has {}: it cannot be split into training and validation; "
           "add images, remove the class, or give `val` DIR",
           dataset.classes[label], images == 1 ? "only one image" : "only copies of one file");
    }
    Random random(seed, label + 1);
    random.shuffle(mine);
    const auto wanted = static_cast<size_t>(std::clamp(
        std::lround(fraction * static_cast<double>(images)), 1L, static_cast<long>(images) - 1));
    size_t moved = 0;
    for (size_t k = 0; k < mine.size(); ++k) {
      const Group& group = groups[mine[k]];
      // A group goes over while there is room, but never the last one, and always the first.
      const bool last = k + 1 == mine.size();
      const bool move = moved == 0 ? !last : (!last && moved + group.members.size() <= wanted);
      for (const size_t i : group.members) dataset.samples[i].split = move ? to : Split::train;
      if (move) moved += group.members.size();
    }
  }
}

void write_split(const Dataset& dataset, const std::vector<size_t>& excluded,
                 const std::filesystem::path& file) {
  std::vector<bool> out(dataset.samples.size(), false);
  for (const size_t i : excluded) out[i] = true;
  std::string text = "path,label,split\n";
  for (size_t i = 0; i < dataset.samples.size(); ++i) {
    const Sample& sample = dataset.samples[i];
    // Absolute, so that the file works as a manifest from any folder.
    text += fmt::format("{},{},{}\n", csv_field(std::filesystem::absolute(sample.path).string()),
                        csv_field(dataset.classes[sample.label]),
                        out[i] ? "excluded" : to_string(sample.split));
  }
  for (const SkippedImage& image : dataset.skipped)
    text +=
        fmt::format("{},{},excluded\n", csv_field(std::filesystem::absolute(image.path).string()),
                    csv_field(image.label));
  write_file_atomic(file, text);
}

}  // namespace graft
