#include "dataset/split.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/file.h"
#include "dataset/split_file.h"
#include "graft/image.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;
using testing::write;

void fill(const fs::path& folder, int count, int from = 0) {
  for (int i = from; i < from + count; ++i)
    write(folder / (std::to_string(i) + ".jpg"),
          folder.filename().string() + " " + std::to_string(i));
}

Dataset open_read(const fs::path& folder) {
  Dataset dataset = open_dataset(folder);
  read_contents(dataset, {.threads = 1});
  return dataset;
}

Dataset split_of(const fs::path& folder, double fraction = 0.15, uint64_t seed = 0) {
  Dataset dataset = open_read(folder);
  split_off(dataset, {fraction, seed, Split::validation});
  return dataset;
}

/// What the bytes of each file are split to.
std::map<std::string, std::set<Split>> sides(const Dataset& dataset) {
  std::map<std::string, std::set<Split>> out;
  for (const Sample& s : dataset.samples) out[read_text_file(s.path)].insert(s.split);
  return out;
}

std::map<int, size_t> counts(const Dataset& dataset, Split split) {
  std::map<int, size_t> out;
  for (const size_t i : dataset.of(split)) ++out[dataset.samples[i].label];
  return out;
}

// By chance a share may be all but one, and then nothing could be set aside of the rest.
TEST(Split, LeavesEnoughForASecondShare) {
  const TemporaryFolder t;
  for (int c = 0; c < 60; ++c) fill(t.path() / fmt::format("c{}", c), 5);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    Dataset dataset = open_read(t.path());
    split_off(dataset, {0.4, ~seed, Split::test, 2});
    const std::map<int, size_t> test = counts(dataset, Split::test);
    EXPECT_EQ(test.size(), 60);
    for (const auto& [label, count] : test) EXPECT_LE(count, 3) << label;
    split_off(dataset, {0.15, seed, Split::validation});
    EXPECT_EQ(counts(dataset, Split::train).size(), 60);
    EXPECT_EQ(counts(dataset, Split::validation).size(), 60);
  }
}

TEST(Split, IsSeededAndOfAllClasses) {
  const TemporaryFolder t;
  fill(t.path() / "a", 400);
  fill(t.path() / "b", 40);
  fill(t.path() / "c", 2);
  const Dataset one = split_of(t.path(), 0.15, 1);
  EXPECT_EQ(one.of(Split::train).size() + one.of(Split::validation).size(), one.samples.size());
  EXPECT_EQ(sides(one), sides(split_of(t.path(), 0.15, 1)));
  EXPECT_NE(sides(one), sides(split_of(t.path(), 0.15, 2)));
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::map<int, size_t> aside = counts(split_of(t.path(), 0.15, seed), Split::validation);
    // Four standard deviations of a binomial distribution.
    EXPECT_NEAR(static_cast<double>(aside[0]), 60, 4 * std::sqrt(400 * 0.15 * 0.85)) << seed;
    EXPECT_EQ(aside[2], 1U) << "both sides of a class have an image";
  }
}

TEST(Split, SharesAreRightOnTheWhole) {
  const TemporaryFolder t;
  fill(t.path() / "a", 100);
  fill(t.path() / "b", 100);
  size_t aside = 0;
  for (uint64_t seed = 0; seed < 50; ++seed)
    aside += split_of(t.path(), 0.15, seed).of(Split::validation).size();
  EXPECT_NEAR(static_cast<double>(aside) / 50 / 200, 0.15, 0.015);
}

