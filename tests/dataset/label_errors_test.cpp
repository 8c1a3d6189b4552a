#include "base/file.h"
#include "base/hash.h"
#include "graft/labels.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;
using testing::write;

TEST(ConfidentLearning, CountsPairsByEachClassOwnThreshold) {
  // Thresholds: mean of class 0 among its labels (0.9 + 0.8 + 0.1 + 0.6) / 4 = 0.6, of class 1
  // (0.7 + 0.5 + 0.3) / 3 = 0.5.
  const std::vector<float> p = {0.9F, 0.1F, 0.8F, 0.2F, 0.1F, 0.9F, 0.6F,
                                0.4F, 0.3F, 0.7F, 0.5F, 0.5F, 0.7F, 0.3F};
  const std::vector<int> labels = {0, 0, 0, 0, 1, 1, 1};
  const LabelCheck found = confident_learning(p, labels, 2);
  // Of label 0: rows 0, 1, 3 count as class 0, row 2 as class 1: one of four. Of label 1: rows 4
  // and 5 as class 1, row 6 as class 0: one of three.
  ASSERT_EQ(found.pairs.size(), 2U);
  EXPECT_EQ(found.pairs[0].label, 0);
  EXPECT_NEAR(found.pairs[0].images, 1, 1e-6);
  EXPECT_NEAR(found.pairs[1].images, 1, 1e-6);
  EXPECT_NEAR(found.share, 2.0 / 7, 1e-6);
  ASSERT_EQ(found.ranking.size(), 7U);
  EXPECT_EQ(found.doubtful, 2U);
  EXPECT_EQ(found.ranking[0].sample, 2U);
  EXPECT_EQ(found.ranking[0].suggestion, 1);
  EXPECT_FLOAT_EQ(static_cast<float>(found.ranking[0].confidence), 0.9F);
  EXPECT_EQ(found.ranking[1].sample, 6U);
  EXPECT_EQ(found.ranking[6].sample, 0U) << "the surest last";
}

TEST(ConfidentLearning, ListsNoneThatItDoesNotDoubt) {
  const std::vector<float> sure = {0.9F, 0.1F, 0.8F, 0.2F, 0.1F, 0.9F, 0.2F, 0.8F};
  const LabelCheck found = confident_learning(sure, std::vector<int>{0, 0, 1, 1}, 2);
  EXPECT_EQ(found.doubtful, 0U);
  EXPECT_EQ(found.share, 0);
  EXPECT_TRUE(found.pairs.empty());
}

TEST(ConfidentLearning, RefusesWhatDoesNotFit) {
  const std::vector<float> p = {0.5F, 0.5F};
  EXPECT_ERROR(confident_learning(p, std::vector<int>{0, 1}, 2), ErrorKind::usage, "2 labels");
  EXPECT_ERROR(confident_learning(p, std::vector<int>{2}, 2), ErrorKind::usage, "label 2");
  const std::vector<float> nan = {NAN, 0.5F};
  EXPECT_ERROR(confident_learning(nan, std::vector<int>{0}, 2), ErrorKind::usage, "probability");
}

class Review : public ::testing::Test {
 protected:
  Review() {
    for (const char* name :
         {"sea/1.jpg", "sea/2.jpg", "sea/3.jpg", "street/1.jpg", "street/4.jpg", "ice, old/5.jpg"})
      write(folder.path() / "data" / name, "no image");
    write(folder.path() / "data/ice, old/6.jpg", "no image");
    data = open_dataset(folder.path() / "data");
  }

  fs::path review(std::string_view text) {
    write(folder.path() / "review.csv", text);
    return folder.path() / "review.csv";
  }
  /// "sea", with "*" where a person has decided; "" where it is gone.
  std::string label(std::string_view name) const {
    for (const Sample& sample : data.samples)
      if (sample.path == folder.path() / "data" / name)
        return data.classes[static_cast<size_t>(sample.label)] + (sample.reviewed ? "*" : "");
    return "";
  }
  /// The last field of an image's line.
  std::string content(std::string_view name) const {
    return content_hash_of_file(folder.path() / "data" / name) + "\n";
  }
  void refuse(std::string_view text, std::string_view why) {
    const std::vector<Sample> before = data.samples;
    EXPECT_ERROR(apply_corrections(data, review(text)), ErrorKind::input, std::string(why));
    EXPECT_EQ(data.samples.size(), before.size()) << "nothing is done by halves";
  }

