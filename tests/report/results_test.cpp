#include "graft/results.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/file.h"
#include "graft/sort_images.h"
#include "image/sheet.h"
#include "report/gallery.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;

Prediction prediction(std::vector<float> logits) { return to_prediction(logits); }

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
  return n;
}

Image grey(int side) { return {side, side, std::vector<uint8_t>(size_t{3} * side * side, 120)}; }

TEST(Results, RowsAreWhatTheHeaderSays) {
  ResultOptions options{.classes = {"sea", "a,b"}, .top = 2};
  const Prediction p = prediction({0, 2});
  EXPECT_EQ(result_csv_header(options), "path,label,probability,label_2,probability_2");
  EXPECT_EQ(result_csv_row("x.jpg", p, options), "x.jpg,\"a,b\",0.880797,sea,0.119203");
  options.top = 9;  // no more labels than there are
  options.logits = options.probabilities = true;
  EXPECT_EQ(result_csv_header(options),
            "path,label,probability,logit,label_2,probability_2,logit_2,p:sea,\"p:a,b\"");
  const auto json = nlohmann::json::parse(result_json("x.jpg", p, options));
  EXPECT_EQ(json["label"], "a,b");
  EXPECT_EQ(json["top"].size(), 2U);
  EXPECT_FLOAT_EQ(json["probabilities"][1].get<float>(), p.probabilities[1]);
  EXPECT_FLOAT_EQ(json["logits"][1].get<float>(), 2);
}

TEST(Results, NothingInACsvFileIsAFormula) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "r.csv";
  const auto csv = ResultFile::create(file, {.classes = {"=1+1", "sea"}});
  csv->add("=cmd.jpg", prediction({1, 0}), {});
  csv->add("/abs/-x.jpg", prediction({0, 1}), {});
  EXPECT_FALSE(fs::exists(file)) << "named when it is whole";
  csv->finish();
  EXPECT_EQ(read_text_file(file),
            "path,label,probability\n./=cmd.jpg,'=1+1,0.731059\n/abs/-x.jpg,sea,0.731059\n");
}

TEST(Results, NamesAndSizesAreChecked) {
  EXPECT_ERROR(ResultFile::check_name("labels.txt"), ErrorKind::usage, "must end in");
  EXPECT_ERROR(ResultFile::check_size("a.xlsx", 1'048'576), ErrorKind::usage, "1048575");
  ResultFile::check_size("a.xlsx", 1'048'575);
  ResultFile::check_size("a.csv", 2'000'000);
  const TemporaryFolder folder;
  const std::vector<std::string> many(20'000, "x");
  EXPECT_ERROR(
      ResultFile::create(folder.path() / "a.xlsx", {.classes = many, .probabilities = true}),
      ErrorKind::usage, "columns");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(Results, LinesAreAddedToTheSameColumnsAlone) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "r.csv";
  for (int i = 0; i < 2; ++i) {
    const auto csv = ResultFile::append(file, {.classes = {"a", "b"}});
    csv->add("x.jpg", prediction({1, 0}), {});
    EXPECT_EQ(count(read_text_file(file), "\n"), 2U + static_cast<size_t>(i)) << "at once";
  }
  EXPECT_ERROR(ResultFile::append(file, {.classes = {"a", "b"}, .top = 2}), ErrorKind::input,
               "other columns");
  std::ofstream(file, std::ios::app) << "half a li";  // of a process that was killed
  ResultFile::append(file, {.classes = {"a", "b"}})->add("y.jpg", prediction({1, 0}), {});
  EXPECT_NE(read_text_file(file).find("half a li\ny.jpg,a,"), std::string::npos);
  EXPECT_ERROR(ResultFile::append(folder.path() / "a.html", {}), ErrorKind::usage,
               "only .csv and .jsonl");
}

TEST(Gallery, ShowsTheSurestFirstAndIsBounded) {
  Gallery gallery({.classes = {"sea", "<b>"}, .unsure = 0.6, .title = "t"}, 10);
  for (int i = 0; i < 100; ++i)
    gallery.add("photos/" + std::to_string(i) + ".jpg",
                prediction({1 + static_cast<float>(i) / 30, 0}), grey(40));
  gallery.add("photos/other.jpg", prediction({0, 5}), grey(300));
  gallery.add("photos/unsure.jpg", prediction({0.1F, 0}), grey(300));
  const std::string page = gallery.page();
  EXPECT_EQ(count(page, "<img"), 10U);
  EXPECT_NE(page.find("92 between them are left out"), std::string::npos) << page;
  EXPECT_LT(page.find(">99.jpg<"), page.find(">0.jpg<")) << "both ends stay";
  EXPECT_NE(page.find("alt=\"sea 98.6 %\""), std::string::npos);
  EXPECT_NE(page.find("alt=\"&lt;b&gt; 99.3 %\""), std::string::npos);
  EXPECT_NE(page.find("unsure: below 60 % (1)"), std::string::npos);
  EXPECT_EQ(page.find("width=\"300\""), std::string::npos);
  EXPECT_EQ(count(page, "<script"), 1U) << "the pages' own";
  EXPECT_EQ(count(page, "http"), 1U) << "the policy's http-equiv";
}

TEST(Captions, LettersAreDrawnAndOthersRefused) {
  EXPECT_EQ(drawable("café"), "cafe");
  EXPECT_EQ(drawable("海"), "");
  EXPECT_EQ(drawable("a\nb"), "");
  const Image image = grey(50);
  const Image plain = captioned(image, "");
  const Image with = captioned(image, "sea 96 %");
  EXPECT_EQ(with.width, 50);
  EXPECT_GT(with.height, 50);
  EXPECT_NE(plain.pixels, with.pixels);
  EXPECT_EQ(captioned(image, std::string(1000, 'x')).width, 50);
  EXPECT_EQ(captioned(grey(1), "sea").width, 1);
}

// --- Sorting

class Sorting : public ::testing::Test {
 protected:
  fs::path photo(const std::string& name, const std::string& text) {
    const fs::path path = folder_.path() / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << text;
    return path;
  }
  [[nodiscard]] std::vector<std::string> sorted() const {
    std::vector<std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(out_))
      if (!entry.is_directory() && entry.path().filename() != "sorted.csv")
        out.push_back(entry.path().lexically_relative(out_).string() + "=" +
                      read_text_file(entry.path()));
    std::sort(out.begin(), out.end());
    return out;
  }

  TemporaryFolder folder_;
  fs::path out_ = folder_.path() / "out";
};

