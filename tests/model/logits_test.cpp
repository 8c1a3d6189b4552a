#include "model/logits.h"

#include "graft/classifier.h"
#include "graft/evaluate.h"
#include "graft/image.h"
#include "model/model_file.h"
#include "support.h"
#include "weights/load.h"

namespace graft {
namespace {

/// A model whose weights are finite and whose answers are not.
/// `everywhere`: else in the convolutions alone, whose infinities must reach the end.
void write_overflowing_model(const std::filesystem::path& path, bool everywhere) {
  const Network net = with_head(cut_after(backbone("vgg-mini", 32, 32), "block1_pool"), "gap", 3);
  TensorMap tensors = random_tensors(net, 0, net.layers.size(), 4);
  for (const TensorSpec& spec : tensor_specs(net)) {
    if (spec.shape.size() < (everywhere ? 2 : 4)) continue;
    Tensor& tensor = tensors.at(spec.name);
    std::vector<float> values(tensor.values().begin(), tensor.values().end());
    for (float& value : values) value *= 1e20F;
    tensor = Tensor(spec.shape, std::move(values));
  }
  write_model(path, {{net, {"a", "b", "c"}, scratch_preprocessing(), {}, {{"epoch", 1}}}, tensors});
}

TEST(Logits, AModelThatOverflowsIsAnError) {
  for (const bool everywhere : {true, false}) {
    const testing::TemporaryFolder folder;
    write_overflowing_model(folder.path() / "model.safetensors", everywhere);
    const Classifier classifier = Classifier::load(folder.path());
    const Image grey{32, 32, std::vector<uint8_t>(32 * 32 * 3, 120)};
    EXPECT_ERROR(static_cast<void>(classifier.classify(grey)), ErrorKind::input, "finite");

    const std::vector<std::byte> png = encode_png(grey);
    const auto image = folder.path() / "grey.png";
    testing::write(image, {reinterpret_cast<const char*>(png.data()), png.size()});
    Dataset dataset;
    dataset.root = folder.path();
    dataset.classes = classifier.classes();
    dataset.samples = {{image, 0, Split::test}};
    EXPECT_ERROR(static_cast<void>(evaluate(classifier, dataset)), ErrorKind::input,
                 "grey.png: the model answers with");
  }
}

}  // namespace
}  // namespace graft
