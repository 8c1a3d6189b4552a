// Training inputs are the same wherever they come from: memory, cache, or the prefix itself.
#include "features/sample_source.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "base/file.h"
#include "base/hash.h"
#include "bf16.h"
#include "demo/scenes.h"
#include "features/image_stream.h"
#include "graft/image.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;

constexpr int kImages = 5;

class SampleSourceTest : public ::testing::Test {
 protected:
  SampleSourceTest() {
    for (int i = 0; i < kImages; ++i) {
      const std::vector<std::byte> jpeg =
          encode_jpeg(draw_scene(static_cast<size_t>(i), 4, 48), 95);
      paths_.push_back(folder_.path() / fmt::format("{}.jpg", i));
      testing::write(paths_.back(), {reinterpret_cast<const char*>(jpeg.data()), jpeg.size()});
    }
  }

  std::unique_ptr<SampleSource> make(const std::string& augment, int views, bool keep,
                                     FeatureCache* cache, bool has_prefix = true,
                                     FeatureType dtype = FeatureType::fp16) {
    prefix_.emplace(PrefixJob{network_, end_, tensors_, cache, dtype, precision_});
    SourceJob job{.network = network_, .preprocessing = keras_preprocessing(), .paths = paths_};
    job.prefix = has_prefix ? &*prefix_ : nullptr;
    job.keep_features = keep;
    job.augmentation = parse_augmentation(augment);
    job.views = views;
    job.seed = 3;
    job.context.threads = 2;
    job.hashes = hashes_;
    return make_sample_source(
        job, [&](size_t i, const std::string& message) { errors_.emplace_back(i, message); });
  }

  std::vector<float> rows(SampleSource& source, const std::vector<int64_t>& which, int epoch,
                          bool has_prefix = true) {
    const int64_t elements =
        has_prefix ? output_shapes(network_)[end_ - 1].elements() : 3 * 32 * 32;
    std::vector<float> out(which.size() * static_cast<size_t>(elements));
    EXPECT_TRUE(source.fill(which, epoch, out.data()).empty());
    return out;
  }

  TemporaryFolder folder_;
  std::vector<std::filesystem::path> paths_;
  Network network_ =
      with_head(cut_after(backbone("vgg-mini", 32, 32), "block2_pool"), "flatten dense:4", 3);
  TensorMap tensors_ = testing::make_tensors(network_, 1);
  size_t end_ = frozen_prefix_end(network_, freeze_plan(network_, "0"));
  std::vector<std::string> hashes_;  // empty: not known from before
  std::optional<PrefixJob> prefix_;
  Precision precision_ = Precision::fp32;
  std::vector<std::pair<size_t, std::string>> errors_;
};

TEST_F(SampleSourceTest, ImagesThatVanishAreLeftOut) {
  const auto fresh = make("crop:0.5-1 hflip", 0, true, nullptr);
  const std::vector<float> whole = rows(*fresh, {0, 2, 4}, 1);
  fs::remove(paths_[2]);
  const std::vector<int64_t> which = {0, 2, 4};
  std::vector<float> out(whole.size());
  EXPECT_EQ(fresh->fill(which, 1, out.data()), (std::vector<size_t>{1}));
  const size_t elements = whole.size() / 3;
  for (size_t k = 0; k < elements; ++k) {
    EXPECT_NEAR(out[k], whole[k], 1e-3F);
    EXPECT_NEAR(out[elements + k], whole[2 * elements + k], 1e-3F);
  }
  for (const size_t i : {0, 4}) fs::remove(paths_[i]);
  EXPECT_EQ(fresh->fill(which, 1, out.data()), (std::vector<size_t>{0, 1, 2}));
}

