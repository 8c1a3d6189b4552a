#include "weights/foreign_classifier.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "support.h"

namespace graft {
namespace {

StoredTensor counting(std::vector<int64_t> shape, float from = 0) {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = from + static_cast<float>(i);
  const Tensor tensor(shape, std::move(values));
  return {shape, ElementType::f32, [tensor] { return tensor; }};
}

/// vgg-mini's layers up to a pooling, under names of somebody else's.
ForeignGraph trunk(std::string_view until, int side) {
  ForeignGraph graph;
  graph.file = "theirs";
  graph.family = "keras";
  graph.height = graph.width = side;
  const Network network = cut_after(backbone("vgg-mini", 64, 64), until);
  for (size_t i = 1; i < network.layers.size(); ++i) {
    const Layer& layer = network.layers[i];
    ForeignLayer made{.name = "their_" + layer.name,
                      .kind = layer.kind,
                      .outputs = layer.outputs,
                      .relu = layer.relu};
    for (const TensorSpec& spec : tensor_specs(network, i, i + 1))
      made.tensors.emplace(spec.name.substr(layer.name.size() + 1), counting(spec.shape));
    graph.layers.push_back(std::move(made));
  }
  return graph;
}

void add_dense(ForeignGraph& graph, int64_t inputs, int outputs, bool relu = false) {
  graph.layers.push_back(
      {.name = "their_dense",
       .kind = LayerKind::dense,
       .outputs = outputs,
       .relu = relu,
       .tensors = {{"weight", counting({outputs, inputs})}, {"bias", counting({outputs})}}});
}

TEST(ForeignClassifier, FindsTheBackboneAndNamesTheHead) {
  ForeignGraph graph = trunk("block3_pool", 64);
  graph.layers.push_back({.name = "g", .kind = LayerKind::gap});
  add_dense(graph, 64, 5, true);
  graph.layers.push_back({.name = "d", .kind = LayerKind::dropout, .rate = 0.5});
  add_dense(graph, 5, 3);
  const ForeignClassifier found = assemble(graph);
  EXPECT_EQ(found.network.backbone, "vgg-mini");
  std::vector<std::string> names;
  for (const Layer& layer : found.network.layers)
    if (layer.in_head) names.push_back(layer.name);
  EXPECT_EQ(names, (std::vector<std::string>{"gap", "fc1", "dropout1", "predictions"}));
  EXPECT_EQ(found.classes(), 3);
  EXPECT_TRUE(find_layer(found.network, "block3_pool"));
  EXPECT_FALSE(find_layer(found.network, "block4_conv1"));
}

TEST(ForeignClassifier, RowsBehindAFlattenComeInGraftsOrder) {
  ForeignGraph graph = trunk("block1_pool", 0);  // the dense layer tells the size: maps of 16x16
  graph.channels_last = true;
  graph.layers.push_back({.name = "f", .kind = LayerKind::flatten});
  constexpr int64_t kChannels = 16;
  constexpr int64_t kSide = 16;
  add_dense(graph, kChannels * kSide * kSide, 2);
  const ForeignClassifier found = assemble(graph);
  EXPECT_EQ(found.network.input_height, 32);
  EXPECT_EQ(found.size, ForeignClassifier::Size::least);
  const TensorMap tensors = found.read("theirs");
  const Tensor& weight = tensors.at("predictions.weight");
  for (const int64_t c : {0, 7, 15})
    for (const int64_t y : {0, 3, 15})
      for (const int64_t x : {0, 9, 15}) {
        const int64_t ours = (c * kSide + y) * kSide + x;
        const int64_t theirs = (y * kSide + x) * kChannels + c;
        EXPECT_EQ(weight.values()[static_cast<size_t>(ours)], static_cast<float>(theirs));
      }
  EXPECT_EQ(tensors.at("predictions.bias").values()[1], 1.0F);
}

TEST(ForeignClassifier, OneSigmoidBecomesTwoClasses) {
  ForeignGraph graph = trunk("block1_pool", 64);
  graph.layers.push_back({.name = "g", .kind = LayerKind::gap});
  add_dense(graph, 16, 1);
  const ForeignClassifier logit = assemble(graph);  // the sigmoid is outside
  EXPECT_EQ(logit.classes(), 2);
  ASSERT_EQ(logit.notes.size(), 1U);
  EXPECT_NE(logit.notes[0].find("logit of the second"), std::string::npos);
  graph.output = ForeignOutput::sigmoid;
  graph.layers.back().tensors.at("bias") = counting({1}, 7);
  const ForeignClassifier found = assemble(graph);
  ASSERT_EQ(found.classes(), 2);
  const TensorMap tensors = found.read("theirs");
  EXPECT_EQ(tensors.at("predictions.bias").values()[0], 0.0F);
  EXPECT_EQ(tensors.at("predictions.bias").values()[1], 7.0F);
  EXPECT_EQ(tensors.at("predictions.weight").values()[15], 0.0F);
  EXPECT_EQ(tensors.at("predictions.weight").values()[31], 15.0F);
}

TEST(ForeignClassifier, WhatDoesNotFitIsNamed) {
  ForeignGraph graph = trunk("block1_pool", 64);
  EXPECT_ERROR(assemble(graph), ErrorKind::input, "no head");
  graph.layers.push_back({.name = "g", .kind = LayerKind::gap});
  add_dense(graph, 17, 3);
  EXPECT_ERROR(assemble(graph), ErrorKind::input, "theirs: layer their_dense (dense) has a weight");
  graph.layers.back().tensors.at("weight") = counting({3, 16});
  graph.layers.back().tensors.erase("bias");  // a file may do without
  EXPECT_EQ(assemble(graph).read("theirs").at("predictions.bias").values()[2], 0.0F);
  graph.layers.back().tensors.erase("weight");
  EXPECT_ERROR(assemble(graph), ErrorKind::input, "has no weights");
  graph.layers.erase(graph.layers.begin());
  EXPECT_ERROR(assemble(graph), ErrorKind::input, "no VGG");
}

}  // namespace
}  // namespace graft
