// The head's language, and the network that comes of it.
#include "fuzz/fuzz.h"
#include "graft/network.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  return fuzz::expect_typed_errors([&] {
    const Network net = with_head(backbone("vgg-mini", 64, 64), fuzz::text(data, size), 3);
    validate(net);
    fuzz::require(output_shapes(net).back() == Shape{3, 1, 1, true});
    fuzz::require(summarize(net, freeze_plan(net, "0")).trainable > 0);
  });
}
