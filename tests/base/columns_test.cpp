#include "base/columns.h"

#include <string>

#include "support.h"

namespace graft {
namespace {

TEST(Columns, WideCharactersTakeTwoAndMarksNone) {
  EXPECT_EQ(columns_of("sea"), 3U);
  EXPECT_EQ(columns_of("é"), 1U);
  EXPECT_EQ(columns_of("e\xCC\x81"), 1U) << "a letter and a combining accent";
  EXPECT_EQ(columns_of("海"), 2U);
  EXPECT_EQ(columns_of("\xFF\xFE"), 2U) << "no UTF-8: a column a byte";
  EXPECT_EQ(columns_of(""), 0U);
}

TEST(Columns, TheMiddleIsCutOut) {
  EXPECT_EQ(cut_to_columns("mountain", 8), "mountain");
  EXPECT_EQ(cut_to_columns("mountain_lake", 7), "mou…ake");
  EXPECT_EQ(cut_to_columns("mountain", 1), "…");
  EXPECT_EQ(cut_to_columns("mountain", 0), "");
  EXPECT_EQ(cut_to_columns("日本語の名前", 5), "日…前") << "never half of a character";
}

TEST(Columns, WhateverIsCutFits) {
  const std::string text = "a日e\xCC\x81本\xFFz語";
  for (size_t width = 0; width < 14; ++width) {
    EXPECT_LE(columns_of(cut_to_columns(text, width)), width);
    EXPECT_EQ(columns_of(in_columns(text, width)), width);
    EXPECT_EQ(columns_of(in_columns(text, width, true)), width);
  }
  EXPECT_EQ(in_columns("海", 4, true), "  海");
}

}  // namespace
}  // namespace graft
