#include "weights/metadata.h"

#include <nlohmann/json.hpp>

#include "graft/classifier.h"
#include "model/model_file.h"
#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

ModelFile make_model() {
  const Network net = with_head(cut_after(backbone("vgg-mini", 48, 32), "block2_pool"),
                                "stats batchnorm dense:5 dropout:0.25", 3);
  ModelFile model{{net,
                   {"cat", "dog", "Übung, \"q\""},
                   torchvision_preprocessing(),
                   {"source", "md5", "licence"},
                   {{"epoch", 3}}},
                  random_tensors(net, 0, net.layers.size(), 4)};
  return model;
}

TEST(Model, LoadsWhatWasSaved) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "model.safetensors";
  const ModelFile saved = make_model();
  write_model(path, saved);
  const ModelFile loaded = read_model(resolve_model(folder.path()));
  EXPECT_EQ(loaded.metadata.classes, saved.metadata.classes);
  EXPECT_EQ(loaded.metadata.preprocessing, saved.metadata.preprocessing);
  EXPECT_EQ(loaded.metadata.provenance.licence, "licence");
  EXPECT_EQ(loaded.metadata.training["epoch"], 3);
  EXPECT_EQ(loaded.metadata.network.input_height, 48);
  ASSERT_EQ(loaded.metadata.network.layers.size(), saved.metadata.network.layers.size());
  for (size_t i = 0; i < loaded.metadata.network.layers.size(); ++i) {
    const Layer& a = loaded.metadata.network.layers[i];
    const Layer& b = saved.metadata.network.layers[i];
    EXPECT_TRUE(a.kind == b.kind && a.name == b.name && a.outputs == b.outputs &&
                a.rate == b.rate && a.epsilon == b.epsilon && a.relu == b.relu &&
                a.in_head == b.in_head)
        << a.name;
  }
  for (const auto& [name, tensor] : saved.tensors)
    EXPECT_TRUE(std::equal(tensor.values().begin(), tensor.values().end(),
                           loaded.tensors.at(name).values().begin()))
        << name;
}

TEST(Model, PredictsTheSameAfterLoading) {
  const testing::TemporaryFolder folder;
  write_model(folder.path() / "a.safetensors", make_model());
  write_model(folder.path() / "b.safetensors", read_model(folder.path() / "a.safetensors"));
  Image image{50, 40, std::vector<uint8_t>(6000, 90)};
  for (size_t i = 0; i < image.pixels.size(); i += 7) image.pixels[i] = static_cast<uint8_t>(i);
  const Prediction a = Classifier::load(folder.path() / "a.safetensors").classify(image);
  const Prediction b = Classifier::load(folder.path() / "b.safetensors").classify(image);
  EXPECT_EQ(a.logits, b.logits);
  double sum = 0;
  for (const float p : a.probabilities) sum += p;
  EXPECT_NEAR(sum, 1, 1e-6);
}

TEST(Model, EveryFieldIsValidated) {
  const auto good = format_metadata(make_model().metadata);
  parse_metadata(good, "file");
  const auto refuses = [&](const char* key, const std::string& value, const char* text) {
    auto bad = good;
    bad[key] = value;
    EXPECT_ERROR(parse_metadata(bad, "model.safetensors"), ErrorKind::input, text);
  };
  refuses("graft_format", "99", "update graft");
  refuses("classes", R"(["a","b"])", "number of labels");
  refuses("classes", R"(["a","a","b"])", "stands twice");
  refuses("classes", R"(["a",1,"b"])", "classes");
  refuses("classes", "not json", "classes");
  refuses("network", R"({"backbone":"x"})", "network");
  refuses("network", R"({"backbone":"x","input_size":[1,1],"layers":[]})", "input layer");
  refuses("network", R"({"backbone":"x","input_size":[9,9],"layers":[{"kind":"?","name":"a"}]})",
          "unknown layer kind");
  refuses("preprocessing", R"({"channel_order":"brg"})", "channel_order");
  refuses("provenance", "{}", "provenance");
  refuses("training", "[]", "training");
  for (const char* key : {"network", "classes", "preprocessing", "provenance", "training"}) {
    auto bad = good;
    bad.erase(key);
    EXPECT_ERROR(parse_metadata(bad, "model.safetensors"), ErrorKind::input, key);
  }
  EXPECT_ERROR(parse_metadata({}, "x"), ErrorKind::input, "not a model written by graft");
}

TEST(Prediction, RankingBreaksTiesByIndex) {
  const Prediction p = to_prediction(std::vector<float>{1, 3, 3, -100});
  EXPECT_EQ(p.ranking, (std::vector<int>{1, 2, 0, 3}));
}

}  // namespace
}  // namespace graft
