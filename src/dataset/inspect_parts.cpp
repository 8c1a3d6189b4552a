// Inspection by workers that do not talk to each other: graft check --shard and --merge.
#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/part_file.h"
#include "base/progress.h"
#include "base/threads.h"
#include "dataset/dataset.h"
#include "dataset/facts.h"

namespace graft {
namespace {

constexpr const char* kKind = "check";
// Raised when facts of an image change.
constexpr int kRevision = 1;

std::vector<std::filesystem::path> paths_of(const Dataset& dataset) {
  std::vector<std::filesystem::path> paths;
  paths.reserve(dataset.samples.size());
  for (const Sample& sample : dataset.samples) paths.push_back(sample.path);
  return paths;
}

}  // namespace

InspectedShard inspect_shard(const Dataset& dataset, const Shard& shard,
                             const std::filesystem::path& folder, const RunContext& context,
                             bool replace) {
  constexpr size_t kPiece = 64;  // images between two looks at the progress bar
  check_dataset(dataset);
  const std::vector<std::filesystem::path> paths = paths_of(dataset);
  const std::vector<size_t> members = shard_members(paths, shard);
  make_folder(folder);
  InspectedShard out{part_path(folder, kKind, shard), members.size()};
  const PartHead head{kKind, shard, paths.size(), list_hash(paths), {{"revision", kRevision}}};
  PartWriter part(
      out.part, head, replace, [&](const PartRecord& /*record*/) { ++out.earlier; },
      [&](const std::string& note) { context.tell(Severity::warning, note); });
  if (part.complete()) return out;
  ThreadPool pool(context.thread_count());
  Progress progress(context, "checking", members.size(), "images");
  std::vector<Facts> facts;
  for (size_t first = out.earlier; first < members.size(); first += kPiece) {
    facts.assign(std::min(kPiece, members.size() - first), {});
    pool.parallel_for(facts.size(), [&](size_t i) {
      // Other shards may have a file of the same size, so that every hash is needed.
      facts[i] = examine(dataset.samples[members[first + i]], InspectionDepth::pixels,
                         /*alone=*/false);
    });
    for (size_t i = 0; i < facts.size(); ++i) {
      const size_t image = members[first + i];
      part.add({image, paths[image].native(), facts_bytes(facts[i])});
    }
    part.flush();
    progress.update(first + facts.size());
    context.check_stop();
  }
  progress.finish();
  part.commit();
  return out;
}

Inspection inspect_parts(const Dataset& dataset, std::span<const std::filesystem::path> parts,
                         const RunContext& context) {
  check_dataset(dataset);
  Parts all(parts, kKind);
  const std::vector<std::filesystem::path> paths = paths_of(dataset);
  if (all.head().images != paths.size() || all.head().list != list_hash(paths))
    fail(ErrorKind::input,
         "{}: the parts are of other images ({}) than are there ({}); name the data as it was for "
         "--shard, or check it anew",
         printable(dataset.root), all.head().images, paths.size());
  std::vector<Facts> facts(paths.size());
  Progress progress(context, "joining", paths.size(), "images");
  size_t done = 0;
  all.read([&](const PartRecord& record) {
    facts[record.image] = facts_of(record.content, printable(std::filesystem::path(record.path)));
    if (++done % 1024 == 0) {
      progress.update(done);
      context.check_stop();
    }
  });
  progress.finish();
  return conclude(dataset, facts, InspectionDepth::pixels, context);
}

}  // namespace graft
