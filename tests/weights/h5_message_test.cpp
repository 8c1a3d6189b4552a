#include "weights/h5_message.h"

#include <gtest/gtest.h>

namespace graft {
namespace {

std::span<const std::byte> content(const std::vector<std::byte>& framed) {
  return std::span(framed).subspan(4);
}

TEST(H5Message, ComesBackAsItWas) {
  const H5Message sent{H5Tag::catalogue,
                       {{"block1_conv1", "kernel:0", {3, 3, 3, 64}, ""}, {"dense", "", {}, "why"}},
                       "",
                       0};
  H5Message got;
  ASSERT_TRUE(decode(content(encode(sent)), got));
  EXPECT_EQ(got.tag, sent.tag);
  EXPECT_EQ(got.weights, sent.weights);
  EXPECT_EQ(got.weights[0].bytes(), 3 * 3 * 3 * 64 * sizeof(float));
  ASSERT_TRUE(decode(content(encode({H5Tag::refusal, {}, "no", 0})), got));
  EXPECT_EQ(got.text, "no");
  ASSERT_TRUE(decode(content(encode({H5Tag::read, {}, "", 7})), got));
  EXPECT_EQ(got.index, 7U);
}

TEST(H5Message, CarriesTheModelsDescription) {
  H5Message got;
  ASSERT_TRUE(decode(content(encode({H5Tag::catalogue,
                                     {{"layer", "name", {2, 3}, "", "/layers/conv2d/vars/0"}},
                                     "{\"class_name\": \"Sequential\"}",
                                     0,
                                     "{\"graft_export\": 1}"})),
                     got));
  EXPECT_EQ(got.text, "{\"class_name\": \"Sequential\"}");
  EXPECT_EQ(got.record, "{\"graft_export\": 1}");
  ASSERT_EQ(got.weights.size(), 1U);
  EXPECT_EQ(got.weights[0].path, "/layers/conv2d/vars/0");
}

TEST(H5Message, RefusesWhatItCannotBe) {
  const std::vector<std::byte> good =
      encode({H5Tag::catalogue, {{"layer", "name", {2, 3}, ""}}, "", 0});
  H5Message got;
  for (size_t size = 0; size < good.size() - 4; ++size)
    EXPECT_FALSE(decode(content(good).first(size), got)) << size;
  std::vector<std::byte> longer = good;
  longer.push_back({});
  EXPECT_FALSE(decode(content(longer), got));
  // Every byte changed to something else: either refused, or shapes that are possible.
  for (size_t i = 4; i < good.size(); ++i)
    for (const int value : {0x00, 0x01, 0x7F, 0x80, 0xFF}) {
      std::vector<std::byte> bytes = good;
      bytes[i] = static_cast<std::byte>(value);
      if (!decode(content(bytes), got)) continue;
      for (const H5Weight& weight : got.weights) EXPECT_LE(weight.bytes(), kH5MaxTensorBytes);
    }
  for (const int64_t extent : {int64_t{0}, int64_t{-1}, int64_t{1} << 40U})
    EXPECT_FALSE(decode(
        content(encode({H5Tag::catalogue, {{"layer", "name", {extent, 4}, ""}}, "", 0})), got));
}

}  // namespace
}  // namespace graft
