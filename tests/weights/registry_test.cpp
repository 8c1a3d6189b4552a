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
  EXPECT_ERROR(check_published(file_, path_), ErrorKind::input, "its MD5 is");
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

}  // namespace
}  // namespace graft::testing
