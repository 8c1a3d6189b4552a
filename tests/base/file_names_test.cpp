// Names of files that are made one for each of some others.
#include "base/file_names.h"

#include <gtest/gtest.h>

#include <set>

namespace graft {
namespace {

TEST(FileNames, NoTwoAreAlike) {
  const std::vector<fs::path> paths = {"a.jpg", "b/a.jpg", "a-2.jpg", "a.png", "c/a-2.webp", "d/e"};
  EXPECT_EQ(
      unique_file_names(paths, ".png"),
      (std::vector<std::string>{"a.png", "a-3.png", "a-2.png", "a-4.png", "a-2-2.png", "e.png"}));
  EXPECT_EQ(unique_file_names(paths, ".png"), unique_file_names(paths, ".png"));
}

TEST(FileNames, LongOnesAreShortenedAndStayApart) {
  const std::string start(240, 'x');
  std::vector<fs::path> paths = {start + "1.jpg", start + "2.jpg", "b/" + start + "1.jpg"};
  std::string accents;
  for (int i = 0; i < 125; ++i) accents += "é";
  paths.emplace_back(accents + ".jpg");
  const std::vector<std::string> names = unique_file_names(paths, ".png");
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), paths.size());
  for (const std::string& name : names) {
    EXPECT_LE(name.size(), 200U);
    EXPECT_TRUE(name.ends_with(".png"));
  }
  // Cut between characters.
  EXPECT_EQ(names[3].substr(0, 170), accents.substr(0, 170));
  EXPECT_EQ(names[3][170], '-');
}

TEST(FileNames, ManyOfOneName) {
  const std::vector<fs::path> paths(3000, "same.jpg");
  const std::vector<std::string> names = unique_file_names(paths, ".png");
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), paths.size());
  EXPECT_EQ(names.back(), "same-3000.png");
}

}  // namespace
}  // namespace graft
