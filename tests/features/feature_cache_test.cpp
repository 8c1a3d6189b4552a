// The feature cache: what it keeps, what it evicts, and that no part of its key can be forgotten.
#include "features/feature_cache.h"
#include "base/fail.h"

#include <cmath>
#include <fstream>

#include "base/file.h"
#include "base/half.h"
#include "base/random.h"
#include "demo/scenes.h"
#include "engine/tile_kernels.h"
#include "features/prefix_features.h"
#include "graft/image.h"
#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

using testing::TemporaryFolder;

TEST(Half, RoundsToTheNearestOfAllHalves) {
  // Every finite half comes back; and so does everything a little beside it.
  for (uint32_t h = 0; h < 0x7c00; ++h) {
    const float value = from_half(static_cast<uint16_t>(h));
    const int exponent = static_cast<int>(h >> 10U);
    const double want = exponent == 0 ? std::ldexp(h & 0x3ffU, -24)
                                      : std::ldexp(1024 + (h & 0x3ffU), exponent - 25);
    ASSERT_EQ(value, want);
    ASSERT_EQ(to_half(value), h);
    ASSERT_EQ(to_half(-value), h | 0x8000U);
    const float next = from_half(static_cast<uint16_t>(h + 1));
    if (h + 1 == 0x7c00) continue;
    const float middle = value + (next - value) / 2;
    ASSERT_EQ(to_half(std::nextafter(middle, 0.0F)), h);
    ASSERT_EQ(to_half(std::nextafter(middle, 1e6F)), h + 1);
    ASSERT_EQ(to_half(middle) % 2, 0) << "ties go to even";
  }
}

std::vector<FeatureCache::Entry> entries(int first, int count, size_t elements) {
  std::vector<FeatureCache::Entry> made;
  for (int i = first; i < first + count; ++i)
    made.push_back({std::to_string(i), std::vector<float>(elements, 1.0F + 0.37F * i)});
  return made;
}

TEST(FeatureCache, KeepsWhatItWasGiven) {
  const TemporaryFolder folder;
  for (const FeatureType dtype : {FeatureType::fp16, FeatureType::fp32}) {
    const std::string set = dtype == FeatureType::fp16 ? "a" : "b";
    {
      FeatureCache cache(folder.path(), 100'000'000);
      cache.use_set(set, {{"backbone", "x"}});
      ASSERT_TRUE(cache.write(set, entries(0, 5, 1000), dtype));
    }
    FeatureCache cache(folder.path(), 100'000'000);
    EXPECT_TRUE(cache.has_set(set));
    EXPECT_EQ(cache.sets()[0].images, 5);
    std::vector<float> got(1000);
    for (auto& entry : entries(0, 5, 1000)) {
      ASSERT_TRUE(cache.read(set, entry.image, got));
      FeatureCache::round(entry.values, dtype);
      EXPECT_EQ(got, entry.values);
    }
    EXPECT_FALSE(cache.read(set, "5", got));
    EXPECT_FALSE(cache.read("c", "1", got));
    std::vector<float> other(999);
    EXPECT_FALSE(cache.read(set, "1", other)) << "another size must not be taken for it";
  }
}

TEST(FeatureCache, StoresWhatAHalfCannotHoldAsFloat) {
  const TemporaryFolder folder;
  FeatureCache cache(folder.path(), 1'000'000);
  const std::vector<float> large = {1.0F, 70000.123F};
  ASSERT_TRUE(cache.write("s", std::vector<FeatureCache::Entry>{{"i", large}}, FeatureType::fp16));
  std::vector<float> got(2);
  ASSERT_TRUE(cache.read("s", "i", got));
  EXPECT_EQ(got, large);
}

TEST(FeatureCache, TheLeastRecentlyUsedSetGoesFirst) {
  const TemporaryFolder folder;
  // Each set has a head of 4096 bytes, each entry a record of 48.
  constexpr uint64_t kEntry = 6000 + 48;
  FeatureCache cache(folder.path(), 8 * kEntry + 2 * 4096);
  for (const char* set : {"old", "new"}) {
    cache.use_set(set, {});
    ASSERT_TRUE(cache.write(set, entries(0, 4, 1500), FeatureType::fp32));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // file systems' times are coarse
  }
  cache.use_set("old", {});
  ASSERT_TRUE(cache.write("third", entries(0, 3, 1500), FeatureType::fp32));
  EXPECT_TRUE(cache.has_set("old"));
  EXPECT_FALSE(cache.has_set("new"));
  EXPECT_FALSE(cache.contains("new", "1"));
  EXPECT_TRUE(cache.contains("old", "1"));
  // More than the limit allows: refused, and nothing is half there.
  EXPECT_FALSE(cache.write("third", entries(10, 9, 1500), FeatureType::fp32));
  EXPECT_FALSE(cache.contains("third", "10"));
  EXPECT_TRUE(cache.contains("third", "2"));
}