TEST(Split, NoImageEverMoves) {
  const TemporaryFolder t;
  fill(t.path() / "a", 60);
  fill(t.path() / "b", 60);
  fill(t.path() / "c", 60);
  const std::map<std::string, std::set<Split>> before = sides(split_of(t.path()));
  const auto same = [&](const char* what) {
    for (const auto& [content, side] : sides(split_of(t.path()))) {
      EXPECT_EQ(side.size(), 1U) << what << content;
      if (const auto at = before.find(content); at != before.end())
        EXPECT_EQ(side, at->second) << what << ": " << content;
    }
  };
  fill(t.path() / "a", 200, 60);
  fill(t.path() / "d", 50);
  same("added");
  for (int i = 0; i < 30; ++i) fs::remove(t.path() / "b" / (std::to_string(i) + ".jpg"));
  same("removed");
  for (int i = 0; i < 60; ++i)
    fs::rename(t.path() / "c" / (std::to_string(i) + ".jpg"),
               t.path() / "c" / fmt::format("renamed-{}.png", 99 - i));
  same("renamed");
  for (int i = 0; i < 60; ++i)
    fs::copy(t.path() / "a" / (std::to_string(i) + ".jpg"),
             t.path() / "a" / "copies" / (std::to_string(i) + ".jpg"),
             (fs::create_directories(t.path() / "a" / "copies"), fs::copy_options::none));
  same("duplicated");
  for (int i = 60; i < 100; ++i)
    fs::rename(t.path() / "a" / (std::to_string(i) + ".jpg"),
               t.path() / "d" / fmt::format("from-a-{}.jpg", i));
  same("given another label");
}

TEST(Split, KeepsIdenticalFilesOnOneSide) {
  const TemporaryFolder t;
  for (int i = 0; i < 30; ++i)
    for (int copy = 0; copy < 3; ++copy)
      write(t.path() / (copy == 2 ? "b" : "a") / fmt::format("{}-{}.jpg", i, copy),
            "content " + std::to_string(i));
  fill(t.path() / "b", 30);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const Dataset d = split_of(t.path(), 0.3, seed);
    for (const auto& [content, where] : sides(d)) EXPECT_EQ(where.size(), 1U) << content;
    EXPECT_FALSE(d.of(Split::validation).empty());
  }
}

TEST(Split, KeepsGroupsOnOneSide) {
  const TemporaryFolder t;
  fill(t.path() / "a", 60);
  fill(t.path() / "b", 60);
  Dataset d = open_read(t.path());
  const std::vector<SampleGroup> together = {{0, 1, 2, 3}, {4, 70}, {80, 81}};
  bool differs = false;  // what the groups change
  for (uint64_t seed = 0; seed < 10; ++seed) {
    Dataset with = d;
    Dataset without = d;
    split_off(with, {0.3, seed, Split::validation}, together);
    split_off(without, {0.3, seed, Split::validation});
    for (const SampleGroup& group : together)
      for (const size_t i : group) EXPECT_EQ(with.samples[i].split, with.samples[group[0]].split);
    for (size_t i = 0; i < 4; ++i) differs |= with.samples[i].split != without.samples[i].split;
    for (size_t i = 90; i < 120; ++i) EXPECT_EQ(with.samples[i].split, without.samples[i].split);
  }
  EXPECT_TRUE(differs);
}

TEST(Split, RefusesAClassOfOne) {
  const TemporaryFolder t;
  fill(t.path() / "a", 5);
  const std::vector<std::byte> png = encode_png({2, 2, std::vector<uint8_t>(12, 9)});
  write(t.path() / "b" / "0.jpg", {reinterpret_cast<const char*>(png.data()), png.size()});
  EXPECT_ERROR(split_of(t.path()), ErrorKind::input, "'b' has only one image");
  write(t.path() / "b" / "copy.jpg", read_text_file(t.path() / "b" / "0.jpg"));
  EXPECT_ERROR(split_of(t.path()), ErrorKind::input, "only copies");
  write(t.path() / "b" / "0.jpg", "no image");
  write(t.path() / "b" / "copy.jpg", "no image");
  EXPECT_ERROR(split_of(t.path()), ErrorKind::input,
               "none of its 2 images, copies of one file, can be read");
}

