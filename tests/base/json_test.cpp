#include "base/json.h"
#include <fmt/format.h>

#include "base/hash.h"
#include "support.h"

namespace graft {
namespace {

std::string repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(Json, ParsesWhatTheLibraryParses) {
  for (const char* text :
       {R"({"a":[1,-2,3.5,"x",true,false,null,{}],"b":{"c":[[],[[]]]}})", "[]", "3", "\"\\u00e9\"",
        "null", "18446744073709551615", "-9223372036854775808", " [ 1 , 2 ] "})
    EXPECT_EQ(parse_json(text, "doc"), nlohmann::json::parse(text)) << text;
}

TEST(Json, RefusesByName) {
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"", "doc: not JSON"},
      {"{", "doc: not JSON"},
      {"{} x", "doc: not JSON"},
      {"[1,]", "doc: not JSON (byte"},
      {"nan", "doc: not JSON"},
      {"1e999", "doc: not JSON"},
      {"\"\xff\"", "doc: not JSON"},
      {std::string("{}\0{", 4), "NUL byte"},  // the library reads up to there
      {R"({"a":1,"b":{"c":1,"c":2}})", "'c' stands twice"},
      {repeat("[", 33) + repeat("]", 33), "nested deeper than 32"},
      {repeat("[", 1'000'000), "nested deeper than 32"},
      {repeat("{\"a\":", 100'000) + "1" + repeat("}", 100'000), "nested deeper than 32"}};
  for (const auto& [text, why] : cases)
    EXPECT_ERROR(parse_json(text, "doc"), ErrorKind::input, why);
  parse_json(repeat("[", 32) + repeat("]", 32), "doc");
  EXPECT_ERROR(parse_json("[1,2,3]", "doc", {.values = 3}), ErrorKind::input, "more than 3 values");
  EXPECT_ERROR(parse_json("[1,2,3]", "doc", {.bytes = 3}), ErrorKind::input, "7 bytes");
}

TEST(Json, FieldsHaveExactKinds) {
  const nlohmann::json document = parse_json(
      R"({"n":3,"f":32.9,"whole":32.0,"huge":1e300,"wrap":4294967328,"most":18446744073709551615,
          "no":-1,"yes":true,"t":"x","nul":"a\u0000b","list":[1,[2.5]],"none":null})",
      "doc");
  const JsonField root(document, "file");
  EXPECT_EQ(root.at("n").integer(0, 3), 3);
  EXPECT_EQ(root.at("no").integer(-1, 3), -1);
  EXPECT_EQ(root.at("n").number(0, 3), 3);
  EXPECT_EQ(root.at("f").number(0, 33), 32.9);
  EXPECT_TRUE(root.at("yes").boolean());
  EXPECT_EQ(root.at("t").text(), "x");
  EXPECT_FALSE(root.find("missing"));
  for (const char* key : {"f", "whole", "huge", "wrap", "most", "no", "yes", "t", "list", "none"})
    EXPECT_ERROR((void)root.at(key).integer(0, INT32_MAX), ErrorKind::input,
                 fmt::format("file: field '{}': expected a whole number", key));
  for (const char* key : {"huge", "no", "yes", "t", "none"})
    EXPECT_ERROR((void)root.at(key).number(0, 1e9), ErrorKind::input, "expected a number from 0");
  EXPECT_ERROR((void)root.at("n").boolean(), ErrorKind::input, "expected true or false, found 3");
  EXPECT_ERROR((void)root.at("n").text(), ErrorKind::input, "expected text");
  EXPECT_ERROR((void)root.at("nul").text(), ErrorKind::input, "NUL");
  EXPECT_ERROR((void)root.at("t").items(), ErrorKind::input, "expected a list");
  EXPECT_ERROR((void)root.at("list").items(3), ErrorKind::input, "a list of 3, found a list of 2");
  EXPECT_ERROR((void)root.at("list").items()[1].items()[0].integer(0, 9), ErrorKind::input,
               "field 'list[1][0]': expected a whole number from 0 to 9, found 2.5");
  EXPECT_ERROR((void)root.at("missing"), ErrorKind::input, "file: 'missing' is missing");
  EXPECT_ERROR((void)root.at("n").at("x"), ErrorKind::input, "expected an object");
}

TEST(Json, LongTextsAreClippedBetweenCharacters) {
  EXPECT_EQ(clipped("short"), "short");
  const std::string cut = clipped(std::string(79, 'x') + "éé");
  EXPECT_EQ(cut, std::string(79, 'x') + "…");
}

TEST(Hash, PiecesAreTheWhole) {
  const std::string text = repeat("0123456789", 1000);
  const auto bytes = std::as_bytes(std::span(text));
  ContentHash hash;
  hash.update(bytes.first(1));
  hash.update({});
  hash.update(bytes.subspan(1, 4321));
  hash.update(bytes.subspan(4322));
  EXPECT_EQ(hash.finish(), content_hash(bytes));
}

TEST(Json, TellsInWhatObjectsDiffer) {
  const nlohmann::json mine = {{"batch_size", 7}, {"same", 1}, {"about", {{"input", "32x32"}}}};
  const nlohmann::json theirs = {{"batch_size", 8}, {"same", 1}, {"about", {{"input", "48x48"}}}};
  EXPECT_EQ(json_difference(mine, theirs),
            "about.input: \"32x32\", not \"48x48\"; batch-size: 7, not 8");
  EXPECT_EQ(json_difference({{"a", 1}}, {{"b", std::string(64, 'f')}}), "a: 1, not none; b");
  EXPECT_EQ(json_difference({{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}},
                            {{"a", 2}, {"b", 2}, {"c", 2}, {"d", 2}}),
            "a: 1, not 2; b: 1, not 2; c: 1, not 2; …");
  EXPECT_EQ(json_difference(mine, mine), "");
}

}  // namespace
}  // namespace graft