TEST(FeatureCache, TwoOfThemShareOneFolder) {
  const TemporaryFolder folder;
  FeatureCache a(folder.path(), 1'000'000);
  FeatureCache b(folder.path(), 1'000'000);
  a.use_set("s", {{"backbone", "x"}});
  b.use_set("s", {{"backbone", "x"}});
  ASSERT_TRUE(a.write("s", entries(0, 3, 100), FeatureType::fp32));
  ASSERT_TRUE(b.write("s", entries(2, 3, 100), FeatureType::fp32));  // "2" is there already
  EXPECT_EQ(FeatureCache(folder.path(), 1'000'000).sets().at(0).images, 5);
  std::vector<float> got(100);
  EXPECT_TRUE(b.read("s", "0", got));
  // Emptied under a writer's hands: it goes on in new files.
  FeatureCache::clear(folder.path());
  ASSERT_TRUE(a.write("s", entries(7, 1, 100), FeatureType::fp32));
  const auto sets = FeatureCache(folder.path(), 1'000'000).sets();
  ASSERT_EQ(sets.size(), 1);
  EXPECT_EQ(sets[0].images, 1);
  EXPECT_EQ(sets[0].about, (nlohmann::json{{"backbone", "x"}}));
}

/// A cache of twenty entries whose files are damaged in one way or another.
class DamagedCache : public ::testing::Test {
 protected:
  static constexpr size_t kElements = 500;
  static constexpr int kEntries = 20;

  DamagedCache() { fill(); }

  void fill() {
    FeatureCache cache(folder_.path(), 1'000'000);
    cache.use_set("s", {{"backbone", "x"}});
    EXPECT_TRUE(cache.write("s", entries(0, kEntries, kElements), FeatureType::fp32));
  }

  [[nodiscard]] fs::path index() const { return folder_.path() / "s.index"; }
  [[nodiscard]] fs::path values() const { return folder_.path() / "s.values"; }

  /// Reads everything, checks that nothing is wrong, stores what is missing, and finds all of it.
  /// Returns how many were missing.
  int use() {
    int missing = 0;
    {
      FeatureCache cache(folder_.path(), 1'000'000);
      static_cast<void>(cache.sets());
      cache.use_set("s", {{"backbone", "x"}});
      missing = check(cache);
      EXPECT_TRUE(cache.write("s", entries(0, kEntries, kElements), FeatureType::fp32));
      EXPECT_EQ(check(cache), 0);
    }
    FeatureCache again(folder_.path(), 1'000'000);
    again.use_set("s", {{"backbone", "x"}});
    EXPECT_EQ(check(again), 0);
    return missing;
  }

  TemporaryFolder folder_;

 private:
  static int check(FeatureCache& cache) {
    int missing = 0;
    std::vector<float> got(kElements);
    for (const auto& entry : entries(0, kEntries, kElements)) {
      if (cache.read("s", entry.image, got))
        EXPECT_EQ(got, entry.values);
      else
        ++missing;
    }
    return missing;
  }
};

TEST_F(DamagedCache, CutValues) {
  fs::resize_file(values(), fs::file_size(values()) / 2);
  EXPECT_EQ(use(), kEntries / 2);
}

TEST_F(DamagedCache, NoValues) {
  fs::resize_file(values(), 0);
  EXPECT_EQ(use(), kEntries);
  fs::remove(values());
  EXPECT_EQ(use(), kEntries);
}

