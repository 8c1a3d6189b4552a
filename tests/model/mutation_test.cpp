// Model files changed at random: whatever a file says, it loads and classifies, or is refused with
// a typed error. More by hand: GRAFT_MUTATIONS=100000 GRAFT_MUTATION_SEED=7 graft_tests
// --gtest_filter='ModelMutations.*'
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>

#include "base/file.h"
#include "graft/classifier.h"
#include "model/model_file.h"
#include "support.h"

namespace graft {
namespace {

using nlohmann::json;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

/// The header of a model taken apart: the documents in its metadata and the tensors' entries.
class MutatedModel {
 public:
  explicit MutatedModel(const std::string& bytes) {
    uint64_t size = 0;
    std::memcpy(&size, bytes.data(), 8);
    document_ = json::parse(bytes.substr(8, size));
    data_ = bytes.substr(8 + size);
    json& metadata = document_["__metadata__"];
    metadata.erase("file_xxh3");
    for (auto& [key, value] : metadata.items())
      if (key != "graft_format") value = json::parse(value.get<std::string>());
  }

  void mutate(std::mt19937_64& random) {
    std::vector<json*> parents;
    collect(document_, parents);
    json& parent = *parents[random() % parents.size()];
    auto at = parent.begin();
    std::advance(at, static_cast<std::ptrdiff_t>(random() % parent.size()));
    switch (random() % 8) {
      case 0:
        parent.erase(at);
        break;
      case 1: {  // the same again, or under another key
        json copy = *at;
        if (parent.is_array())
          parent.push_back(std::move(copy));
        else
          parent["copy"] = std::move(copy);
        break;
      }
      case 2: {  // what stands somewhere else
        const json& other = *parents[random() % parents.size()];
        auto from = other.begin();
        std::advance(from, static_cast<std::ptrdiff_t>(random() % other.size()));
        json copy = *from;
        *at = std::move(copy);
        break;
      }
      case 3:  // a number near by
        if (at->is_number_integer()) {
          *at = static_cast<int64_t>(at->get<uint64_t>() + random() % 5 - 2);  // may wrap
          break;
        }
        [[fallthrough]];
      default:
        *at = extreme(random);
    }
  }

  [[nodiscard]] std::string bytes() const {
    json header = document_;
    if (auto metadata = header.find("__metadata__");
        metadata != header.end() && metadata->is_object())
      for (auto& [key, value] : metadata->items())
        if (key != "graft_format") value = value.dump();
    return assemble(header.dump());
  }

  [[nodiscard]] std::string assemble(std::string text) const {
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t size = text.size();
    return std::string(reinterpret_cast<const char*>(&size), 8) + text + data_;
  }

 private:
  static void collect(json& value, std::vector<json*>& parents) {
    if (!value.is_structured() || value.empty()) return;
    parents.push_back(&value);
    for (json& child : value) collect(child, parents);
  }

  static json extreme(std::mt19937_64& random) {
    json deep = 1;
    for (int i = 0; i < 40; ++i) deep = json::array({deep});
    const std::vector<json> values = {0,
                                      -1,
                                      1,
                                      2,
                                      3,
                                      64,
                                      32.9,
                                      32.0,
                                      0.5,
                                      -0.0,
                                      1e300,
                                      -1e300,
                                      1e-320,
                                      1e39,
                                      INT32_MAX,
                                      int64_t{INT32_MAX} + 1,
                                      (int64_t{1} << 32) + 32,
                                      int64_t{1} << 40,
                                      INT64_MAX,
                                      INT64_MIN,
                                      UINT64_MAX,
                                      true,
                                      false,
                                      nullptr,
                                      "",
                                      "conv",
                                      "dense",
                                      "flatten",
                                      "input",
                                      "gap",
                                      "stats",
                                      "batchnorm",
                                      "maxpool",
                                      "dropout",
                                      std::string("a\0b", 3),
                                      std::string(3000, 'x'),
                                      "\x1b[2J",
                                      json::array(),
                                      json::object(),
                                      json::array({1, 2, 3}),
                                      deep};
    return values[random() % values.size()];
  }

  json document_;
  std::string data_;
};

class ModelMutations : public ::testing::Test {
 protected:
  void SetUp() override {
    const Network net = with_head(cut_after(backbone("vgg-mini", 32, 32), "block1_pool"),
                                  "batchnorm conv:4 maxpool flatten dense:5 dropout:0.25", 3);
    ModelFile model{{net,
                     {"cat", "dog", "emu"},
                     torchvision_preprocessing(),
                     {"source", "md5", "licence"},
                     {{"epoch", 3}, {"fine_tune", "2"}, {"temperature", 1.5}}},
                    testing::make_tensors(net, 4)};
    const fs::path written = folder_.path() / "model.safetensors";
    write_model(written, model);
    good_ = read_text_file(written);
    ASSERT_GE(file_, 0);
    image_.pixels.resize(40UL * 30 * 3, 90);
  }

