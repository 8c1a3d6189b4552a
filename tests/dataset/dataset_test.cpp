#include "dataset/dataset.h"

#include <fmt/format.h>
#include <algorithm>
#include <map>
#include <set>

#include "base/csv.h"
#include "base/file.h"
#include "dataset/layout.h"
#include "graft/image.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;
using testing::write;

/// `count` files of distinct content (no real images: opening a dataset reads none).
void fill(const fs::path& folder, int count, const std::string& salt = "") {
  for (int i = 0; i < count; ++i)
    write(folder / (std::to_string(i) + ".jpg"), folder.string() + salt + std::to_string(i));
}

TEST(Dataset, FolderOfClassFolders) {
  const TemporaryFolder t;
  fill(t.path() / "cat", 3);
  fill(t.path() / "Dog", 2);
  write(t.path() / "cat" / "sub" / "x.PNG", "deep");
  write(t.path() / "cat" / "notes.txt", "no image");
  write(t.path() / ".ipynb_checkpoints" / "a.jpg", "hidden");
  write(t.path() / "loose.jpg", "loose");
  fs::create_directories(t.path() / "empty");
  const Dataset d = open_dataset(t.path());
  EXPECT_EQ(d.classes, (std::vector<std::string>{"Dog", "cat"}));
  EXPECT_EQ(d.samples.size(), 6U);
  EXPECT_EQ(d.notes.size(), 3U) << "empty class, loose image, other file";
  EXPECT_TRUE(std::is_sorted(d.samples.begin(), d.samples.end(),
                             [](const auto& a, const auto& b) { return a.path < b.path; }));
}

TEST(Dataset, SplitFoldersInAllTheirForms) {
  for (const auto& [train, val, test] : std::vector<std::array<const char*, 3>>{
           {"train", "val", "test"},
           {"seg_train/seg_train", "valid", "seg_test/seg_test"},
           {"train", "validation", "test"}}) {
    const TemporaryFolder t;
    fill(t.path() / train / "a", 2);
    fill(t.path() / train / "b", 2);
    fill(t.path() / val / "a", 1);
    fill(t.path() / test / "b", 3);
    fill(t.path() / "seg_pred", 3);
    const Dataset d = open_dataset(t.path());
    EXPECT_EQ(d.classes, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(d.of(Split::train).size(), 4U) << train;
    EXPECT_EQ(d.of(Split::validation).size(), 1U) << val;
    EXPECT_EQ(d.of(Split::test).size(), 3U) << test;
  }
}

TEST(Dataset, LinksAreFollowedAndCyclesNoticed) {
  const TemporaryFolder t;
  fill(t.path() / "elsewhere" / "a", 2);
  fill(t.path() / "data" / "b", 2);
  fs::create_directory_symlink(t.path() / "elsewhere" / "a", t.path() / "data" / "a");
  fs::create_directory_symlink(t.path() / "data" / "b", t.path() / "data" / "b" / "loop");
  fs::create_directory_symlink("/nonexistent", t.path() / "data" / "b" / "dangling");
  const Dataset d = open_dataset(t.path() / "data");
  EXPECT_EQ(d.classes.size(), 2U);
  EXPECT_EQ(d.samples.size(), 4U);
}

TEST(Dataset, Manifest) {
  const TemporaryFolder t;
  write(t.path() / "m.csv",
        "\xEF\xBB\xBFlabel,path,split\r\ncat,\"a,b.jpg\",train\r\ndog,/abs/c.jpg,test\ncat,d.jpg,\n"
        "cat,e.jpg,excluded\n\n");
  const Dataset d = open_dataset(t.path() / "m.csv");
  EXPECT_EQ(d.classes, (std::vector<std::string>{"cat", "dog"}));
  ASSERT_EQ(d.samples.size(), 3U);
  EXPECT_EQ(d.of(Split::train).size(), 1U);
  EXPECT_EQ(d.of(Split::unassigned).size(), 1U);
  EXPECT_TRUE(std::any_of(d.samples.begin(), d.samples.end(),
                          [&](const Sample& s) { return s.path == t.path() / "a,b.jpg"; }));
  for (const auto& [text, why] : std::vector<std::pair<const char*, const char*>>{
           {"", "empty"},
           {"a,b\n1,2\n", "path and label"},
           {"path,label\nx\n", ":2: 1 fields"},
           {"path,label\nx,\n", ":2: the label is empty"},
           {"path,label,split\nx,a,fold1\n", "none of train, val, test"},
           {"path,label\n\"x,a\n", "never ends"},
           {"path,label\n", "lists no image"}}) {
    write(t.path() / "bad.csv", text);
    EXPECT_ERROR(open_dataset(t.path() / "bad.csv"), ErrorKind::input, why);
  }
}

TEST(Dataset, SaysWhatItExpected) {
  const TemporaryFolder t;
  EXPECT_ERROR(open_dataset(t.path() / "none"), ErrorKind::input, "no such file or folder");
  EXPECT_ERROR(open_dataset(t.path()), ErrorKind::input, "expected a folder of class folders");
  write(t.path() / "x.jpg", "x");
  EXPECT_ERROR(open_dataset(t.path() / "x.jpg"), ErrorKind::input, "a single image");
}

TEST(Dataset, AScanCanBeStopped) {
  const TemporaryFolder t;
  fill(t.path() / "a", 2);
  fill(t.path() / "b", 2);
  std::stop_source stop;
  RunContext context;
  context.stop = stop.get_token();
  EXPECT_EQ(read_layout(t.path(), context).images.size(), 4U);
  stop.request_stop();
  EXPECT_ERROR(read_layout(t.path(), context), ErrorKind::interrupted, "");
}

TEST(Csv, FieldsSurvive) {
  for (const std::string text : {"plain", "a,b", "say \"x\"", "line\nbreak", ""}) {
    const auto rows = parse_csv(csv_field(text) + ",end\n", "f");
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].fields[0], text);
  }
}

}  // namespace
}  // namespace graft
