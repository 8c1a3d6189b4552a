#include "weights/onnx_file.h"

#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "support.h"
#include "weights/onnx_constants.h"
#include "weights/onnx_graph.h"
#include "weights/onnx_weights.h"

namespace graft {
namespace {

const fs::path kCorpus = GRAFT_ONNX_CORPUS;

// Protocol Buffers by hand, for files that no library would write.

std::string varint(uint64_t value) {
  std::string out;
  for (; value > 0x7F; value >>= 7U) out.push_back(static_cast<char>((value & 0x7FU) | 0x80U));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string number(uint32_t field, uint64_t value) { return varint(field << 3U) + varint(value); }
std::string bytes(uint32_t field, const std::string& content) {
  return varint((field << 3U) | 2U) + varint(content.size()) + content;
}
std::string model(const std::string& graph) { return number(1, 7) + bytes(7, graph); }
std::string tensor(const std::string& more) {
  return bytes(5, number(2, 1) + bytes(8, "w") + more);  // FLOAT
}

/// Everything that can be done with a file of the corpus, which is a first block and a head.
std::vector<float> values_of(const std::string& content) {
  const auto file = OnnxFile::read(content, "f");
  std::vector<float> out;
  for (const ForeignLayer& layer : follow(file).graph.layers)
    for (const auto& [role, stored] : layer.tensors) {
      const Tensor read = stored.read();
      out.insert(out.end(), read.values().begin(), read.values().end());
    }
  const OnnxMatcher matcher(follow(file));
  const Network net = backbone("vgg-mini", 32, 32);
  for (const auto& [name, read] : matcher.read(net, 4))
    out.insert(out.end(), read.values().begin(), read.values().end());
  return out;
}

TEST(OnnxFile, OfTheCorpusHasABlockAndAHead) {
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(kCorpus)) {
    ++files;
    const auto file = OnnxFile::open(entry.path());
    const OnnxLayers found = follow(file);
    EXPECT_EQ(found.stopped, "") << entry.path();
    std::vector<LayerKind> kinds;
    for (const ForeignLayer& layer : found.graph.layers) kinds.push_back(layer.kind);
    ASSERT_GE(kinds.size(), 5U);
    EXPECT_EQ(kinds[0], LayerKind::conv);
    EXPECT_TRUE(found.graph.layers[1].relu);
    EXPECT_EQ(kinds[2], LayerKind::maxpool);
    EXPECT_EQ(kinds.back(), LayerKind::dense);
    EXPECT_FALSE(values_of(read_text_file(entry.path())).empty());
  }
  EXPECT_GE(files, 3U);
}

TEST(OnnxFile, EveryTruncationIsRefused) {
  for (const auto& entry : fs::directory_iterator(kCorpus)) {
    const std::string good = read_text_file(entry.path());
    for (size_t size = 0; size < good.size(); size += size < 300 ? 1 : 7) {
      try {
        values_of(good.substr(0, size));
        // What was cut off is nothing but the list of operator sets at the end.
        EXPECT_GT(size + 100, good.size()) << entry.path();
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::input);
        EXPECT_TRUE(std::string(error.what()).starts_with("f: ")) << error.what();
      }
    }
  }
}

TEST(OnnxFile, EveryFlippedBitIsRefusedOrReadWhole) {
  for (const auto& entry : fs::directory_iterator(kCorpus)) {
    const std::string good = read_text_file(entry.path());
    const size_t size = values_of(good).size();
    // All of where the nodes and names are, and some of the weights.
    for (size_t at = 0; at < good.size(); at += at < 700 || good.size() - at < 200 ? 1 : 149)
      for (int bit = 0; bit < 8; ++bit) {
        std::string bad = good;
        bad[at] = static_cast<char>(bad[at] ^ (1 << bit));
        try {
          EXPECT_LE(values_of(bad).size(), 2 * size);
        } catch (const Error& error) {
          EXPECT_EQ(error.kind(), ErrorKind::input);
        }
      }
  }
}

TEST(OnnxFile, RefusesWhatIsNoMessage) {
  EXPECT_ERROR(OnnxFile::read("", "f"), ErrorKind::input, "it has no graph");
  EXPECT_ERROR(OnnxFile::read(std::string(20, '\xFF'), "f"), ErrorKind::input, "cut short");
  EXPECT_ERROR(OnnxFile::read(bytes(7, "") + bytes(7, ""), "f"), ErrorKind::input, "two graphs");
  // A length beyond the end, and one that wraps around.
  EXPECT_ERROR(OnnxFile::read(varint(58) + varint(100), "f"), ErrorKind::input, "cut short");
  EXPECT_ERROR(OnnxFile::read(varint(58) + varint(~uint64_t{0}), "f"), ErrorKind::input,
               "cut short");
  // A group, and field number 0.
  EXPECT_ERROR(OnnxFile::read(varint(59), "f"), ErrorKind::input, "cut short");
  EXPECT_ERROR(OnnxFile::read(std::string(2, '\0'), "f"), ErrorKind::input, "cut short");
}

TEST(OnnxFile, MeasuresTensorsBeforeAnythingIsTaken) {
  const auto with = [](const std::string& more) {
    const std::string file = model(tensor(more));
    return OnnxFile::read(file, "f");
  };
  const std::string tera = number(1, uint64_t{1} << 20U) + number(1, uint64_t{1} << 20U);
  EXPECT_ERROR(with(tera), ErrorKind::input, "of which 0 are stored");
  EXPECT_ERROR(with(tera + number(1, 2)), ErrorKind::input, "not possible");
  EXPECT_ERROR(with(number(1, ~uint64_t{0})), ErrorKind::input, "not possible");
  EXPECT_ERROR(with(number(1, 3) + bytes(9, "12345678")), ErrorKind::input, "2 are stored");
  EXPECT_ERROR(with(number(1, 2) + bytes(9, "1234567")), ErrorKind::input, "3 are stored");
  EXPECT_ERROR(with(number(14, 1)), ErrorKind::input, "in another file");
  EXPECT_ERROR(with(number(14, 1) + bytes(13, bytes(1, "location") + bytes(2, "/etc/passwd"))),
               ErrorKind::input, "in another file");
  std::string dimensions;
  for (int i = 0; i < 9; ++i) dimensions += number(1, 1);
  EXPECT_ERROR(with(dimensions + bytes(9, "1234")), ErrorKind::input, "not possible");
}

TEST(OnnxFile, ReadsListsPackedAndNot) {
  const float one = 1, half = 0.5F;
  std::string first(4, '\0'), second(4, '\0');
  std::memcpy(first.data(), &one, 4);
  std::memcpy(second.data(), &half, 4);
  const std::string apart = varint((4U << 3U) | 5U) + first + varint((4U << 3U) | 5U) + second;
  for (const std::string& values :
       {bytes(4, first + second), apart, bytes(4, first) + bytes(4, second)}) {
    const std::string file = model(tensor(bytes(1, varint(2)) + values));
    const auto read = OnnxFile::read(file, "f");
    const Tensor found = read->stored(read->initializers().at("w")).read();
    EXPECT_EQ(found.shape(), std::vector<int64_t>{2});
    EXPECT_EQ(found.values()[0], 1);
    EXPECT_EQ(found.values()[1], 0.5F);
  }
}

TEST(OnnxFile, BoundsWhatItCounts) {
  std::string nodes;
  for (int i = 0; i < 10'001; ++i) nodes += bytes(1, "");
  EXPECT_ERROR(OnnxFile::read(model(nodes), "f"), ErrorKind::input, "more than 10000 nodes");
  std::string inputs;
  for (int i = 0; i < 50'001; ++i) inputs += bytes(1, "");
  EXPECT_ERROR(OnnxFile::read(model(bytes(1, inputs)), "f"), ErrorKind::input,
               "more than 50000 names");
  EXPECT_ERROR(
      OnnxFile::read(model(bytes(1, bytes(5, bytes(8, std::string(1'000'001, '\1'))))), "f"),
      ErrorKind::input, "numbers in its attributes");
}

TEST(OnnxConstants, SliceAsOnnxDoes) {
  using List = std::vector<int64_t>;
  constexpr int64_t kFirst = std::numeric_limits<int64_t>::min();
  constexpr int64_t kLast = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(slice_indices(3, 0, 1, 1), (List{0}));
  EXPECT_EQ(slice_indices(3, 1, kLast, 1), (List{1, 2}));
  EXPECT_EQ(slice_indices(3, -2, -1, 1), (List{1}));
  EXPECT_EQ(slice_indices(3, kFirst, kLast, 2), (List{0, 2}));
  EXPECT_EQ(slice_indices(3, -1, kFirst, -1), (List{2, 1, 0}));
  EXPECT_EQ(slice_indices(3, kLast, 0, -1), (List{2, 1}));
  EXPECT_EQ(slice_indices(3, -1, kFirst, kFirst), (List{2}));
  EXPECT_EQ(slice_indices(3, 0, 3, kLast), (List{0}));
  EXPECT_TRUE(slice_indices(3, 0, 3, 0).empty());
  EXPECT_TRUE(slice_indices(3, 3, 3, 1).empty());
  EXPECT_TRUE(slice_indices(0, 0, 3, 1).empty());
}

TEST(OnnxConstants, Transposes) {
  const StoredTensor in = reshaped(stored_vector({0, 1, 2, 3, 4, 5}), {1, 2, 3});
  const Tensor out = permuted(in, {2, 0, 1}).read();
  EXPECT_EQ(out.shape(), (std::vector<int64_t>{3, 1, 2}));
  EXPECT_EQ(std::vector<float>(out.values().begin(), out.values().end()),
            (std::vector<float>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(as_order({0, 0}, 2), std::nullopt);
  EXPECT_EQ(as_order({0, 2}, 2), std::nullopt);
}

TEST(OnnxPixels, StandBehindWhatIsAskedFor) {
  OnnxAffine affine;
  affine.bgr = true;
  affine.scale = {2, 3, 4};
  affine.shift = {0.5, 0, -1};
  // x = (p · s − t) · scale − shift, the channels reversed first.
  const Preprocessing torch = torchvision_preprocessing();
  const Preprocessing out = behind(torch, affine);
  EXPECT_TRUE(out.bgr);
  EXPECT_FLOAT_EQ(out.scale[0], 2 * torch.scale[2]);
  EXPECT_FLOAT_EQ(out.shift[0], 2 * torch.shift[2] + 0.5F);
  EXPECT_FLOAT_EQ(out.scale[2], 4 * torch.scale[0]);
  EXPECT_FLOAT_EQ(out.shift[2], 4 * torch.shift[0] - 1);
  EXPECT_FALSE(behind(keras_preprocessing(), affine).bgr);
  EXPECT_FALSE(recognised(affine).has_value());
  EXPECT_FALSE(recognised(OnnxAffine{}).has_value());
}

}  // namespace
}  // namespace graft