  void TearDown() override { ::close(file_); }

  /// True where the file loads; the test fails where it does anything but that or an Error(input).
  bool loads(const std::string& bytes) {
    const auto size = static_cast<ssize_t>(bytes.size());
    if (::ftruncate(file_, size) != 0 || ::pwrite(file_, bytes.data(), bytes.size(), 0) != size)
      ADD_FAILURE() << "cannot write";
    try {
      const Classifier classifier = Classifier::load(path_, {.threads = 1});
      const Prediction p = classifier.classify(image_);
      EXPECT_EQ(p.logits.size(), classifier.classes().size());
      EXPECT_EQ(p.ranking.size(), classifier.classes().size());
      return true;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::input) << error.what();
      EXPECT_LT(std::strlen(error.what()), 5000U);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "untyped: " << error.what();
    }
    return false;
  }

  testing::TemporaryFolder folder_;
  int file_ = ::memfd_create("graft-test-model", MFD_CLOEXEC);  // disks are slow
  fs::path path_ = fmt::format("/proc/self/fd/{}", file_);
  std::string good_;
  Image image_{40, 30, {}};
  uint64_t count_ = from_environment("GRAFT_MUTATIONS", 1500);
  std::mt19937_64 random_{from_environment("GRAFT_MUTATION_SEED", 1)};
};

TEST_F(ModelMutations, Fields) {
  ASSERT_TRUE(loads(good_));
  const MutatedModel model(good_);
  ASSERT_TRUE(loads(model.bytes()));
  uint64_t loaded = 0;
  for (uint64_t i = 0; i < count_ && !HasFailure(); ++i) {
    MutatedModel changed = model;
    for (uint64_t n = 1 + random_() % 3; n > 0; --n) changed.mutate(random_);
    const std::string bytes = changed.bytes();
    if (loads(bytes)) ++loaded;
    if (HasFailure()) std::ofstream("/tmp/graft-mutation.safetensors") << bytes;
  }
  EXPECT_GT(loaded, 0U);
  EXPECT_LT(loaded, count_ / 2);
}

TEST_F(ModelMutations, Bytes) {
  const std::string plain = MutatedModel(good_).bytes();
  for (uint64_t i = 0; i < count_ / 2 && !HasFailure(); ++i) {
    std::string bytes = plain;
    // Most of the file is numbers, in which little can go wrong.
    uint64_t header = 0;
    std::memcpy(&header, plain.data(), 8);
    const size_t at = random_() % (random_() % 4 == 0 ? bytes.size() : 8 + header);
    switch (random_() % 5) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.insert(at, 1 + random_() % 9, "{[\"\\,0\x80"[random_() % 7]);
        break;
      case 2:
        bytes.erase(at, 1 + random_() % 9);
        break;
      case 3:
        bytes[at] = static_cast<char>(random_());
        break;
      default:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random_() % 8));
    }
    loads(bytes);
    if (HasFailure()) std::ofstream("/tmp/graft-mutation.safetensors") << bytes;
  }
}

/// With the hash that every written file has, no changed bit goes unnoticed.
TEST_F(ModelMutations, EveryFlippedBitIsFound) {
  std::string bytes = good_;
  for (uint64_t i = 0; i < count_ / 5 && !HasFailure(); ++i) {
    const size_t at = random_() % bytes.size();
    const char before = bytes[at];
    bytes[at] = static_cast<char>(before ^ (1 << random_() % 8));
    EXPECT_FALSE(loads(bytes)) << "byte " << at;
    bytes[at] = before;
  }
  EXPECT_TRUE(loads(bytes));
}

TEST_F(ModelMutations, Nesting) {
  const MutatedModel model(good_);
  const auto metadata = read_safetensors(std::as_bytes(std::span(good_)), "f").metadata;
  for (const auto& [open, close] : {std::pair{"[", "]"}, {"{\"a\":", "}"}}) {
    std::string deep;
    for (int i = 0; i < 100'000; ++i) deep += open;
    deep += "1";
    for (int i = 0; i < 100'000; ++i) deep += close;
    for (const char* key : {"network", "classes", "preprocessing", "provenance", "training"}) {
      auto bad = metadata;
      bad[key] = deep;
      EXPECT_ERROR(parse_metadata(bad, "f"), ErrorKind::input, "nested deeper");
    }
    EXPECT_FALSE(loads(model.assemble("{\"a\":" + deep + "}")));
  }
}

}  // namespace
}  // namespace graft