TEST_F(DamagedCache, OverwrittenValues) {
  std::fstream file(values(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(3 * kElements * sizeof(float) + 100);
  file.write("\x12\x34", 2);
  file.close();
  EXPECT_EQ(use(), 1);
}

TEST_F(DamagedCache, CutIndex) {
  fs::resize_file(index(), 4096 + 10 * 48 + 20);  // in the midst of a record
  EXPECT_EQ(use(), kEntries - 10);
  for (const uintmax_t size : {0, 1, 24, 4095}) {
    fs::resize_file(index(), size);
    EXPECT_EQ(use(), kEntries) << size;
  }
}

TEST_F(DamagedCache, OneRecordOverwritten) {
  std::fstream file(index(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(4096 + 5 * 48 + 16);
  file.write("\xff\xff\xff\xff\xff\xff\xff\x7f", 8);
  file.close();
  EXPECT_EQ(use(), 1);
}

TEST_F(DamagedCache, AnIndexThatIsNoneIsPutAside) {
  testing::write(index(), std::string(20000, 'x'));
  EXPECT_EQ(use(), kEntries);
  int aside = 0;
  for (const auto& entry : fs::directory_iterator(folder_.path()))
    if (entry.path().filename().string().find(".damaged-") != std::string::npos) ++aside;
  EXPECT_EQ(aside, 2);
  // It is the first to go where space is needed.
  FeatureCache cache(folder_.path(), 70'000);
  EXPECT_TRUE(cache.write("s", entries(100, 10, kElements), FeatureType::fp32));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), 2);
}

TEST_F(DamagedCache, AnotherSetsFilesUnderThisName) {
  {
    FeatureCache cache(folder_.path(), 1'000'000);
    cache.use_set("t", {});
    EXPECT_TRUE(cache.write("t", entries(30, kEntries, kElements), FeatureType::fp32));
  }
  fs::rename(folder_.path() / "t.index", index());
  EXPECT_EQ(use(), kEntries);
}

TEST_F(DamagedCache, RandomMutations) {
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    for (const fs::path& path : {index(), values()}) {
      std::string bytes = read_text_file(path);
      const uint64_t kind = random.below(4);
      if (kind == 0) bytes.resize(random.below(bytes.size() + 1));
      for (uint64_t k = 0; kind == 1 && k < 20 && !bytes.empty(); ++k)
        bytes[random.below(bytes.size())] = static_cast<char>(random.next());
      if (kind == 2)
        for (char& c : bytes) c = static_cast<char>(random.next());
      if (kind != 3) testing::write(path, bytes);
    }
    use();
    if (HasFailure()) FAIL() << "round " << round;
  }
}

class Prefix : public ::testing::Test {
 protected:
  Prefix() : net_(cut_after(backbone("vgg-mini", 32, 32), "block3_pool")) {
    tensors_ = random_tensors(net_, 0, net_.layers.size(), 1);
  }
  [[nodiscard]] std::string id(size_t end) const {
    return feature_set_id({net_, end, tensors_}, preprocessing_, end);
  }

  Network net_;
  TensorMap tensors_;
  Preprocessing preprocessing_ = scratch_preprocessing();
};

TEST_F(Prefix, AnInterruptLosesNothingThatWasComputed) {
  const TemporaryFolder folder;
  std::vector<std::filesystem::path> paths;
  for (uint64_t i = 0; i < 4; ++i) {
    paths.push_back(folder.path() / fmt::format("{}.jpg", i));
    const auto jpeg = encode_jpeg(draw_scene(0, i, 32), 90);
    testing::write(paths.back(), {reinterpret_cast<const char*>(jpeg.data()), jpeg.size()});
  }
  ImageJob images{paths, 32, 32, preprocessing_};
  FeatureCache cache(folder.path() / "cache", 10'000'000);
  const PrefixJob job{net_, net_.layers.size(), tensors_, &cache};
  const auto no_error = [](size_t, const std::string& message) { ADD_FAILURE() << message; };
  int seen = 0;
  const auto stop_at_third = [&](size_t, std::span<const float>) {
    if (++seen == 3) fail(ErrorKind::interrupted, "stop");
  };
  EXPECT_ERROR(prefix_features(job, images, stop_at_third, no_error), ErrorKind::interrupted,
               "stop");
  EXPECT_EQ(cache.sets().at(0).images, 2);
  std::vector<int> order;
  prefix_features(
      job, images, [&](size_t i, std::span<const float>) { order.push_back(static_cast<int>(i)); },
      no_error);
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
  EXPECT_EQ(cache.sets().at(0).images, 4);
}

TEST_F(Prefix, ValuesAreTheSameWithoutACache) {
  const TemporaryFolder folder;
  const std::vector<std::filesystem::path> paths = {folder.path() / "0.jpg"};
  const auto jpeg = encode_jpeg(draw_scene(0, 0, 32), 90);
  testing::write(paths[0], {reinterpret_cast<const char*>(jpeg.data()), jpeg.size()});
  ImageJob images{paths, 32, 32, preprocessing_};
  FeatureCache cache(folder.path() / "cache", 10'000'000);
  std::vector<std::vector<float>> seen;
  for (FeatureCache* which : {&cache, &cache, static_cast<FeatureCache*>(nullptr)})
    prefix_features(
        {net_, net_.layers.size(), tensors_, which}, images,
        [&](size_t, std::span<const float> values) {
          seen.emplace_back(values.begin(), values.end());
        },
        [](size_t, const std::string& message) { ADD_FAILURE() << message; });
  ASSERT_EQ(seen.size(), 3);
  EXPECT_EQ(seen[1], seen[0]);
  EXPECT_EQ(seen[2], seen[0]);
}

TEST_F(Prefix, WhatALaterPhaseNeedsIsStoredOnTheWay) {
  const TemporaryFolder folder;
  std::vector<std::filesystem::path> paths;
  for (uint64_t i = 0; i < 5; ++i) {
    paths.push_back(folder.path() / fmt::format("{}.jpg", i));
    const auto jpeg = encode_jpeg(draw_scene(0, i, 32), 90);
    testing::write(paths.back(), {reinterpret_cast<const char*>(jpeg.data()), jpeg.size()});
  }
  ImageJob images{paths, 32, 32, preprocessing_};
  images.batch = 2;
  struct Told : Reporter {
    std::string all;
    std::map<std::string, size_t> totals;  // of bars
    void message(Severity, std::string_view text) override { all += text; }
    void progress(const ProgressUpdate& u) override {
      if (u.task.starts_with("features")) totals[std::string(u.task)] = u.total;
    }
  } told;
  images.context.reporter = &told;
  images.label = "features";
  FeatureCache cache(folder.path() / "cache", 10'000'000);
  const auto run = [&](FeatureCache* which, size_t end, size_t waypoint) {
    std::map<size_t, std::vector<float>> seen;
    PrefixJob job{net_, end, tensors_, which};
    job.waypoint = waypoint;
    prefix_features(
        job, images,
        [&](size_t i, std::span<const float> values) {
          seen[i] = {values.begin(), values.end()};
        },
        [](size_t, const std::string& message) { ADD_FAILURE() << message; });
    return seen;
  };
  const size_t end = net_.layers.size();
  const size_t between = end - 3;
  const auto whole = run(&cache, end, between);
  ASSERT_EQ(whole.size(), 5);
  ASSERT_EQ(cache.sets().size(), 2);
  EXPECT_EQ(cache.sets().at(0).images, 5);
  EXPECT_EQ(cache.sets().at(1).images, 5);
  EXPECT_EQ(told.totals, (std::map<std::string, size_t>{{"features", 5}}))
      << "no bar of a cache that has nothing";
  told.all.clear();
  told.totals.clear();
  const auto earlier = run(&cache, between, 0);
  EXPECT_EQ(told.totals, (std::map<std::string, size_t>{{"features from the cache", 5}}));
  EXPECT_NE(told.all.find("5 from the cache"), std::string::npos) << told.all;
  EXPECT_EQ(run(nullptr, end, between), whole) << "the same to the bit without a cache";
  EXPECT_EQ(run(nullptr, between, 0), earlier);
}

TEST_F(Prefix, EveryPartOfTheKeyCounts) {
  const size_t end = net_.layers.size();
  std::vector<std::string> ids = {id(end), id(end - 1)};
  const auto with = [&](const auto& change) {
    const Network net = net_;
    const TensorMap tensors = tensors_;
    const Preprocessing preprocessing = preprocessing_;
    change();
    ids.push_back(id(end));
    net_ = net;
    tensors_ = tensors;
    preprocessing_ = preprocessing;
  };
  with([&] { net_ = cut_after(backbone("vgg-mini", 32, 33), "block3_pool"); });
  with([&] { net_ = cut_after(backbone("vgg-mini", 33, 32), "block3_pool"); });
  with([&] { tensors_ = random_tensors(net_, 0, end, 2); });
  with([&] {
    const Tensor old = tensors_.at("block3_conv1.bias");
    std::vector<float> values(old.values().begin(), old.values().end());
    values.back() += 1e-6F;
    tensors_.insert_or_assign("block3_conv1.bias", Tensor(old.shape(), values));
  });
  with([&] { net_.layers[2].relu = !net_.layers[2].relu; });
  with([&] { preprocessing_.bgr = !preprocessing_.bgr; });
  with([&] { preprocessing_.scale[1] *= 1.5F; });
  with([&] { preprocessing_.shift[2] += 1; });
  with([&] { preprocessing_.resampling = Resampling::nearest; });
  with([&] { preprocessing_.crop_ratio = 1.2; });
  ids.push_back(
      feature_set_id({net_, end, tensors_, nullptr, FeatureType::fp32}, preprocessing_, end));
  if (engine::tile_kernels(Precision::bf16) != nullptr)
    ids.push_back(feature_set_id({net_, end, tensors_, nullptr, FeatureType::fp16, Precision::bf16},
                                 preprocessing_, end));
  else
    EXPECT_ERROR(static_cast<void>(feature_set_id(
                     {net_, end, tensors_, nullptr, FeatureType::fp16, Precision::bf16},
                     preprocessing_, end)),
                 ErrorKind::usage, "`precision`");
  for (size_t a = 0; a < ids.size(); ++a)
    for (size_t b = 0; b < a; ++b) EXPECT_NE(ids[a], ids[b]) << a << " and " << b;
  EXPECT_EQ(id(end), ids[0]);
  // Weights behind the cut are none of its business.
  const std::string before = id(3);
  tensors_ = random_tensors(net_, 0, end, 1);
  tensors_.insert_or_assign("block3_conv1.bias", Tensor(tensors_.at("block3_conv1.bias").shape(),
                                                        std::vector<float>(64, 3.0F)));
  EXPECT_EQ(id(3), before);
}

}  // namespace
}  // namespace graft