  TemporaryFolder folder;
  Dataset data;
};

TEST_F(Review, DoesWhatItSays) {
  apply_corrections(data, review("path,label,suggestion,confidence,action\n"
                                 "sea/1.jpg,sea,street,0.99,relabel\n"
                                 "sea/2.jpg,sea,street,0.98,\n"
                                 "sea/3.jpg,sea,street,0.97,KEEP\n"
                                 "street/1.jpg,street,sea,0.96,\"ice, old\"\n"
                                 "\"ice, old/5.jpg\",\"ice, old\",sea,0.9,drop\n"));
  EXPECT_EQ(label("sea/1.jpg"), "street*");
  EXPECT_EQ(label("sea/2.jpg"), "sea");
  EXPECT_EQ(label("sea/3.jpg"), "sea*");
  EXPECT_EQ(label("street/1.jpg"), "ice, old*");
  EXPECT_EQ(label("street/4.jpg"), "street");
  EXPECT_EQ(label("ice, old/5.jpg"), "");
  ASSERT_FALSE(data.notes.empty());
  EXPECT_NE(data.notes.back().find("2 relabelled, 1 dropped, 1 kept, 1 undecided"),
            std::string::npos)
      << data.notes.back();
  // What was decided, and as it is to be read again.
  EXPECT_EQ(data.decisions,
            std::string(kReviewHeader) +  //
                "sea/1.jpg,sea,street,0.99,relabel," + content("sea/1.jpg") +
                "sea/3.jpg,sea,street,0.97,keep," + content("sea/3.jpg") +
                "street/1.jpg,street,\"ice, old\",,relabel," + content("street/1.jpg") +
                "\"ice, old/5.jpg\",\"ice, old\",sea,0.9,drop," + content("ice, old/5.jpg"));
  const std::vector<Sample> once = data.samples;
  const std::string text = data.decisions;
  data = open_dataset(folder.path() / "data");
  apply_corrections(data, review(text));
  ASSERT_EQ(data.samples.size(), once.size());
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(data.samples[i].label, once[i].label);
  EXPECT_EQ(data.decisions, text);
}

TEST_F(Review, TakesWhatSpreadsheetsMakeOfIt) {
  for (const char* text :
       {"\xEF\xBB\xBFpath;label;suggestion;confidence;action\r\nsea/"
        "1.jpg;sea;street;0,99;relabel\r\n"
        ";;;;\r\n",
        "\"path\",\"label\",\"suggestion\",\"confidence\",\"action\"\r\n\"sea/1.jpg\",\"sea\","
        "\"street\",\"0.99\",\" Relabel \"\r\n",
        "sep=;\npath;action\nsea/1.jpg;street\n",
        "path\tlabel\tsuggestion\tconfidence\taction\tremarks\nsea/"
        "1.jpg\tsea\tstreet\t1\trelabel\thm\n",
        "path,label,suggestion,confidence,action\rsea/1.jpg,sea,street,0.99,relabel\r",
        "path,label,action\nsea/1.jpg,Sea, STREET\n",
        "path,label,new_label\nsea/1.jpg,sea,street\nsea/2.jpg,sea\n"}) {
    data = open_dataset(folder.path() / "data");
    apply_corrections(data, review(text));
    EXPECT_EQ(label("sea/1.jpg"), "street*") << text;
    EXPECT_EQ(label("sea/2.jpg"), "sea") << text;
  }
}

TEST_F(Review, FindsImagesByTheirPaths) {
  const fs::path whole = folder.path() / "data/sea/1.jpg";
  for (const std::string& path : {whole.string(), std::string("data/sea/1.jpg"),
                                  std::string("photos/../sea/1.jpg"), std::string("./sea/1.jpg")}) {
    data = open_dataset(folder.path() / "data");
    apply_corrections(data, review("path,action\n" + path + ",street\n"));
    EXPECT_EQ(label("sea/1.jpg"), "street*") << path;
  }
  // Through a link, and from a folder above the one that was checked.
  fs::create_directory_symlink(folder.path() / "data", folder.path() / "link");
  data = open_dataset(folder.path() / "data");
  apply_corrections(
      data, review("path,action\n" + (folder.path() / "link/sea/1.jpg").string() + ",street\n"));
  EXPECT_EQ(label("sea/1.jpg"), "street*");
  data = open_dataset(folder.path() / "data");
  fs::create_directory(folder.path() / "elsewhere");
  write(folder.path() / "elsewhere/review.csv", "path,action\n3.jpg,street\nnone.jpg,keep\n");
  apply_corrections(data, folder.path() / "elsewhere/review.csv");
  EXPECT_EQ(label("sea/3.jpg"), "street*");
  EXPECT_NE(data.notes.back().find("1 decision of an image that is not in the data"),
            std::string::npos)
      << data.notes.back();
  data = open_dataset(folder.path() / "data");
  refuse("path,action\n1.jpg,keep\n", "may be");
  refuse("path,action\nnone.jpg,drop\n", "none of its images is in");
}

