#include "graft/network.h"

#include "engine/reference.h"

#include "support.h"

namespace graft {
namespace {

constexpr const char* kNotebookHead = "flatten dense:4096 dense:1072 dropout:0.2";

struct Figures {
  const char* backbone;
  const char* fine_tune;
  int64_t total, trainable, frozen;
};

// Printed by Keras for the notebook's models (224×224×3, six classes).
TEST(Network, ThoseFilledByHandAreRefusedNotDividedByZero) {
  Network network = backbone("vgg-mini", 32, 32);
  network.layers[1].window.stride = 0;
  EXPECT_ERROR(output_shapes(network), ErrorKind::usage, "stride");
  EXPECT_ERROR(with_head({}, "gap", 3), ErrorKind::usage, "without layers");
  EXPECT_ERROR(default_head({}), ErrorKind::usage, "without layers");
}

TEST(Parameters, AreKeras) {
  for (const Figures& f : {Figures{"vgg16", "0", 121'877'654, 107'162'966, 14'714'688},
                           Figures{"vgg16", "2", 121'877'654, 109'522'774, 12'354'880},
                           Figures{"vgg19", "0", 127'187'350, 107'162'966, 20'024'384},
                           Figures{"vgg19", "2", 127'187'350, 109'522'774, 17'664'576}}) {
    const Network net = with_head(backbone(f.backbone, 224, 224), kNotebookHead, 6);
    const Summary summary = summarize(net, freeze_plan(net, f.fine_tune));
    EXPECT_EQ(summary.parameters, f.total) << f.backbone << f.fine_tune;
    EXPECT_EQ(summary.trainable, f.trainable) << f.backbone << f.fine_tune;
    EXPECT_EQ(summary.non_trainable(), f.frozen) << f.backbone << f.fine_tune;
  }
}

// torchvision's published parameter counts, which the whole family must meet.
TEST(Parameters, AreTorchvisions) {
  const std::vector<std::pair<const char*, int64_t>> published = {
      {"vgg11", 132'863'336},    {"vgg13", 133'047'848},    {"vgg16", 138'357'544},
      {"vgg19", 143'667'240},    {"vgg11_bn", 132'868'840}, {"vgg13_bn", 133'053'736},
      {"vgg16_bn", 138'365'992}, {"vgg19_bn", 143'678'248}};
  for (const auto& [name, count] : published) {
    const Network net = backbone(name, 224, 224, true);
    int64_t parameters = 0;
    for (const TensorSpec& spec : tensor_specs(net))
      if (spec.trainable) parameters += spec.elements();  // PyTorch's statistics are buffers
    EXPECT_EQ(parameters, count) << name;
  }
}

TEST(Shapes, OddSizesAndCuts) {
  const Network net = cut_after(backbone("vgg19", 150, 150), "block3_pool");
  EXPECT_EQ(output_shapes(net).back(), (Shape{256, 18, 18, false}));
  EXPECT_EQ(output_shapes(backbone("vgg16", 33, 63)).back(), (Shape{512, 1, 1, false}));
  EXPECT_EQ(net.layers.back().name, "block3_pool");
  EXPECT_ERROR(backbone("vgg16", 31, 224), ErrorKind::usage, "too small");
  EXPECT_ERROR(backbone("vgg17", 224, 224), ErrorKind::usage, "vgg16");
  EXPECT_ERROR(cut_after(net, "block4_pool"), ErrorKind::usage, "block3_pool");
  EXPECT_ERROR(cut_after(net, "input"), ErrorKind::usage, "`until`");
}

TEST(Flops, OfVgg16) {
  double total = 0;
  for (const double f : layer_flops(backbone("vgg16", 224, 224))) total += f;
  EXPECT_NEAR(total / 1e9, 30.7, 0.05);
}

TEST(Head, Language) {
  const Network base = cut_after(backbone("vgg16", 64, 64), "block2_pool");
  const Network net = with_head(
      base, "batchnorm conv:8 batchnorm, maxpool conv:4 stats dropout:0.5 dense:7 batchnorm", 3);
  std::vector<std::string> names;
  for (const Layer& layer : net.layers)
    if (layer.in_head) names.push_back(layer.name);
  EXPECT_EQ(names, (std::vector<std::string>{"batchnorm1", "head_conv1", "head_conv1_bn",
                                             "head_pool1", "head_conv2", "stats", "dropout1", "fc1",
                                             "fc1_bn", "predictions"}));
  const auto layer = [&](const char* name) { return net.layers[*find_layer(net, name)]; };
  EXPECT_FALSE(layer("head_conv1").relu) << "the ReLU moved behind the BatchNorm";
  EXPECT_TRUE(layer("head_conv1_bn").relu);
  EXPECT_FALSE(layer("batchnorm1").relu) << "a BatchNorm that follows no ReLU has none";
  EXPECT_TRUE(layer("head_conv2").relu);
  EXPECT_FALSE(layer("predictions").relu) << "logits";
  EXPECT_EQ(output_shapes(net).back(), (Shape{3, 1, 1, true}));
  EXPECT_EQ(output_shapes(net)[*find_layer(net, "stats")], (Shape{12, 1, 1, true}));
}

TEST(Head, HasAtMost500Words) {
  const Network base = cut_after(backbone("vgg-mini", 32, 32), "block1_pool");
  std::string words;
  for (int i = 0; i < 499; ++i) words += "dropout:0 ";
  EXPECT_EQ(with_head(base, words + "gap", 2).layers.size(), base.layers.size() + 501);
  EXPECT_ERROR(with_head(base, words + "gap dropout:0", 2), ErrorKind::usage, "at most 500");
  for (int i = 0; i < 7; ++i) words += words;
  EXPECT_ERROR(with_head(base, words + "gap", 2), ErrorKind::usage, "at most 500");
}

TEST(Head, NumbersStayCountable) {
  const Network base = cut_after(backbone("vgg-mini", 16384, 16384), "block1_conv1");
  EXPECT_ERROR(with_head(base, "conv:1048576 gap", 2), ErrorKind::usage, "too large");
  EXPECT_ERROR(with_head(base, "flatten dense:1048576", 2), ErrorKind::usage, "too many weights");
}

TEST(Head, RefusesWhatCannotBe) {
  const Network base = cut_after(backbone("vgg16", 32, 32), "block5_pool");
  for (const auto& [language, text] :
       std::vector<std::pair<const char*, const char*>>{{"dense:10", "flat vector"},
                                                        {"", "flat vector"},
                                                        {"gap conv:8", "works on maps"},
                                                        {"gap flatten", "works on maps"},
                                                        {"gap dense:0", "whole number"},
                                                        {"gap dense:x", "whole number"},
                                                        {"gap dense", "needs a value"},
                                                        {"gap:3", "takes no value"},
                                                        {"gap dropout:1", "fraction"},
                                                        {"gap dropout:nan", "fraction"},
                                                        {"softmax", "unknown word"},
                                                        {"input", "unknown word"},
                                                        {"maxpool gap", "to nothing"}})
    EXPECT_ERROR(with_head(base, language, 3), ErrorKind::usage, text);
  EXPECT_ERROR(with_head(base, "gap", 1), ErrorKind::usage, "at least 2");
}

TEST(Freeze, CountsAsKerasDoes) {
  const Network net = with_head(backbone("vgg16", 224, 224), "gap", 6);
  const auto first = [&](const char* text) {
    return net.layers[freeze_plan(net, text).first_trainable].name;
  };
  EXPECT_EQ(first("0"), "gap");
  EXPECT_EQ(first("1"), "block5_pool");
  EXPECT_EQ(first("2"), "block5_conv3");
  EXPECT_EQ(first("block4_conv1"), "block4_conv1");
  EXPECT_EQ(first("19"), "input");
  EXPECT_EQ(first("1000"), "input");
  EXPECT_EQ(first("99999999999999999999999"), "input");
  EXPECT_EQ(first("all"), "input");
  for (const char* text : {"", "-1", "2.5", "block9_conv1", "predictions", "2x"})
    EXPECT_ERROR(freeze_plan(net, text), ErrorKind::usage, "`fine-tune`");
  // BatchNorm layers count.
  const Network bn = with_head(backbone("vgg16_bn", 224, 224), "gap", 6);
  EXPECT_EQ(bn.layers[freeze_plan(bn, "2").first_trainable].name, "block5_conv3_bn");
}

TEST(Freeze, PrefixTakesInWhatHasNoParameters) {
  const auto end = [](const char* head, const char* fine_tune) {
    const Network net = with_head(backbone("vgg16", 64, 64), head, 6);
    return net.layers[frozen_prefix_end(net, freeze_plan(net, fine_tune))].name;
  };
  EXPECT_EQ(end("gap dense:4", "0"), "fc1");
  EXPECT_EQ(end("stats batchnorm dense:4", "0"), "batchnorm1");
  EXPECT_EQ(end("dropout:0.2 gap dense:4", "0"), "dropout1");
  EXPECT_EQ(end("gap", "1"), "predictions") << "an unfrozen pooling has nothing to train";
  EXPECT_EQ(end("gap", "2"), "block5_conv3");
  EXPECT_EQ(end("gap", "all"), "block1_conv1");
}

TEST(Validate, RefusesListsThatCannotRun) {
  const Network good = with_head(backbone("vgg11", 32, 32), "gap", 3);
  validate(good);
  const auto refuses = [&](auto&& change, const char* text) {
    Network net = good;
    change(net);
    EXPECT_ERROR(validate(net), ErrorKind::input, text);
  };
  refuses([](Network& n) { n.layers.clear(); }, "input layer");
  refuses([](Network& n) { n.layers.erase(n.layers.begin()); }, "input layer");
  refuses([](Network& n) { n.input_width = 0; }, "input size");
  refuses([](Network& n) { n.input_height = 1 << 20; }, "input size");
  refuses([](Network& n) { n.layers[1].name = n.layers[2].name; }, "used twice");
  refuses([](Network& n) { n.layers[1].outputs = -5; }, "outputs");
  refuses([](Network& n) { n.layers[3].kind = LayerKind::input; }, "second input");
  refuses(
      [](Network& n) {
        n.layers[3].kind = LayerKind::dense;
        n.layers[3].window = {};
        n.layers[3].outputs = 2;
      },
      "follow");
  refuses([](Network& n) { n.layers[1].in_head = true; }, "behind the head");
  refuses([](Network& n) { n.layers[1].kind = LayerKind::batchnorm; }, "epsilon");
  refuses([](Network& n) { n.layers[1].window.kernel = 5; }, "5x5, stride 1");
  refuses([](Network& n) { n.layers[2].window = {}; }, "no kernel for");
  refuses([](Network& n) { n.layers[4].inputs = {1}; }, "does not read the layer before it");
  refuses([](Network& n) { n.layers[4].inputs = {3, 1}; }, "and no other");
  refuses([](Network& n) { n.layers[4].inputs.clear(); }, "does not read");
}

TEST(Network, FollowsWindowsAndInputs) {
  // What the kernels do not run yet, the list can say.
  Network net{"test", 17, 12, {}};
  append(net, {.kind = LayerKind::input, .name = "input"});
  append(net, {.kind = LayerKind::conv,
               .name = "wide",
               .outputs = 8,
               .window = {.kernel = 5, .stride = 2, .padding = 2}});
  append(net, {.kind = LayerKind::conv,
               .name = "point",
               .outputs = 6,
               .window = {.kernel = 1, .groups = 2}});
  append(net, {.kind = LayerKind::maxpool, .name = "pool", .window = {.kernel = 3, .stride = 2}});
  append(net, {.kind = LayerKind::gap, .name = "side", .inputs = {1}});
  const std::vector<Shape> shapes = output_shapes(net);
  EXPECT_EQ(shapes[1], (Shape{8, 9, 6}));
  EXPECT_EQ(shapes[2], (Shape{6, 9, 6}));
  EXPECT_EQ(shapes[3], (Shape{6, 4, 2}));
  EXPECT_EQ(shapes[4], (Shape{8, 1, 1, true}));
  const std::vector<TensorSpec> specs = tensor_specs(net);
  EXPECT_EQ(specs[0].shape, (std::vector<int64_t>{8, 3, 5, 5}));
  EXPECT_EQ(specs[2].shape, (std::vector<int64_t>{6, 4, 1, 1}));
  EXPECT_EQ(layer_flops(net)[2], 2.0 * 6 * 4 * 9 * 6);
  // The scalar reference computes them: a convolution of groups is one with zeros between them.
  const TensorMap tensors = testing::make_tensors(net, 3);
  Network whole = net;
  whole.layers.resize(3);
  Network dense = whole;
  dense.layers[2].window.groups = 1;
  TensorMap spread = tensors;
  std::vector<float> weight(6 * 8, 0);
  for (size_t k = 0; k < 6; ++k)
    for (size_t c = 0; c < 4; ++c)
      weight[k * 8 + k / 3 * 4 + c] = tensors.at("point.weight").data()[k * 4 + c];
  spread.insert_or_assign("point.weight", Tensor({6, 8, 1, 1}, std::move(weight)));
  std::vector<double> in(3 * 17 * 12);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<double>(i % 7) - 3;
  const auto a = engine::reference_forward(whole, 0, 3, tensors, in);
  const auto b = engine::reference_forward(dense, 0, 3, spread, in);
  ASSERT_EQ(a.size(), 6U * 9 * 6);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-9);
}

}  // namespace
}  // namespace graft
