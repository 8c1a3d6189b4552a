#include "export/torch_names.h"

#include <gtest/gtest.h>

#include "export/names.h"
#include "graft/export.h"

namespace graft {
namespace {

std::vector<std::string> modules(const Network& network) {
  std::vector<std::string> out;
  for (const std::string& name : torch_modules(network))
    if (!name.empty()) out.push_back(name);
  return out;
}

/// "features.0 features.2 …" of torchvision's own lists.
std::vector<std::string> numbered(const std::string& part, const std::vector<int>& numbers) {
  std::vector<std::string> out;
  for (const int n : numbers) out.push_back(part + "." + std::to_string(n));
  return out;
}

TEST(TorchNames, BackbonesAreTorchvisions) {
  EXPECT_EQ(modules(backbone("vgg16", 224, 224)),
            numbered("features", {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28}));
  EXPECT_EQ(modules(backbone("vgg11", 64, 64)), numbered("features", {0, 3, 6, 8, 11, 13, 16, 18}));
  // Each convolution, and its BatchNorm behind it.
  EXPECT_EQ(modules(backbone("vgg11_bn", 64, 64)),
            numbered("features", {0, 1, 4, 5, 8, 9, 11, 12, 15, 16, 18, 19, 22, 23, 25, 26}));
}

std::vector<std::string> head_of(const std::string& name, int size, const std::string& head) {
  const Network base = backbone(name, size, size);
  std::vector<std::string> out = modules(with_head(base, head, 5));
  out.erase(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(modules(base).size()));
  return out;
}

TEST(TorchNames, AHeadThatIsTorchvisionsIsItsClassifier) {
  const std::vector<std::string> classifier = numbered("classifier", {0, 3, 6});
  EXPECT_EQ(head_of("vgg16", 224, "flatten dense:4096 dropout:0.5 dense:4096 dropout:0.5"),
            classifier);
  EXPECT_EQ(head_of("vgg19_bn", 224, "flatten dense:4096 dense:4096"), classifier);
  EXPECT_EQ(head_of("vgg16", 240, "flatten dense:4096 dense:4096"), classifier);  // 7x7 too
}

TEST(TorchNames, OtherHeadsAreCounted) {
  // Flatten, dense, ReLU, dropout, dense, ReLU, dense.
  EXPECT_EQ(head_of("vgg16", 224, "flatten dense:4096 dropout:0.5 dense:100"),
            numbered("head", {1, 4, 6}));
  EXPECT_EQ(head_of("vgg16", 192, "flatten dense:4096 dense:4096"), numbered("head", {1, 3, 5}));
  EXPECT_EQ(head_of("vgg-mini", 224, "flatten dense:4096 dense:4096"), numbered("head", {1, 3, 5}));
  EXPECT_EQ(head_of("vgg16", 224, "conv:8 batchnorm gap"), numbered("head", {0, 1, 4}));
  const Network cut = cut_after(backbone("vgg16", 224, 224), "block5_conv3");
  EXPECT_EQ(torch_modules(with_head(cut, "maxpool flatten dense:4096 dense:4096", 5)).back(),
            "head.6");
}

TEST(ExportNames, NoneTwice) {
  UniqueNames names;
  EXPECT_EQ(names.take("a"), "a");
  EXPECT_EQ(names.take("a_2"), "a_2");
  EXPECT_EQ(names.take("a"), "a_3");
}

TEST(ExportNames, FormatsBySuffix) {
  EXPECT_EQ(export_format("runs/a.b/m.ONNX"), ExportFormat::onnx);
  EXPECT_EQ(export_format("m.keras"), ExportFormat::keras);
  EXPECT_EQ(export_format("m.hdf5"), ExportFormat::keras_h5);
  EXPECT_EQ(export_format("m.pt"), ExportFormat::torch);
  EXPECT_FALSE(export_format("onnx"));
  EXPECT_FALSE(export_format("m.onnx.gz"));
}

}  // namespace
}  // namespace graft
