#include "weights/metadata.h"

#include <fmt/format.h>
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
  const ModelFile loaded = read_model(model_file(folder.path()));
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
                a.in_head == b.in_head && a.window == b.window && a.inputs == b.inputs)
        << a.name;
  }
  for (const auto& [name, tensor] : saved.tensors)
    EXPECT_TRUE(std::equal(tensor.values().begin(), tensor.values().end(),
                           loaded.tensors.at(name).values().begin()))
        << name;
}

TEST(Model, OneViewIsAnEarlierFormatAndTwoAreNot) {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "model.safetensors";
  ModelFile model = make_model();
  EXPECT_EQ(format_metadata(model.metadata).at("graft_format"), "2");
  write_model(path, model);
  EXPECT_EQ(read_model(path).metadata.test_views, 1);
  model.metadata.test_views = 2;
  auto fields = format_metadata(model.metadata);
  EXPECT_EQ(fields.at("graft_format"), "3");
  write_model(path, model);
  EXPECT_EQ(read_model(path).metadata.test_views, 2);
  EXPECT_EQ(read_model_info(path).test_views, 2);
  for (const char* wrong : {"0", "3", "2.5", "\"2\"", ""}) {
    fields["test_views"] = wrong;
    EXPECT_ERROR(static_cast<void>(parse_metadata(fields, "file")), ErrorKind::input, "test_views");
  }
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

TEST(Model, FormatOneHasTheUsualWindowsAndInputs) {
  // Files of before windows and inputs were stated.
  const ModelMetadata saved = make_model().metadata;
  auto texts = format_metadata(saved);
  auto network = nlohmann::json::parse(texts["network"]);
  for (auto& layer : network["layers"])
    for (const char* key : {"kernel", "stride", "padding", "groups", "inputs"}) layer.erase(key);
  texts["network"] = network.dump();
  EXPECT_ERROR(parse_metadata(texts, "file"), ErrorKind::input, "inputs");
  texts["graft_format"] = "1";
  const Network read = parse_metadata(texts, "file").network;
  for (size_t i = 0; i < read.layers.size(); ++i) {
    EXPECT_EQ(read.layers[i].window, saved.network.layers[i].window) << i;
    EXPECT_EQ(read.layers[i].inputs, saved.network.layers[i].inputs) << i;
  }
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
  auto network = nlohmann::json::parse(good.at("network"));
  network["layers"][1]["kernel"] = 1;
  refuses("network", network.dump(), "no kernel for");
  network["layers"][1]["kernel"] = 0;
  refuses("network", network.dump(), "kernel");
  network["layers"][1]["kernel"] = 3;
  network["layers"][1]["inputs"] = {"block1_conv2"};
  refuses("network", network.dump(), "no layer before this one");
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

/// What executors rely on, and nothing said of a layer that they would pass over.
TEST(Model, NetworksThatCannotRun) {
  const auto good = format_metadata(make_model().metadata);
  const auto refuses = [&](const std::string& layers, const char* classes, const char* text,
                           const char* size = "[8,8]") {
    auto bad = good;
    bad["network"] =
        fmt::format(R"({{"backbone":"x","input_size":{},"layers":[{}]}})", size, layers);
    bad["graft_format"] = "1";
    bad["classes"] = classes;
    bad["training"] = "{}";
    EXPECT_ERROR(parse_metadata(bad, "model.safetensors"), ErrorKind::input, text);
  };
  const std::string input = R"({"kind":"input","name":"i"},)";
  const std::string flat = R"({"kind":"flatten","name":"f","head":true},)";
  const std::string dense = R"({"kind":"dense","name":"d","outputs":3,"head":true})";
  const char* three = R"(["a","b","c"])";
  refuses(R"({"kind":"input","name":"i","head":true})", three, "input layer belongs to the head");
  refuses(input + R"({"kind":"conv","name":"c","outputs":3,"head":true})", three, "not dense");
  refuses(input + R"({"kind":"maxpool","name":"p","head":true})", three, "not dense");
  refuses(input + R"({"kind":"gap","name":"p","head":true})", three, "not dense");
  refuses(input + flat + dense + R"(,{"kind":"dropout","name":"x","head":true})", three,
          "not dense");
  refuses(input + flat + R"({"kind":"dense","name":"d","outputs":3,"relu":true,"head":true})",
          three, "without ReLU");
  refuses(input + flat + dense, R"(["a","b"])", "number of labels");
  refuses(input + flat + dense, R"(["a","b","c\u0000"])", "field 'classes[2]'");
  refuses(input + flat + dense, R"(["a","b",""])", "empty or stands twice");
  refuses(input + dense, three, "cannot follow");
  refuses(input + flat + R"({"kind":"conv","name":"c","outputs":3,"head":true},)" + dense, three,
          "cannot follow");
  for (const char* size :
       {"[8]", "[8,8,3]", "[8,32.9]", "[8,8.0]", "[8,4294967328]", "[8,1e300]", "[8,true]",
        "[8,\"8\"]", "[8,-8]", "[0,8]", "[8,null]", "8", "[]", "[8,18446744073709551615]"})
    refuses(input + flat + dense, three, "input_size", size);
  refuses(input + flat + dense, three, "at most 16384", "[8,16385]");
  for (const char* layer : {R"("kind":"dropout","name":"x","rate":1)",
                            R"("kind":"dropout","name":"x","rate":-0.1)",
                            R"("kind":"batchnorm","name":"x")",
                            R"("kind":"batchnorm","name":"x","epsilon":0)",
                            R"("kind":"batchnorm","name":"x","epsilon":1e300)",
                            R"("kind":"batchnorm","name":"x","epsilon":"1e-5")",
                            R"("kind":"maxpool","name":"x","relu":true)",
                            R"("kind":"maxpool","name":"x","relu":1)",
                            R"("kind":"maxpool","name":"x","outputs":3)",
                            R"("kind":"maxpool","name":"x","rate":0.5)",
                            R"("kind":"maxpool","name":"x","epsilon":0.5)",
                            R"("kind":"maxpool","name":"")",
                            R"("kind":"maxpool","name":"a\u001b[2J")",
                            R"("kind":"maxpool","name":"f")",
                            R"("kind":"maxpool")",
                            R"("name":"x")",
                            R"("kind":3,"name":"x")",
                            R"("kind":"conv","name":"x")",
                            R"("kind":"conv","name":"x","outputs":0)",
                            R"("kind":"conv","name":"x","outputs":2097152)",
                            R"("kind":"conv","name":"x","outputs":1.0)",
                            R"("kind":"conv","name":"x","outputs":4294967297)",
                            R"("kind":"input","name":"x")"})
    refuses(input + "{" + layer + "}," + flat + dense, three, "field 'network");
  // 2^20 channels of 16384x16384 pixels, and their product with 2^20 units.
  refuses(input + R"({"kind":"conv","name":"c","outputs":1048576},)" + flat + dense, three,
          "too large", "[16384,16384]");
  refuses(input + R"({"kind":"conv","name":"c","outputs":4096},)" + flat +
              R"({"kind":"dense","name":"e","outputs":1048576,"head":true},)" + dense,
          three, "too many weights", "[16384,16384]");
}

TEST(Model, RecordsThatOthersRead) {
  const auto good = format_metadata(make_model().metadata);
  const auto refuses = [&](const char* key, const char* value, const char* text) {
    auto bad = good;
    bad[key] = value;
    EXPECT_ERROR(parse_metadata(bad, "model.safetensors"), ErrorKind::input, text);
  };
  refuses("training", R"({"fine_tune":3})", "field 'training.fine_tune': expected text, found 3");
  refuses("training", R"({"fine_tune":"block9"})", "nor a layer");
  refuses("training", R"({"temperature":"2"})", "field 'training.temperature'");
  refuses("training", R"({"temperature":0})", "field 'training.temperature'");
  refuses("training", R"({"a":1,"a":2})", "stands twice");
  const auto preprocessing = [](const char* scale, const char* ratio) {
    return fmt::format(
        R"({{"channel_order":"rgb","scale":{},"shift":[0,0,0],"resampling":"nearest","crop_ratio":{}}})",
        scale, ratio);
  };
  refuses("preprocessing", preprocessing("[1,1]", "0").c_str(), "preprocessing.scale");
  refuses("preprocessing", preprocessing("[1,1,1,1]", "0").c_str(), "preprocessing.scale");
  refuses("preprocessing", preprocessing("[1,1,1e300]", "0").c_str(), "preprocessing.scale[2]");
  refuses("preprocessing", preprocessing("[1,1,true]", "0").c_str(), "preprocessing.scale[2]");
  refuses("preprocessing", preprocessing("[1,1,1]", "0.5").c_str(), "preprocessing.crop_ratio");
  refuses("preprocessing", preprocessing("[1,1,1]", "4.5").c_str(), "preprocessing.crop_ratio");
}

TEST(Prediction, RankingBreaksTiesByIndex) {
  const Prediction p = to_prediction(std::vector<float>{1, 3, 3, -100});
  EXPECT_EQ(p.ranking, (std::vector<int>{1, 2, 0, 3}));
}

}  // namespace
}  // namespace graft