TEST(SplitFile, IsAManifest) {
  const TemporaryFolder t;
  fill(t.path() / "a, \"quoted\"", 6);
  fill(t.path() / "b", 6);
  const Dataset d = split_of(t.path(), 0.2, 3);
  write_split(d, {0}, t.path() / "split.csv");
  const Dataset again = open_dataset(t.path() / "split.csv");
  EXPECT_EQ(again.classes, d.classes);
  EXPECT_TRUE(again.notes.empty()) << again.notes[0];
  EXPECT_EQ(again.samples.size(), d.samples.size() - 1) << "the excluded row is left out";
  for (const Sample& s : again.samples) {
    const auto at = std::find_if(d.samples.begin(), d.samples.end(),
                                 [&](const Sample& o) { return fs::absolute(o.path) == s.path; });
    ASSERT_NE(at, d.samples.end());
    EXPECT_EQ(at->split, s.split);
    EXPECT_EQ(at->label, s.label);
  }
}

class TakenSplits : public ::testing::Test {
 protected:
  TakenSplits() {
    fill(t_.path() / "data" / "a", 30);
    fill(t_.path() / "data" / "b", 30);
    Dataset d = split_of(t_.path() / "data", 0.3, 7);
    before_ = sides(d);
    write_split(d, {}, file());
  }
  [[nodiscard]] fs::path file() const { return t_.path() / "split.csv"; }

  TemporaryFolder t_;
  std::map<std::string, std::set<Split>> before_;
};

TEST_F(TakenSplits, FollowTheContent) {
  fs::rename(t_.path() / "data", t_.path() / "moved");
  fs::rename(t_.path() / "moved" / "a" / "3.jpg", t_.path() / "moved" / "b" / "three.jpg");
  fill(t_.path() / "moved" / "a", 20, 30);
  Dataset d = open_read(t_.path() / "moved");
  const TakenSplit taken = take_split(d, read_split(file()));
  EXPECT_EQ(taken.taken, 60U);
  split_off(d, {0.5, 99, Split::validation}, {}, taken.settled);
  std::map<int, size_t> fresh;
  for (const Sample& s : d.samples) {
    const auto at = before_.find(read_text_file(s.path));
    if (at != before_.end())
      EXPECT_EQ(std::set<Split>{s.split}, at->second);
    else
      ++fresh[static_cast<int>(s.split)];
  }
  EXPECT_GT(fresh[static_cast<int>(Split::train)], 0U);
  EXPECT_GT(fresh[static_cast<int>(Split::validation)], 0U);
}

TEST_F(TakenSplits, OfEarlierVersionsFollowThePath) {
  std::string text = "path,label,split\n";
  for (const SplitRow& row : read_split(file()))
    text += fmt::format("{},{},{}\n", row.path.string(), row.label, to_string(row.split));
  write(file(), text);
  Dataset d = open_read(t_.path() / "data");
  EXPECT_EQ(take_split(d, read_split(file())).taken, 60U);
  EXPECT_EQ(sides(d), before_);
}

TEST_F(TakenSplits, CountWhatWasLearned) {
  Dataset d = open_read(t_.path() / "data");
  for (Sample& s : d.samples) s.split = Split::validation;
  const TakenSplit taken = take_split(d, read_split(file()));
  EXPECT_EQ(taken.taken, 0U);
  size_t learned = 0;
  for (const auto& [content, side] : before_) learned += side.contains(Split::train) ? 1 : 0;
  EXPECT_EQ(taken.learned, learned);
}

TEST_F(TakenSplits, TakeTheirGroupsAlong) {
  Dataset d = open_read(t_.path() / "data");
  std::vector<SplitRow> rows = read_split(file());
  rows.erase(rows.begin() + 5);  // sample 5 is new, and looks like 6
  const TakenSplit taken = take_split(d, rows, {{5, 6}});
  EXPECT_TRUE(taken.settled[5]);
  EXPECT_EQ(d.samples[5].split, d.samples[6].split);
}

TEST_F(TakenSplits, RefuseOtherFiles) {
  write(file(), "path,split\nx,train\n");
  EXPECT_ERROR(read_split(file()), ErrorKind::input, "no split of graft");
  write(file(), "path,label,split,content\nx,a,often,\n");
  EXPECT_ERROR(read_split(file()), ErrorKind::input, ":2: split 'often'");
}

}  // namespace
}  // namespace graft
