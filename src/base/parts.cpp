// Joining the parts of a result.
#include <algorithm>
#include <map>
#include <queue>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/part_bytes.h"
#include "base/part_file.h"

namespace graft {
namespace {

/// Parts of that kind in a folder, sorted.
std::vector<fs::path> parts_in(const fs::path& folder, const std::string& kind) {
  std::vector<fs::path> out;
  std::error_code error;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (name.starts_with(kind + "-") && name.ends_with(".part")) out.push_back(at->path());
  }
  if (error)
    fail(ErrorKind::io, "{}: cannot read this folder: {}", printable(folder), error.message());
  if (out.empty())
    fail(ErrorKind::input,
         "{}: no {}-I-of-N.part in this folder; name the folder that --shard wrote to",
         printable(folder), kind);
  std::sort(out.begin(), out.end());
  return out;
}

[[noreturn]] void fail_missing(const std::map<uint32_t, PartReader>& found) {
  constexpr size_t kShown = 5;
  const PartReader& one = found.begin()->second;
  const uint32_t count = one.head().shard.count;
  std::vector<uint32_t> missing;
  for (uint32_t i = 0; i < count; ++i)
    if (!found.contains(i)) missing.push_back(i);
  const uint32_t first = missing[0];
  const size_t all = missing.size();
  missing.resize(std::min(all, kShown));
  std::error_code error;
  const bool begun = fs::exists(
      part_path(one.path().parent_path(), one.head().kind, {first, count}).native() + kUnfinished,
      error);
  fail(ErrorKind::input, "{}: {} of its {} shards {} missing: {}{}{}; run --shard {}/{}",
       printable(one.path()), all, count, all == 1 ? "is" : "are", fmt::join(missing, ", "),
       all > kShown ? ", …" : "", begun ? fmt::format(" ({} is unfinished)", first) : "", first,
       count);
}

}  // namespace

Parts::Parts(std::span<const std::filesystem::path> given, const std::string& kind) {
  std::vector<fs::path> files;
  for (const fs::path& path : given) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    for (fs::path& file : parts_in(path, kind)) files.push_back(std::move(file));
  }
  if (files.empty()) fail(ErrorKind::usage, "no parts to join");
  std::map<uint32_t, PartReader> found;
  for (const fs::path& file : files) {
    PartReader reader(file);
    const PartHead& head = reader.head();
    if (head.kind != kind)
      fail(ErrorKind::input, "{}: a part of 'graft {}', not of 'graft {}'", printable(file),
           printable(head.kind), kind);
    if (!found.empty()) {
      const PartReader& first = found.begin()->second;
      const std::string other = printable(first.path());
      if (head.shard.count != first.head().shard.count)
        fail(ErrorKind::input,
             "{}: one of {} shards, but {} is one of {}; name those of one run alone",
             printable(file), head.shard.count, other, first.head().shard.count);
      if (head.about != first.head().about)
        fail(ErrorKind::input, "{}: not as {}, but of {}; make all shards with the same options",
             printable(file), other, different_options(first.head().about, head.about));
      if (head.list != first.head().list || head.images != first.head().images)
        fail(ErrorKind::input,
             "{}: of another list of images ({}) than {} ({}); run all shards on the same images, "
             "named in the same way",
             printable(file), head.images, other, first.head().images);
    }
    const uint32_t index = head.shard.index;
    const auto [at, fresh] = found.emplace(index, std::move(reader));
    if (!fresh)
      fail(ErrorKind::input, "{} and {}: both are shard {} of {}; name one of them",
           printable(at->second.path()), printable(file), index, at->second.head().shard.count);
  }
  if (found.size() < found.begin()->second.head().shard.count) fail_missing(found);
  for (auto& [index, reader] : found) parts_.push_back(std::move(reader));
}

void Parts::read(const std::function<void(const PartRecord&)>& sink) {
  struct Next {
    uint64_t image;
    size_t part;
    bool operator>(const Next& other) const { return image > other.image; }
  };
  std::priority_queue<Next, std::vector<Next>, std::greater<>> queue;
  std::vector<PartRecord> records(parts_.size());
  const auto advance = [&](size_t part) {
    if (parts_[part].next(records[part])) queue.push({records[part].image, part});
  };
  for (size_t part = 0; part < parts_.size(); ++part) advance(part);
  ContentHash list;
  uint64_t expected = 0;
  for (; !queue.empty(); ++expected) {
    const Next next = queue.top();
    queue.pop();
    const PartRecord& record = records[next.part];
    if (next.image != expected)
      fail(ErrorKind::input, "{}: image {} of the list is {}; run this shard again, with --force",
           printable(parts_[next.part].path()), std::min(next.image, expected),
           next.image < expected ? "there twice" : "in no part");
    list.update(std::as_bytes(std::span(record.path)));
    list.update(std::as_bytes(std::span("", 1)));
    sink(record);
    advance(next.part);
  }
  if (expected != head().images || list.finish() != head().list)
    fail(ErrorKind::input, "{}: the parts hold {} images, and not those of their list ({})",
         printable(parts_.front().path()), expected, head().images);
}

}  // namespace graft