// A second phase is given the images of the first, or none.
TEST_F(SampleSourceTest, ImagesThatChangeAreLeftOut) {
  hashes_ = content_hashes(paths_, {.threads = 1});
  FeatureCache cache(folder_.path() / "cache", 1U << 30U);
  const auto before = make("none", 1, true, &cache);
  ASSERT_EQ(before->usable().size(), size_t{kImages});
  const auto fresh = make("crop:0.5-1 hflip", 0, true, nullptr);
  fs::copy_file(paths_[1], paths_[0], fs::copy_options::overwrite_existing);
  fs::remove(paths_[2]);
  // What is in the cache needs no file.
  const auto cached = make("none", 1, true, &cache);
  EXPECT_EQ(cached->usable().size(), size_t{kImages});
  EXPECT_EQ(rows(*cached, {0, 2}, 1), rows(*before, {0, 2}, 1));
  EXPECT_TRUE(errors_.empty());
  std::vector<float> out(size_t{2} * output_shapes(network_)[end_ - 1].elements());
  EXPECT_EQ(fresh->fill(std::vector<int64_t>{0, 1}, 1, out.data()), (std::vector<size_t>{0}));
  for (const bool has_prefix : {true, false}) {
    errors_.clear();
    const auto source = make("none", 1, true, nullptr, has_prefix);
    EXPECT_EQ(source->usable().size(), size_t{kImages} - 2);
    ASSERT_EQ(errors_.size(), 2U);
    EXPECT_EQ(errors_[0].first, 0U);
    EXPECT_NE(errors_[0].second.find("has changed"), std::string::npos) << errors_[0].second;
  }
}

TEST_F(SampleSourceTest, MemoryCacheAndPrefixAgree) {
  const std::string words = "rotate:30 hflip crop:0.5-1 jitter:0.2";
  FeatureCache cache(folder_.path() / "cache", 1U << 30U);
  const auto memory = make(words, 3, true, &cache);
  const auto disk = make(words, 3, false, &cache);
  // A cache that cannot be had, or is full, changes nothing but the time.
  FeatureCache full(folder_.path() / "full", 1);
  const auto in_memory = make(words, 3, true, nullptr);
  const auto fresh = make(words, 3, false, nullptr);
  const auto overflowing = make(words, 3, false, &full);
  const auto exact = make(words, 3, true, nullptr, true, FeatureType::fp32);
  const auto exact_fresh = make(words, 3, false, nullptr, true, FeatureType::fp32);
  const std::vector<int64_t> which = {4, 0, 2};
  for (int epoch = 1; epoch <= 4; ++epoch) {
    const std::vector<float> want = rows(*memory, which, epoch);
    EXPECT_EQ(rows(*disk, which, epoch), want);
    EXPECT_EQ(rows(*in_memory, which, epoch), want);
    EXPECT_EQ(rows(*fresh, which, epoch), want);
    EXPECT_EQ(rows(*overflowing, which, epoch), want);
    // Halves have 11 bits.
    const std::vector<float> unrounded = rows(*exact, which, epoch);
    EXPECT_EQ(rows(*exact_fresh, which, epoch), unrounded);
    EXPECT_NE(unrounded, want);
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_NEAR(want[i], unrounded[i], 1e-3 * std::abs(unrounded[i]) + 1e-4);
  }
  // Three views go round.
  EXPECT_EQ(rows(*memory, which, 1), rows(*memory, which, 4));
  EXPECT_NE(rows(*memory, which, 1), rows(*memory, which, 2));
}

