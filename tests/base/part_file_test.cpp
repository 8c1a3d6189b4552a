// Parts of a result by workers that do not talk to each other.
#include "base/part_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <set>

#include "base/file.h"
#include "graft/error.h"
#include "support.h"

namespace graft {
namespace {

std::vector<fs::path> some_paths(size_t count) {
  std::vector<fs::path> out;
  for (size_t i = 0; i < count; ++i) out.emplace_back("photos/" + std::to_string(i) + ".jpg");
  return out;
}

TEST(Shards, AreAllImagesOnceAndOfOneSize) {
  for (const size_t images : {0U, 1U, 7U, 1000U})
    for (const uint32_t count : {1U, 2U, 3U, 7U, 999U, 1001U}) {
      const std::vector<fs::path> paths = some_paths(images);
      std::set<size_t> seen;
      size_t most = 0;
      size_t least = SIZE_MAX;
      for (uint32_t index = 0; index < count; ++index) {
        const std::vector<size_t> members = shard_members(paths, {index, count});
        EXPECT_TRUE(std::is_sorted(members.begin(), members.end()));
        for (const size_t i : members) EXPECT_TRUE(seen.insert(i).second);
        most = std::max(most, members.size());
        least = std::min(least, members.size());
      }
      EXPECT_EQ(seen.size(), images);
      EXPECT_LE(most - least, 1U) << images << " in " << count;
    }
}

TEST(Shards, DependOnNamesAlone) {
  const std::vector<fs::path> paths = some_paths(100);
  std::vector<fs::path> reversed(paths.rbegin(), paths.rend());
  std::set<fs::path> a;
  std::set<fs::path> b;
  for (const size_t i : shard_members(paths, {1, 3})) a.insert(paths[i]);
  for (const size_t i : shard_members(reversed, {1, 3})) b.insert(reversed[i]);
  EXPECT_EQ(a, b);
}

TEST(Shards, NumbersThatAreNoneAreRefused) {
  for (const Shard shard : {Shard{1, 1}, Shard{5, 4}, Shard{0, 0}, Shard{0, kMostShards + 1}})
    EXPECT_THROW(static_cast<void>(shard_members(some_paths(3), shard)), Error);
}

class PartFiles : public ::testing::Test {
 protected:
  PartHead head(uint32_t index, uint32_t count) const {
    return {"test", {index, count}, paths_.size(), list_hash(paths_), {{"size", 3}}};
  }
  fs::path write(uint32_t index, uint32_t count) const {
    const Shard shard{index, count};
    const fs::path path = part_path(folder_.path(), "test", shard);
    PartWriter part(
        path, head(index, count), false, [](const PartRecord&) {}, [](const std::string&) {});
    for (const size_t i : shard_members(paths_, shard))
      part.add({i, paths_[i].native(), std::string(i, 'x')});
    part.commit();
    return path;
  }

  std::vector<fs::path> paths_ = some_paths(200);
  testing::TemporaryFolder folder_;
};

TEST_F(PartFiles, AreJoinedInTheOrderOfTheList) {
  for (uint32_t index = 0; index < 3; ++index) write(index, 3);
  size_t next = 0;
  const std::vector<fs::path> given = {folder_.path()};
  Parts(given, "test").read([&](const PartRecord& record) {
    EXPECT_EQ(record.image, next);
    EXPECT_EQ(record.path, paths_[next].native());
    EXPECT_EQ(record.content, std::string(next, 'x'));
    ++next;
  });
  EXPECT_EQ(next, paths_.size());
}

TEST_F(PartFiles, AnyFlippedBitIsNoticed) {
  const fs::path path = write(0, 1);
  const std::string whole = read_text_file(path);
  for (size_t place = 0; place < whole.size(); place += 131) {
    std::string damaged = whole;
    damaged[place] = static_cast<char>(damaged[place] ^ 4);
    std::ofstream(path, std::ios::binary) << damaged;
    EXPECT_THROW(
        {
          PartReader reader(path);
          for (PartRecord record; reader.next(record);) continue;
        },
        Error)
        << place;
  }
}

TEST_F(PartFiles, ChunksThatWereExchangedAreNoticed) {
  const fs::path path = write(0, 1);
  std::string whole = read_text_file(path);
  // The first two chunks of 64 records begin behind the head; exchanged they have the same hashes
  // of their bytes, but not of their places.
  PartReader reader(path);
  const uint64_t first = reader.offset();
  PartRecord record;
  reader.next(record);
  const uint64_t second = reader.offset();
  while (reader.records() == 64) reader.next(record);
  const uint64_t third = reader.offset();
  whole = whole.substr(0, first) + whole.substr(second, third - second) +
          whole.substr(first, second - first) + whole.substr(third);
  std::ofstream(path, std::ios::binary) << whole;
  PartReader exchanged(path);
  EXPECT_THROW(exchanged.next(record), Error);
}

}  // namespace
}  // namespace graft
