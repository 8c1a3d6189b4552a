#include "dataset/labels.h"

#include "dataset/split_names.h"
#include "support.h"

namespace graft {
namespace {

// é composed, and e with a combining accent.
const std::string kComposed = "caf\u00E9";
const std::string kDecomposed = "cafe\u0301";

TEST(Labels, CanonicalFormIsNfcWithoutOuterSpaces) {
  EXPECT_EQ(canonical_label(" cat\u00A0"), "cat");
  EXPECT_EQ(canonical_label(kDecomposed), kComposed);
  EXPECT_EQ(canonical_label("\uFEFFcat"), "cat");
  EXPECT_EQ(canonical_label("sea  side"), "sea  side");
  EXPECT_EQ(canonical_label("m\u00B2"), "m\u00B2") << "what looks different stays different";
  EXPECT_EQ(canonical_label("\xE9"), "\xE9") << "labels of old models are compared as bytes";
}

TEST(Labels, FoldedFormForgetsWhatIsOverlooked) {
  EXPECT_EQ(folded_label("CAF\u00C9"), folded_label(kDecomposed));
  EXPECT_EQ(folded_label("Sea \u00A0 side "), "sea side");
  EXPECT_EQ(folded_label("ca\u200Bt"), "cat");
  EXPECT_EQ(folded_label("STRASSE"), folded_label("stra\u00DFe"));
  EXPECT_NE(folded_label("m\u00B2"), folded_label("m2"));
}

TEST(Labels, MustBeOneLineOfText) {
  for (const std::string good : {"cat", " cat ", "\U0001F431", "Katze & Hund", "a\u0301"})
    require_label(good, "here");
  EXPECT_ERROR(require_label(" \u00A0", "f:2"), ErrorKind::input, "f:2: the label is empty");
  EXPECT_ERROR(require_label("caf\xE9", "d/caf"), ErrorKind::input, "'caf?' is not UTF-8");
  EXPECT_ERROR(require_label(std::string("a\0b", 3), "f"), ErrorKind::input, "U+0000");
  EXPECT_ERROR(require_label("a\x7F", "f"), ErrorKind::input, "U+007F");
  EXPECT_ERROR(require_label("a\u2028b", "f"), ErrorKind::input, "U+2028");
  EXPECT_ERROR(require_label(std::string(kMaxLabelBytes + 1, 'a'), "f"), ErrorKind::input, "1001");
}

TEST(Labels, NearEqualOnesAreRefused) {
  require_distinct({"a", "A", "b"}, "here");
  EXPECT_ERROR(require_distinct({"Cat", "cat"}, "here"), ErrorKind::input,
               "here: the classes 'Cat'");
}

TEST(Labels, LookAlikesHaveOneSkeleton) {
  for (const auto& [a, b] :
       std::vector<std::pair<std::string, std::string>>{{"c\u0430t", "cat"},  // Cyrillic
                                                        {"\u0421OCA COLA", "coca-cola"},
                                                        {"\u0391\u0392C", "abc"},  // Greek
                                                        {"\u0130stanbul", "istanbul"},
                                                        {"cat.", "cat"},
                                                        {"(cat)", "cat"},
                                                        {"ice cream", "ice_cream"},
                                                        {"ice-cream", "icecream"},
                                                        {"\uFF43\uFF41\uFF54", "cat"},  // fullwidth
                                                        {"caf\u00E9", "cafe"},
                                                        {"cat 1", "cat_1"},
                                                        {"don\u2019t", "dont"},
                                                        {"2020-01", "2020_01"}})
    EXPECT_EQ(label_skeleton(a), label_skeleton(b)) << a << " and " << b;
}

TEST(Labels, WhatDiffersToTheEyeHasAnotherSkeleton) {
  for (const auto& [a, b] : std::vector<std::pair<std::string, std::string>>{
           {"cat1", "cat2"},
           {"cat", "cats"},
           {"c#", "c"},
           {"c++", "c"},
           {"1.5", "15"},
           {"1-2", "12"},
           {"1-2", "1.2"},
           {"-5", "5"},
           {"b1", "61"},
           {"\u304B\u304D", "\u304C\u304D"},  // kaki and gaki: the mark is another sound
           {"\u0915\u093F", "\u0915\u0940"},  // Devanagari vowels
           {"\u043A\u043E\u0442", "\u043A\u0438\u0442"}})  // Russian: tomcat and whale
    EXPECT_NE(label_skeleton(a), label_skeleton(b)) << a << " and " << b;
  EXPECT_EQ(label_skeleton("..."), "");
  EXPECT_EQ(label_skeleton("\xE9"), "");
}

TEST(Labels, LookAlikesAreNotedOncePerPair) {
  EXPECT_TRUE(look_alike_notes({"cat1", "cat2", "dog", "a", "\u0430", ".", ","}).empty());
  const std::vector<std::string> notes =
      look_alike_notes({"ice cream", "ice-cream", "ice_cream", "soup"});
  ASSERT_EQ(notes.size(), 2U);
  EXPECT_EQ(notes[0],
            "labels 'ice cream' and 'ice-cream' look alike; if they are one class, merge them");
  std::vector<std::string> many;
  for (int i = 0; i < 1000; ++i) many.push_back("cat" + std::string(static_cast<size_t>(i), '.'));
  EXPECT_EQ(look_alike_notes(many).size(), 11U);
}

TEST(Labels, FoundByTheirCanonicalForm) {
  EXPECT_EQ(find_label({"cat", kComposed}, kDecomposed), 1);
  EXPECT_EQ(find_label({"cat ", "cat"}, "cat"), 1) << "the very same first";
  EXPECT_EQ(find_label({"cat"}, "Cat"), -1);
  EXPECT_NE(near_label_hint({"cat"}, "Cat"), "");
  EXPECT_EQ(near_label_hint({"cat"}, "dog"), "");
  EXPECT_NE(near_label_hint({"cat"}, "c\u0430t").find("'cat' looks like it"), std::string::npos);
}

TEST(Layout, NamesOfSplits) {
  for (const char* name : {"train", "Training", "seg_train", "TRAIN_IMAGES", "trainset",
                           "train-set", "training data", "train1"})
    EXPECT_EQ(split_of_name(name), Split::train) << name;
  for (const char* name : {"val", "Valid", "validation_set", "dev", "seg_dev", "eval"})
    EXPECT_EQ(split_of_name(name), Split::validation) << name;
  for (const char* name : {"test", "Testing", "seg_test", "test1", "testdata"})
    EXPECT_EQ(split_of_name(name), Split::test) << name;
  for (const char* name : {"", "trains", "seg_pred", "train_test", "trainer", "set", "data", "2019",
                           "invalid", "contest", "train bridge", "seg"})
    EXPECT_EQ(split_of_name(name), std::nullopt) << name;
}

}  // namespace
}  // namespace graft