TEST_F(SampleSourceTest, MemoryCacheAndPrefixAgreeInBfloat16) {
  SKIP_WITHOUT_BF16();
  const std::string words = "rotate:30 hflip";
  FeatureCache cache(folder_.path() / "cache", 1U << 30U);
  const std::vector<int64_t> which = {4, 0, 2};
  // In one cache with features of the other precision.
  const std::vector<float> exact = rows(*make(words, 2, true, &cache), which, 1);
  precision_ = Precision::bf16;
  const auto memory = make(words, 2, true, &cache);
  const auto disk = make(words, 2, false, &cache);
  const auto uncached = make(words, 2, false, nullptr);
  const auto unrounded = make(words, 2, false, nullptr, true, FeatureType::fp32);
  for (int epoch = 1; epoch <= 2; ++epoch) {
    const std::vector<float> want = rows(*memory, which, epoch);
    EXPECT_EQ(rows(*disk, which, epoch), want);
    EXPECT_EQ(rows(*uncached, which, epoch), want);
    // A half holds what bfloat16 holds, but for the smallest.
    const std::vector<float> all = rows(*unrounded, which, epoch);
    for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(all[i], want[i], 1e-6F);
  }
  const std::vector<float> rounded = rows(*memory, which, 1);
  EXPECT_NE(rounded, exact);
  const float largest = *std::max_element(exact.begin(), exact.end());
  for (size_t i = 0; i < exact.size(); ++i) ASSERT_NEAR(rounded[i], exact[i], 2e-2F * largest);
  // New views in every epoch go the same way: an image without its view is what the cache has.
  const auto as_they_are = make("none", 1, true, &cache);
  const auto fresh = make("none", 0, true, nullptr);
  const std::vector<float> stored = rows(*as_they_are, which, 1);
  const std::vector<float> computed = rows(*fresh, which, 1);
  for (size_t i = 0; i < stored.size(); ++i) ASSERT_NEAR(computed[i], stored[i], 1e-6F);
}

TEST_F(SampleSourceTest, FeaturesDrivenOutOfTheCacheAreComputedAgain) {
  FeatureCache cache(folder_.path() / "cache", 1U << 30U);
  const auto disk = make("hflip", 2, false, &cache);
  const std::vector<float> want = rows(*disk, {0, 1, 2, 3, 4}, 1);
  {
    // Another process with a small limit.
    FeatureCache other(folder_.path() / "cache", 300'000);
    for (int i = 0; i < 3; ++i) {
      const std::string name = fmt::format("other{}", i);
      other.use_set(name, {});
      const FeatureCache::Entry entry{"x", std::vector<float>(60'000, 0.5F)};
      other.write(name, {&entry, 1}, FeatureType::fp32);
    }
    EXPECT_FALSE(
        other.has_set(feature_set_id(*prefix_, keras_preprocessing(), stored_end(*prefix_))));
  }
  EXPECT_EQ(rows(*disk, {0, 1, 2, 3, 4}, 1), want);
}

TEST_F(SampleSourceTest, ViewsOfZeroAreNewInEveryEpochAndRepeatable) {
  for (const bool has_prefix : {true, false}) {
    const auto a = make("rotate:90 brightness:0.5-1", 0, true, nullptr, has_prefix);
    const auto b = make("rotate:90 brightness:0.5-1", 0, true, nullptr, has_prefix);
    for (int epoch = 1; epoch <= 3; ++epoch)
      EXPECT_EQ(rows(*a, {1, 2}, epoch, has_prefix), rows(*b, {1, 2}, epoch, has_prefix));
    EXPECT_NE(rows(*a, {1}, 1, has_prefix), rows(*a, {1}, 2, has_prefix));
    // A row does not depend on its neighbours.
    std::vector<float> pair = rows(*a, {1, 2}, 2, has_prefix);
    pair.resize(pair.size() / 2);
    EXPECT_EQ(rows(*a, {1}, 2, has_prefix), pair);
  }
}

TEST_F(SampleSourceTest, DamagedImagesAreReportedOnceAndLeftOut) {
  testing::write(paths_[1], "no image");
  FeatureCache cache(folder_.path() / "cache", 1U << 30U);
  for (const bool keep : {true, false}) {
    errors_.clear();
    const auto source = make("hflip", 2, keep, &cache);
    EXPECT_EQ(source->usable(), (std::vector<size_t>{0, 2, 3, 4}));
    ASSERT_EQ(errors_.size(), 1U);
    EXPECT_EQ(errors_[0].first, 1U);
  }
}

}  // namespace
}  // namespace graft
