// PyTorch's files, down to the values of every tensor and the VGG among them.
#include <algorithm>

#include "fuzz/fuzz.h"
#include "graft/network.h"
#include "weights/torch_file.h"
#include "weights/torch_weights.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const Network net = backbone("vgg11", 32, 32, /*include_top=*/true);
  return fuzz::expect_typed_errors([&] {
    const TorchFile file = read_torch(fuzz::bytes(data, size), "fuzz");
    for (const auto& [name, stored] : file.tensors) {
      const auto count = element_count(stored.shape);
      fuzz::require(count.has_value());
      fuzz::expect_typed_errors([&, &tensor = stored] {
        const Tensor read = tensor.read();
        fuzz::require(read.values().size() == *count && read.shape() == tensor.shape);
      });
    }
    const TorchMatcher matcher("fuzz", file.tensors);
    static_cast<void>(matcher.classes());
    static_cast<void>(matcher.left_out(net));
    static_cast<void>(matcher.read(net, 2));
  });
}
