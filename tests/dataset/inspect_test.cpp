#include "graft/inspect.h"
#include "dataset/perceptual_hash.h"

#include "base/file.h"
#include "demo/scenes.h"
#include "graft/image.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;

void save(const fs::path& path, const Image& image, int quality = 95) {
  make_folder(path.parent_path());
  const std::vector<std::byte> bytes = encode_jpeg(image, quality);
  write_file_atomic(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

TEST(Inspect, LooksSurviveEncodingAndScaling) {
  for (size_t kind = 0; kind < kSceneNames.size(); ++kind) {
    const Image image = draw_scene(kind, 5, 128);
    const PerceptualHash whole = perceptual_hash(image);
    const Image worse = decode_image(encode_jpeg(image, 40), "worse");
    EXPECT_TRUE(near_duplicate(whole, perceptual_hash(worse))) << kSceneNames.at(kind);
    EXPECT_TRUE(
        near_duplicate(whole, perceptual_hash(resize(image, 90, 100, Resampling::bilinear))));
    Image darker = image;
    for (uint8_t& value : darker.pixels) value = static_cast<uint8_t>(value * 0.8);
    EXPECT_TRUE(near_duplicate(whole, perceptual_hash(darker)));
    EXPECT_FALSE(near_duplicate(whole, perceptual_hash(draw_scene(kind, 6, 128))));
    EXPECT_FALSE(near_duplicate(whole, perceptual_hash(draw_scene((kind + 1) % 6, 5, 128))));
  }
}

TEST(Inspect, ExclusionsKeepOneOfEachGroup) {
  const TemporaryFolder t;
  for (const char* path : {"train/a/0.jpg", "train/a/1.jpg", "train/b/0.jpg", "test/a/0.jpg"})
    save(t.path() / path, draw_scene(0, 1, 64));
  save(t.path() / "train/b/1.jpg", draw_scene(1, 1, 64));
  const Dataset d = open_dataset(t.path());
  const Inspection found = inspect(d, InspectionDepth::files, {.threads = 2});
  ASSERT_EQ(found.duplicates.size(), 1U);
  EXPECT_EQ(found.duplicates[0].size(), 4U);
  EXPECT_EQ(found.conflicting_labels.size(), 1U);
  EXPECT_EQ(found.train_test_leaks.size(), 1U);
  EXPECT_TRUE(found.near_duplicates.empty());
  // Samples: test/a/0, train/a/0, train/a/1, train/b/0, train/b/1.
  EXPECT_EQ(excluded_samples(d, found, {"duplicates"}), (std::vector<size_t>{2, 3}))
      << "one of each split stays";
  EXPECT_EQ(excluded_samples(d, found, {"leaks"}), (std::vector<size_t>{1, 2, 3}));
  EXPECT_EQ(excluded_samples(d, found, {"conflicts"}), (std::vector<size_t>{0, 1, 2, 3}));
  EXPECT_TRUE(excluded_samples(d, found, {}).empty());
  EXPECT_ERROR(excluded_samples(d, found, {"everything"}), ErrorKind::usage, "everything");
}

TEST(Inspect, SameForAnyNumberOfThreads) {
  const TemporaryFolder t;
  for (int i = 0; i < 20; ++i)
    save(t.path() / (i % 2 == 0 ? "a" : "b") / (std::to_string(i) + ".jpg"),
         draw_scene(2, i / 2, 64), i % 2 == 0 ? 95 : 60);
  const Dataset d = open_dataset(t.path());
  const Inspection one = inspect(d, InspectionDepth::pixels, {.threads = 1});
  const Inspection four = inspect(d, InspectionDepth::pixels, {.threads = 4});
  EXPECT_EQ(one.near_duplicates.size(), 10U);
  EXPECT_EQ(one.near_duplicates, four.near_duplicates);
}

}  // namespace
}  // namespace graft
