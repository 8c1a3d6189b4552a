#include "base/words.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/option_synonyms.h"

namespace graft {
namespace {

TEST(Words, NearestIsWhatWasMeant) {
  const std::vector<std::string> options = {
      "--epochs",      "--batch-size",     "--freeze-epochs", "--cache-dir",
      "--cache-dtype", "--optimizer",      "--output",        "-o",
      "--lr",          "--label-smoothing"};
  for (const auto& [typed, meant] :
       std::vector<std::pair<std::string, std::string>>{{"--epoch", "--epochs"},
                                                        {"--epcohs", "--epochs"},
                                                        {"--Epochs", "--epochs"},
                                                        {"--batch_size", "--batch-size"},
                                                        {"--batchsize", "--batch-size"},
                                                        {"--optim", "--optimizer"},
                                                        {"--label-smothing", "--label-smoothing"},
                                                        {"--cache", ""},  // the beginning of two
                                                        {"--quite-another", ""},
                                                        {"--", ""},
                                                        {"", ""}})
    EXPECT_EQ(nearest_word(typed, options), meant) << typed;
  const std::vector<std::string> backbones = {"vgg11", "vgg13", "vgg16", "vgg19", "vgg-mini"};
  EXPECT_EQ(nearest_word("vgg61", backbones), "vgg16") << "exchanged, not replaced";
  EXPECT_EQ(nearest_word("vgg_mini", backbones), "vgg-mini");
  EXPECT_EQ(nearest_word("resnet50", backbones), "");
  EXPECT_EQ(nearest_word("gpu", {"auto", "cpu", "cuda"}), "") << "another word, no slip";
  EXPECT_EQ(nearest_word("lst", {"list", "clear"}), "list");
  EXPECT_EQ(nearest_word("sdg", {"adam", "adamw", "sgd"}), "sgd");
  EXPECT_EQ(nearest_word(std::string(100'000, 'a'), options), "");
  EXPECT_EQ(nearest_word("x", {}), "");
  EXPECT_EQ(did_you_mean("admw", {"adam", "adamw", "sgd"}), " (did you mean adamw?)");
  EXPECT_EQ(did_you_mean("lion", {"adam", "adamw", "sgd"}), "");
}

TEST(Words, OptionsUnderOtherProgramsNames) {
  const std::vector<std::string> options = {"--lr", "--weights", "--epochs", "-o"};
  EXPECT_EQ(did_you_mean_option("--learning-rate", options), " (did you mean --lr?)");
  EXPECT_EQ(did_you_mean_option("--Learning_Rate", options), " (did you mean --lr?)");
  EXPECT_EQ(did_you_mean_option("--learningrate", options), " (did you mean --lr?)");
  EXPECT_EQ(did_you_mean_option("--num-epochs", options), " (did you mean --epochs?)");
  EXPECT_EQ(did_you_mean_option("--epoch", options), " (did you mean --epochs?)");
  EXPECT_EQ(did_you_mean_option("--imgsz", options), "") << "no such option here";
  EXPECT_EQ(did_you_mean_option("--zzz", options), "");
  EXPECT_EQ(did_you_mean_option("learning_rate", {"lr", "weights"}), " (did you mean lr?)")
      << "a key of a configuration file";
}

TEST(Words, MessagesAreBounded) {
  const std::string path = "/a/" + std::string(4000, 'p');
  EXPECT_EQ(bounded("x: no such file"), "x: no such file");
  EXPECT_EQ(bounded(path + ": no such file; see\nthere"), path + ": no such file; see\nthere");
  EXPECT_EQ(bounded("'" + std::string(100'000, 'x') + "': is no word"),
            "'" + std::string(79, 'x') + "…': is no word");
  std::string many = "a: ";
  for (int i = 0; i < 50'000; ++i) many += "é ";
  const std::string cut = bounded(many + "; use fewer");
  EXPECT_LT(cut.size(), 6000U);
  EXPECT_TRUE(cut.starts_with("a: é é"));
  EXPECT_TRUE(cut.ends_with("; use fewer"));
  EXPECT_NE(cut.find("é  … "), std::string::npos) << "between characters";
}

}  // namespace
}  // namespace graft