TEST_F(Review, RefusesWhatIsNotClear) {
  const std::string head = "path,label,suggestion,confidence,action\n";
  refuse(head + "sea/1.jpg,sea,street,0.99,stret\n",
         "review.csv:2: the action 'stret' is none of keep, drop, relabel");
  refuse(head + "sea/1.jpg,sea,lake,0.99,relabel\n", "the suggestion 'lake' is no class");
  refuse(head + "sea/1.jpg,sea,,,relabel\n", "there is no suggestion");
  refuse(head + "sea/1.jpg,street,street,0.99,\n", "write the class into the column action");
  refuse(head + "sea/1.jpg,street,street,0.99,keep\n", "'street' here and 'sea' in the data");
  refuse(head + "sea/1.jpg,sea,street,0.99,drop\nsea/1.jpg,sea,street,0.99,keep\n",
         "another decision");
  refuse(head + ",sea,street,0.99,drop\n", "the path is empty");
  refuse(head + "sea/1.jpg,sea,street,0.99,drop,x\n", "6 fields where the header has 5");
  refuse("path,label\nsea/1.jpg,sea\n", "not a review");
  refuse("PK\x03\x04", "save it as CSV");
  refuse("", "empty review");
  refuse("path,action,action\n", "two columns");
  refuse("path,action,new_label\nsea/1.jpg,drop,street\n", "contradict");
  refuse("path,action\nsea/1.jpg,drop\nsea/2.jpg,drop\nsea/3.jpg,street\n",
         "leaves no image of class 'sea'");
  EXPECT_ERROR(apply_corrections(data, folder.path() / "absent.csv"), ErrorKind::io, "absent.csv");
}

TEST_F(Review, AClassMayBeCalledAsAnAction) {
  write(folder.path() / "data/drop/7.jpg", "no image");
  data = open_dataset(folder.path() / "data");
  refuse("path,action\nsea/1.jpg,drop\n", "is an action, and a class of the data");
  apply_corrections(
      data, review("path,action,new_label\nsea/1.jpg,drop,\nsea/2.jpg,,drop\nsea/3.jpg,keep,\n"));
  EXPECT_EQ(label("sea/1.jpg"), "");
  EXPECT_EQ(label("sea/2.jpg"), "drop*");
  data = open_dataset(folder.path() / "data");
}

TEST_F(Review, KeepsDecisionsOfAPerson) {
  LabelCheck found;
  found.ranking = {{1, 2, 0.987, 0.01}, {0, 1, 0.8, 0.2}};
  found.doubtful = 1;
  const fs::path file = folder.path() / "new.csv";
  write_review(data, found, file);
  EXPECT_EQ(read_text_file(file), std::string(kReviewHeader) +
                                      "\"ice, old/6.jpg\",\"ice, old\",street,0.99,," +
                                      content("ice, old/6.jpg"));
  write_review(data, found, file);  // nothing is decided yet
  write(file, std::string(kReviewHeader) + "sea/1.jpg,sea,street,0.99,drop\n");
  EXPECT_ERROR(write_review(data, found, file), ErrorKind::usage, "there is a decision in it");
  apply_corrections(data, file);
  write_review(data, found, file);  // carried over
  EXPECT_EQ(read_text_file(file),
            std::string(kReviewHeader) + "sea/1.jpg,sea,street,0.99,drop," + content("sea/1.jpg") +
                "\"ice, old/6.jpg\",\"ice, old\",street,0.99,," + content("ice, old/6.jpg"));
}

}  // namespace
}  // namespace graft
