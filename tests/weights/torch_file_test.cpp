#include "weights/torch_file.h"

#include <fmt/format.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "support.h"
#include "weights/torch_names.h"

namespace graft {
namespace {

const fs::path kCorpus = GRAFT_TORCH_CORPUS;

using namespace std::string_literals;

using Values = std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>>;

/// All floating-point tensors of a file's bytes.
Values values_of(const std::string& bytes) {
  Values out;
  for (const auto& [name, stored] : read_torch(std::as_bytes(std::span(bytes)), "f").tensors) {
    if (stored.type == ElementType::other) continue;
    const Tensor tensor = stored.read();
    out[name] = {tensor.shape(), {tensor.values().begin(), tensor.values().end()}};
  }
  return out;
}

TEST(TorchFile, BothFormatsHoldTheSame) {
  for (const std::string& name : {std::string("state"), std::string("checkpoint")}) {
    const Values zip = values_of(read_text_file(kCorpus / (name + "-zip.pth")));
    EXPECT_EQ(zip, values_of(read_text_file(kCorpus / (name + "-stream.pth"))));
    const std::string prefix = name == "state" ? "" : "module.";
    const auto& [shape, weight] = zip.at(prefix + "features.0.weight");
    EXPECT_EQ(shape, (std::vector<int64_t>{2, 3, 3, 3}));
    for (size_t i = 0; i < weight.size(); ++i) EXPECT_EQ(weight[i], static_cast<float>(i) / 64);
    EXPECT_EQ(zip.at(prefix + "features.0.bias").second, (std::vector<float>{1, 1}));
  }
  const TorchFile file = read_torch(kCorpus / "checkpoint-zip.pth");
  EXPECT_EQ(file.under, "state_dict");
  EXPECT_ERROR(file.tensors.at("module.steps").read(), ErrorKind::input, "not floating-point");
}

TEST(TorchFile, EveryTruncationIsRefused) {
  for (const auto& entry : fs::directory_iterator(kCorpus)) {
    const std::string good = read_text_file(entry.path());
    for (size_t size = 0; size < good.size(); ++size)
      EXPECT_ERROR(values_of(good.substr(0, size)), ErrorKind::input, "f: ");
  }
}

/// An archive's checksums leave no flip to be read as other values; a stream of pickles has none.
TEST(TorchFile, EveryFlippedBitIsRefusedOrChangesNothing) {
  for (const auto& entry : fs::directory_iterator(kCorpus)) {
    const std::string good = read_text_file(entry.path());
    const Values values = values_of(good);
    const bool zip = good.starts_with("PK");
    for (size_t at = 0; at < good.size(); ++at) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
        try {
          const Values read = values_of(bad);
          EXPECT_TRUE(!zip || read == values) << entry.path() << " byte " << at;
        } catch (const Error& error) {
          EXPECT_EQ(error.kind(), ErrorKind::input);
        }
      }
    }
  }
}

/// A stream around a pickled object: magic number, protocol, facts, the object, keys, storage "0"
/// of 16 floats.
std::string stream(const std::string& object, int64_t elements = 16) {
  const std::string magic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."s;
  const std::string protocol = "\x80\x02M\xe9\x03."s;
  const std::string facts = "\x80\x02}."s;
  const std::string keys =
      "\x80\x02]X\x01\0\0\0"
      "0a."s;
  std::string out = magic + protocol + facts + "\x80\x02" + object + "." + keys;
  out.append(reinterpret_cast<const char*>(&elements), sizeof(elements));
  return out + std::string(64, '\0');
}

/// {"a": tensor} with the numbers as pickled.
std::string tensor(const std::string& offset, const std::string& shape, const std::string& strides,
                   const std::string& elements = "K\x10") {
  return "}X\x01\0\0\0"
         "actorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage"
         "ctorch\nFloatStorage\nX\x01\0\0\0"
         "0X\x03\0\0\0cpu"s +
         elements + "tQ" + offset + shape + strides + "\x89}tRs";
}