using Names = std::vector<std::string>;

TEST_F(Sorting, EqualNamesStandBesideEachOther) {
  const auto a = photo("a/i.jpg", "1");
  const auto b = photo("b/i.jpg", "2");
  const auto c = photo("c/i.jpg", "1");  // the same content as the first
  const Names expected = {"sea/i-2.jpg=2", "sea/i-3.jpg=1", "sea/i.jpg=1"};
  for (int run = 0; run < 3; ++run) {
    ImageSorter sorter(out_, {"sea", "street"});
    // In another order at last: what lies there is known by its list.
    for (const auto& path : run < 2 ? std::vector{a, b, c} : std::vector{c, b, a})
      sorter.place(path, prediction({9, 0}));
    EXPECT_EQ(sorted(), expected) << run;
    EXPECT_EQ(sorter.summary().find("3 lay there already") != std::string::npos, run > 0);
  }
  EXPECT_EQ(count(read_text_file(out_ / "sorted.csv"), "\n"), 4U);
}

TEST_F(Sorting, NothingIsReplaced) {
  photo("out/sea/i.jpg", "mine");
  ImageSorter sorter(out_, {"sea"});
  EXPECT_EQ(sorter.place(photo("i.jpg", "theirs"), prediction({1})), out_ / "sea" / "i-2.jpg");
  EXPECT_EQ(sorted(), (Names{"sea/i-2.jpg=theirs", "sea/i.jpg=mine"}));
  photo("other/sorted.csv", "a;b\n");
  EXPECT_ERROR(ImageSorter(folder_.path() / "other", {"sea"}), ErrorKind::usage, "sorted.csv");
}

TEST_F(Sorting, ClassesThatAreNoFolders) {
  const Names classes = {"a/b", "..", "", "Cat", "cat", "unsure", std::string(300, 'x'), ".git"};
  ImageSorter sorter(out_, classes, {.unsure = 0.5});
  Names folders;
  for (size_t i = 0; i < classes.size(); ++i) {
    std::vector<float> logits(classes.size(), 0);
    logits[i] = 20;
    const auto path = sorter.place(photo(std::to_string(i) + ".jpg", "x"), prediction(logits));
    EXPECT_EQ(path.parent_path().parent_path(), out_) << path;
    folders.push_back(path.parent_path().filename().string());
  }
  EXPECT_EQ(Names(folders.begin(), folders.begin() + 6),
            (Names{"a_b", "__", "_", "Cat", "cat-2", "unsure"}));
  EXPECT_LE(folders[6].size(), 200U);
  EXPECT_EQ(folders[7], "_git");
  const auto unsure = sorter.place(photo("u.jpg", "x"), prediction(std::vector<float>(8, 0)));
  EXPECT_EQ(unsure.parent_path().filename(), "unsure-2") << "a class has the other name";
  EXPECT_EQ(sorter.notes().size(), 7U);
}

TEST_F(Sorting, ACopyServesWhereALinkIsAskedFor) {
  const auto a = photo("a.jpg", "1");
  for (const Placing placing : {Placing::copy, Placing::hard_link, Placing::symbolic_link})
    ImageSorter(out_, {"sea"}, {.placing = placing}).place(a, prediction({1}));
  EXPECT_EQ(sorted(), Names{"sea/a.jpg=1"});
}

TEST_F(Sorting, LinksAndChangesOfMind) {
  const auto a = photo("a.jpg", "1");
  for (const Placing placing : {Placing::hard_link, Placing::symbolic_link}) {
    out_ = folder_.path() / (placing == Placing::hard_link ? "hard" : "symbolic");
    for (int run = 0; run < 2; ++run) {
      ImageSorter sorter(out_, {"sea", "street"}, {.placing = placing});
      const auto path = sorter.place(a, prediction({1, 0}));
      EXPECT_TRUE(fs::equivalent(a, path));
      EXPECT_EQ(fs::is_symlink(path), placing == Placing::symbolic_link);
      EXPECT_EQ(sorted(), Names{"sea/a.jpg=1"});
    }
    ImageSorter sorter(out_, {"sea", "street"}, {.placing = placing});
    sorter.place(a, prediction({0, 1}));
    EXPECT_EQ(sorter.stale(), std::vector<fs::path>{out_ / "sea/a.jpg"});
  }
}

}  // namespace
}  // namespace graft
