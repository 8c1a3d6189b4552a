#include "base/columns.h"

#include <algorithm>
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

TEST(Columns, LinesBreakBetweenWords) {
  EXPECT_EQ(wrapped("note: three corrections, two of them kept", 20),
            "note: three\ncorrections, two of\nthem kept");
  EXPECT_EQ(wrapped("data       understood as folders\nhead       gap\n", 24, 11),
            "data       understood as\n           folders\nhead       gap\n")
      << "what goes on stands below what is said; other lines and spaces are as they were";
  EXPECT_EQ(wrapped("see /a/path/that/is/longer/than/the/line", 12),
            "see\n/a/path/that/is/longer/than/the/line")
      << "a path stays whole, to be copied";
  EXPECT_EQ(wrapped("", 10), "");
  EXPECT_EQ(wrapped("海の 写真 です", 9), "海の 写真\nです");
  for (size_t width = 24; width < 60; ++width) {
    const std::string text = wrapped("parameters 121,877 total, 3 trainable, 0 frozen", width, 11);
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      EXPECT_LE(columns_of(text.substr(at, end - at)), width) << text;
      at = end + 1;
    }
  }
}

}  // namespace
}  // namespace graft
