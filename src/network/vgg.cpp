// The VGG family (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
// Recognition", 2014, table 1), stated once.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/fail.h"
#include "base/words.h"
#include "graft/network.h"

namespace graft {
namespace {

constexpr int kMinimumInput = 32;  // five poolings leave one pixel
constexpr int kTopUnits = 4096;
constexpr int kImageNetClasses = 1000;
// torchvision's BatchNorm default, with which the published _bn weights were trained.
constexpr double kTorchEpsilon = 1e-5;

struct Family {
  const char* name;
  std::array<int, 5> convolutions;  // in each block
  std::array<int, 5> channels;      // of each block
  int input_size;
};

constexpr std::array<int, 5> kVggChannels = {64, 128, 256, 512, 512};

constexpr std::array<Family, 5> kFamilies = {{
    {"vgg11", {1, 1, 2, 2, 2}, kVggChannels, 224},
    {"vgg13", {2, 2, 2, 2, 2}, kVggChannels, 224},
    {"vgg16", {2, 2, 3, 3, 3}, kVggChannels, 224},
    {"vgg19", {2, 2, 4, 4, 4}, kVggChannels, 224},
    // Narrow, for processors and for weights that travel inside the program: docs/vgg-mini.md.
    {"vgg-mini", {2, 2, 2, 2, 2}, {16, 32, 64, 128, 160}, 112},
}};

const Family& find_family(std::string_view name, bool& batchnorm) {
  for (const Family& family : kFamilies) {
    batchnorm = name == std::string(family.name) + "_bn";
    if (batchnorm || name == family.name) return family;
  }
  fail(ErrorKind::usage, "unknown backbone '{}'{}; choose one of: {}", clipped(name),
       did_you_mean(name, backbone_names()), fmt::join(backbone_names(), ", "));
}

}  // namespace

std::vector<std::string> backbone_names() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) {
    names.emplace_back(family.name);
    names.push_back(std::string(family.name) + "_bn");
  }
  return names;
}

int default_input_size(std::string_view backbone) {
  bool batchnorm = false;
  return find_family(backbone, batchnorm).input_size;
}

Network backbone(std::string_view name, int height, int width, bool include_top) {
  bool batchnorm = false;
  const Family& family = find_family(name, batchnorm);
  if (height < kMinimumInput || width < kMinimumInput)
    fail(ErrorKind::usage, "input size {}x{} is too small for {}; the least is {}x{}", height,
         width, name, kMinimumInput, kMinimumInput);
  Network net{std::string(name), height, width, {}};
  append(net, {.kind = LayerKind::input, .name = "input"});
  for (size_t block = 0; block < family.channels.size(); ++block) {
    for (int i = 1; i <= family.convolutions.at(block); ++i) {
      const std::string conv = fmt::format("block{}_conv{}", block + 1, i);
      append(net, {.kind = LayerKind::conv,
                   .name = conv,
                   .outputs = family.channels.at(block),
                   .relu = !batchnorm});
      if (batchnorm)
        append(net, {.kind = LayerKind::batchnorm,
                     .name = conv + "_bn",
                     .epsilon = kTorchEpsilon,
                     .relu = true});
    }
    append(net, {.kind = LayerKind::maxpool, .name = fmt::format("block{}_pool", block + 1)});
  }
  if (include_top) {
    append(net, {.kind = LayerKind::flatten, .name = "flatten"});
    append(net, {.kind = LayerKind::dense, .name = "fc1", .outputs = kTopUnits, .relu = true});
    append(net, {.kind = LayerKind::dense, .name = "fc2", .outputs = kTopUnits, .relu = true});
    append(net, {.kind = LayerKind::dense, .name = "predictions", .outputs = kImageNetClasses});
  }
  return net;
}

}  // namespace graft