TEST(TorchFile, TensorsStayWithinTheirStorage) {
  const std::string four = "K\x04\x85"s;
  const std::string one = "K\x01\x85"s;
  EXPECT_EQ(values_of(stream(tensor("K\x0c"s, four, one))).at("a").second.size(), 4U);
  const std::string zero = "K\0"s;
  const std::string huge = "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"s;
  const std::string minus = "J\xff\xff\xff\xff"s;
  for (const auto& [object, text] : std::vector<std::pair<std::string, const char*>>{
           {tensor("K\x0d"s, four, one), "beyond what is stored"},
           {tensor(huge, four, one), "beyond what is stored"},
           {tensor(zero, four, "K\x06\x85"s), "beyond what is stored"},
           {tensor(zero, four, huge + "\x85"), "beyond what is stored"},
           {tensor(zero, huge + "\x85", one), "larger than what is stored"},
           {tensor(zero, "K\x11\x85"s, zero + "\x85"), "larger than what is stored"},
           {tensor(zero, huge + huge + "\x86", "K\x01K\x01\x86"s), "larger than what is stored"},
           {tensor(zero, minus + "\x85", one), "shape that is not possible"},
           {tensor(zero, four, minus + "\x85"), "shape that is not possible"},
           {tensor(minus, four, one), "not in the form"},
           {tensor(zero, four, "K\x01K\x01\x86"s), "shape that is not possible"},
           {tensor(zero, four, one, huge), "not as long as it should be"},
           {tensor(zero, four, one, minus), "a kind that is not read"}}) {
    EXPECT_ERROR(values_of(stream(object)), ErrorKind::input, text);
  }
  EXPECT_ERROR(values_of(stream(tensor(zero, four, one, huge), 0x7fffffffffffffff)),
               ErrorKind::input, "ends inside its values");
}

TEST(TorchFile, NamesOfObjectsAreAllowedOrRefused) {
  for (const auto& [name, text] : std::vector<std::pair<const char*, const char*>>{
           {"cos\nsystem\n", "os.system, which weights have no need of"},
           {"cposix\nsystem\n", "nothing of it was executed"},
           {"cbuiltins\neval\n", "builtins.eval"},
           {"ctorchvision.models.vgg\nVGG\n", "a whole model"},
           {"c__torch__.a\nB\n", "TorchScript"},
           {"ctorch.nn.modules.linear\nLinear\n", "a whole model"}})
    for (const char* end : {"", "(tR", ")R", ")\x81"})
      EXPECT_ERROR(values_of(stream(std::string(name) + end)), ErrorKind::input, text);
}

// FORMATS: torchvision's own numbers.
TEST(TorchNames, AreTorchvisions) {
  const std::map<std::string, std::vector<int>> kConvolutions = {
      {"vgg11", {0, 3, 6, 8, 11, 13, 16, 18}},
      {"vgg13", {0, 2, 5, 7, 10, 12, 15, 17, 20, 22}},
      {"vgg16", {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}},
      {"vgg19", {0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34}},
      {"vgg11_bn", {0, 4, 8, 11, 15, 18, 22, 25}},
      {"vgg13_bn", {0, 3, 7, 10, 14, 17, 21, 24, 28, 31}},
      {"vgg16_bn", {0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40}},
      {"vgg19_bn", {0, 3, 7, 10, 14, 17, 20, 23, 27, 30, 33, 36, 40, 43, 46, 49}}};
  for (const auto& [name, indices] : kConvolutions) {
    const Network net = backbone(name, 224, 224, /*include_top=*/true);
    const auto names = torch_names(net, TorchNames::torchvision);
    size_t next = 0;
    for (const Layer& layer : net.layers) {
      if (layer.kind == LayerKind::conv) {
        EXPECT_EQ(names.at(layer.name + ".weight"),
                  fmt::format("features.{}.weight", indices[next++]));
      } else if (layer.kind == LayerKind::batchnorm) {
        EXPECT_EQ(names.at(layer.name + ".running_var"),
                  fmt::format("features.{}.running_var", indices[next - 1] + 1));
      }
    }
    EXPECT_EQ(next, indices.size());
    EXPECT_EQ(names.at("fc1.weight"), "classifier.0.weight");
    EXPECT_EQ(names.at("fc2.bias"), "classifier.3.bias");
    EXPECT_EQ(names.at("predictions.weight"), "classifier.6.weight");
    const auto timm = torch_names(net, TorchNames::timm);
    EXPECT_EQ(timm.at("fc1.weight"), "pre_logits.fc1.weight");
    EXPECT_EQ(timm.at("fc2.bias"), "pre_logits.fc2.bias");
    EXPECT_EQ(timm.at("predictions.weight"), "head.fc.weight");
  }
}

}  // namespace
}  // namespace graft
