#include "weights/registry.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "base/hash.h"
#include "support.h"

namespace graft::testing {
namespace {

class CheckPublished : public ::testing::Test {
 protected:
  CheckPublished() {
    write_file_atomic(path_, kContent);
    file_.md5 = md5_of_file(path_);
    file_.bytes = kContent.size();
  }
  static constexpr std::string_view kContent = "the published bytes";
  TemporaryFolder folder_;
  fs::path path_ = folder_.path() / "weights.h5";
  fs::path memo_ = folder_.path() / "weights.h5.checked";
  PublishedFile file_{};
};

TEST_F(CheckPublished, RemembersWhatItFound) {
  check_published(file_, path_);
  const std::string record = read_text_file(memo_);
  EXPECT_TRUE(record.starts_with(file_.md5)) << record;
  // The record is believed, so the file is not read again.
  const std::string other(file_.md5.size(), '0');
  write_file_atomic(memo_, other + record.substr(other.size()));
  file_.md5 = other;
  check_published(file_, path_);
}

TEST_F(CheckPublished, LooksAgainWhenTheFileHasChanged) {
  check_published(file_, path_);
  std::string changed(kContent);
  changed.back() ^= 1;
  const fs::file_time_type time = fs::last_write_time(path_);
  write_file_atomic(path_, changed);
  fs::last_write_time(path_, time);  // as a copy with 'cp -p' has
  EXPECT_ERROR(check_published(file_, path_), ErrorKind::input, "its hash is not MD5");
  write_file_atomic(path_, kContent);
  check_published(file_, path_);
  write_file_atomic(path_, "short");
  EXPECT_ERROR(check_published(file_, path_), ErrorKind::input, "5 bytes instead of 19");
}

TEST_F(CheckPublished, DamagedRecordIsNone) {
  write_file_atomic(memo_, "noise");
  check_published(file_, path_);
  EXPECT_TRUE(read_text_file(memo_).starts_with(file_.md5));
}

TEST_F(CheckPublished, ByTheFirstDigitsOfASha256) {
  file_.md5.clear();
  file_.sha256 = sha256_of_file(path_).substr(0, 8);
  file_.exact_size = false;
  file_.bytes += 1000;
  check_published(file_, path_);
  EXPECT_EQ(published_hash(file_), "SHA-256 " + file_.sha256 + "…");
  file_.sha256[7] = file_.sha256[7] == '0' ? '1' : '0';
  EXPECT_ERROR(check_published(file_, path_), ErrorKind::input, "its hash is not SHA-256");
  file_.bytes += 1'000'000;
  EXPECT_ERROR(check_published(file_, path_), ErrorKind::input, "19 bytes instead of");
}

TEST_F(CheckPublished, IsStoredUnderItsName) {
  file_.file = "official.h5";
  const fs::path cache = folder_.path() / "cache";
  const fs::path target = cached_path(file_, cache);
  EXPECT_EQ(target.filename(), "official.h5");
  for (int k = 0; k < 2; ++k) store_published(file_, path_, cache);
  store_published(file_, target, cache);
  check_published(file_, target);
  EXPECT_EQ(read_text_file(path_), kContent);
  EXPECT_ERROR(store_published(file_, folder_.path() / "absent", cache), ErrorKind::io, "absent");
}

// Each backbone has a file with and without top, of the family that is asked for.
TEST(PublishedFiles, AreFound) {
  for (const char* name : {"vgg11", "vgg13", "vgg16", "vgg19"})
    for (const char* suffix : {"", "_bn"})
      for (const bool top : {false, true}) {
        const std::string backbone = std::string(name) + suffix;
        const PublishedFile* torchvision = find_published(backbone, top, "torchvision");
        ASSERT_NE(torchvision, nullptr) << backbone;
        EXPECT_TRUE(torchvision->include_top);
        EXPECT_NE(torchvision->file.find(torchvision->sha256.substr(0, 8)), std::string::npos);
        const PublishedFile* any = find_published(backbone, top);
        const PublishedFile* keras = find_published(backbone, top, "keras");
        EXPECT_EQ(any, keras != nullptr ? keras : torchvision);
        EXPECT_EQ(keras != nullptr, backbone == "vgg16" || backbone == "vgg19");
        if (keras != nullptr) {
          EXPECT_EQ(keras->include_top, top);
        }
      }
  EXPECT_EQ(find_published("vgg-mini", false), nullptr);
  EXPECT_EQ(find_published("vgg16", false, "timm"), nullptr);
}

}  // namespace
}  // namespace graft::testing
