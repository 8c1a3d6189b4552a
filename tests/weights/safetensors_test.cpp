#include "weights/safetensors.h"

#include <fmt/format.h>
#include <chrono>
#include <cmath>
#include <cstring>

#include "base/file.h"
#include "base/hash.h"
#include "support.h"

namespace graft {
namespace {

using testing::TemporaryFolder;

std::string file_with(const std::string& header, size_t data_bytes) {
  uint64_t size = header.size();
  std::string text(8, '\0');
  std::memcpy(text.data(), &size, 8);
  return text + header + std::string(data_bytes, '\0');
}

TEST(Safetensors, RoundTrip) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "x.safetensors";
  write_safetensors(path,
                    {{"b", Tensor({2, 3}, {1, 2, 3, 4, 5, 6})},
                     {"a", Tensor({}, {7})},
                     {"none", Tensor({0, 4}, std::vector<float>{})}},
                    {{"key", "välue \"quoted\""}});
  const SafetensorsFile file = read_safetensors(path);
  EXPECT_EQ(file.metadata.at("key"), "välue \"quoted\"");
  EXPECT_EQ(file.tensors.at("b").shape(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.tensors.at("b").data()[5], 6);
  EXPECT_EQ(file.tensors.at("a").data()[0], 7);
  EXPECT_TRUE(file.tensors.at("none").values().empty());
}

TEST(Safetensors, EveryRuleIsChecked) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "bad.safetensors";
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"", "too short"},
      {"<html>not a model</html>", "header length"},
      {file_with(good, 4), "ends inside tensor a"},
      {file_with(good, 12), "surplus bytes"},
      {file_with(good, 8).substr(0, 30), "inside its header"},
      {file_with("[]", 0), "does not begin"},
      {file_with("{]", 0), "not JSON"},
      {file_with("{} x", 0), "not JSON"},
      {file_with(std::string("{}\0{]", 5), 0), "NUL byte"},
      {file_with(R"({"a":1})", 0), "lacks dtype"},
      {file_with(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8),
       "neither float32 nor"},
      {file_with(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "shape"},
      {file_with(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "does not fit"},
      {file_with(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8), "does not fit"},
      {file_with(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12), "gap"},
      {file_with(R"({"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]}})",
                 8),
       "too large"},
      {file_with(R"({"__metadata__":{"k":1}})", 0), "not a string"},
      {file_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                 R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                 4),
       "stands twice"},
      {file_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                 R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
                 4),
       "gap or overlaps"},
  };
  for (const auto& [bytes, text] : cases) {
    testing::write(path, bytes);
    EXPECT_ERROR(read_safetensors(path), ErrorKind::input, text);
  }
  testing::write(path, file_with(good, 8));
  EXPECT_EQ(read_safetensors(path).tensors.size(), 1U);
}

/// A file as written, changed in one place.
TEST(Safetensors, TheHashCoversEveryByte) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "x.safetensors";
  write_safetensors(path, {{"a", Tensor({3}, {1, 2, 3})}}, {{"shift", "[103.939]"}});
  const std::string good = read_text_file(path);
  for (size_t at = 0; at < good.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
      EXPECT_ERROR(read_safetensors(std::as_bytes(std::span(bad)), "x"), ErrorKind::input, "x: ");
    }
  }
  std::string digit = good;
  digit.replace(good.find("103.939"), 7, "103.938");
  EXPECT_ERROR(read_safetensors(std::as_bytes(std::span(digit)), "x"), ErrorKind::input,
               "copy it again");
  // Files of before, and of others, have no hash.
  const std::string other =
      file_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4);
  EXPECT_EQ(read_safetensors(std::as_bytes(std::span(other)), "x").tensors.size(), 1U);
}

TEST(Safetensors, TheHashIsOfTheFileWithZerosInItsPlace) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "x.safetensors";
  for (const StoredType type : {StoredType::f32, StoredType::f16}) {
    write_safetensors(path, {{"a", Tensor({3}, {1, 2, 3})}, {"b", Tensor({}, {7})}}, {}, type);
    std::string text = read_text_file(path);
    const size_t at = text.find("file_xxh3\":\"") + 12;
    const std::string digits = text.substr(at, 32);
    text.replace(at, 32, 32, '0');
    EXPECT_EQ(digits, content_hash(std::as_bytes(std::span(text))));
  }
}

/// Linear in the number of tensors, and that has a limit.
TEST(Safetensors, ManyTensors) {
  const auto header = [](int count) {
    std::string text = "{";
    for (int i = 0; i < count; ++i)
      text += fmt::format(R"({}"t{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
                          i > 0 ? "," : "", i);
    return file_with(text + "}", 0);
  };
  const std::string good = header(40'000);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(read_safetensors(std::as_bytes(std::span(good)), "f").tensors.size(), 40'000U);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  const std::string bad = header(100'000);
  EXPECT_ERROR(read_safetensors(std::as_bytes(std::span(bad)), "f"), ErrorKind::input,
               "more than 400000 values");
}

TEST(Tensors, VariancesAreNotNegative) {
  const TensorMap tensors = {{"bn.running_var", Tensor({2}, {1, -1e-9F})}};
  EXPECT_ERROR(check_finite(tensors, "f"), ErrorKind::input, "negative variance");
  check_finite({{"bn.running_mean", Tensor({2}, {1, -1})}}, "f");
}

TEST(Tensors, NotANumberIsFound) {
  const TensorMap good = {{"a", Tensor({2}, {1, 3e38F})}};
  check_finite(good, "f");
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    const TensorMap tensors = {{"a", Tensor({2}, {1, bad})}};
    EXPECT_ERROR(check_finite(tensors, "f"), ErrorKind::input, "tensor a");
  }
}

TEST(Tensors, DifferencesAreATable) {
  const Network net = cut_after(backbone("vgg11", 32, 32), "block2_pool");
  TensorMap found;
  for (const TensorSpec& spec : tensor_specs(net))
    found.emplace(spec.name, Tensor(spec.shape, std::vector<float>(spec.elements())));
  check_tensors(net, net.layers.size(), found, "file", "");
  found.insert_or_assign("block1_conv1.weight", Tensor({1}, {0}));
  found.erase("block1_conv1.bias");
  found.emplace("surplus", Tensor({1}, {0}));
  for (const char* text : {"3 differences", "missing", "not in the network", "(64, 3, 3, 3)"})
    EXPECT_ERROR(check_tensors(net, net.layers.size(), found, "file", ""), ErrorKind::input, text);
}

}  // namespace
}  // namespace graft
