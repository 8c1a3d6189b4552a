// Processes that share out work through a folder, here threads of one.
#include "base/group_folder.h"

#include <atomic>
#include <chrono>
#include <exception>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/fail.h"
#include "base/file.h"
#include "base/part_file.h"
#include "graft/shard.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;

GroupPlace place(int rank, int size) {
  GroupPlace out;
  out.rank = rank;
  out.size = size;
  return out;
}

/// What each rank threw.
std::vector<std::string> in_group(int size, const std::function<void(int rank)>& work) {
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        work(rank);
      } catch (const Error& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

TEST(GroupFolder, EveryPartIsMadeOnceAndSlowRanksAreHelped) {
  const TemporaryFolder folder;
  const fs::path parts = folder.path() / "parts";
  constexpr uint32_t kParts = 40;
  std::mutex mutex;
  std::vector<int> makers(kParts);
  std::vector<int> made(3);
  std::vector<bool> busy(kParts);
  const auto file = [&](uint32_t part) {
    return parts / ("thing-" + std::to_string(part) + ".part");
  };
  const auto errors = in_group(3, [&](int rank) {
    GroupFolder group(parts, place(rank, 3), "{}", {});
    group.share_out(kParts, file, [&](uint32_t part) {
      {
        const std::lock_guard lock(mutex);
        if (busy[part]) throw PartTaken(ErrorKind::io, "another is at it");
        busy[part] = true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(rank == 1 ? 60 : 2));
      std::ofstream(file(part)) << rank;
      const std::lock_guard lock(mutex);
      ++makers[part];
      ++made[static_cast<size_t>(rank)];
    });
    if (rank != 0) return;
    EXPECT_EQ(makers, std::vector<int>(kParts, 1));
    group.remove("thing");
  });
  EXPECT_EQ(errors, std::vector<std::string>(3));
  EXPECT_LT(made[1], 8) << "a third would be 13";
  EXPECT_FALSE(fs::exists(parts));
}

TEST(GroupFolder, AnotherJobIsRefused) {
  const TemporaryFolder folder;
  const auto errors = in_group(2, [&](int rank) {
    GroupFolder group(folder.path() / "parts", place(rank, 2),
                      rank == 0 ? R"({"images": 300})" : R"({"images": 299})", {});
    // Rank 0 stays until the other has looked.
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  });
  EXPECT_EQ(errors[0], "");
  EXPECT_NE(
      errors[1].find(
          "rank 1 of 2: its images or options differ from those of rank 0 (images: 299, not 300)"),
      std::string::npos);
}

TEST(GroupFolder, WhatIsMissingIsNamed) {
  const TemporaryFolder folder;
  ::setenv("GRAFT_JOIN_TIMEOUT", "1", 1);
  const auto errors = in_group(2, [&](int rank) {
    if (rank == 0) GroupFolder(folder.path() / "a", place(0, 3), "{}", {});
    if (rank == 1) GroupFolder(folder.path() / "b", place(1, 3), "{}", {});
  });
  ::unsetenv("GRAFT_JOIN_TIMEOUT");
  EXPECT_NE(errors[0].find("ranks 1, 2 of 3 have not come to"), std::string::npos) << errors[0];
  EXPECT_NE(errors[1].find("rank 1 of 3: rank 0 is not at"), std::string::npos) << errors[1];
}

TEST(GroupFolder, PartsAreManyAndNotSmall) {
  EXPECT_EQ(group_parts(0, 2), 1U);
  EXPECT_EQ(group_parts(100, 2), 6U);
  EXPECT_EQ(group_parts(100'000, 2), 128U);
  EXPECT_EQ(group_parts(100'000'000, 100'000), kMostShards);
}

}  // namespace
}  // namespace graft
