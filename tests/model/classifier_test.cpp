// Classifying through the public interface: from many threads, alone and together.
#include "graft/classifier.h"

#include <climits>
#include <thread>

#include "base/random.h"
#include "engine/tile_kernels.h"
#include "graft/explain.h"
#include "model/gradcam.h"
#include "model/model_file.h"
#include "model/request_queue.h"
#include "support.h"

namespace graft {
namespace {

ModelFile write_small_model(const std::filesystem::path& path) {
  const Network net = with_head(cut_after(backbone("vgg-mini", 48, 40), "block3_pool"),
                                "conv:20 stats dense:12", 5);
  ModelFile model{{net, {"a", "b", "c", "d", "e"}, scratch_preprocessing(), {}, {{"epoch", 1}}},
                  testing::make_tensors(net, 4)};
  write_model(path, model);
  return model;
}

std::vector<Image> make_images(int count) {
  std::vector<Image> images;
  for (int n = 0; n < count; ++n) {
    Random random(7, static_cast<uint64_t>(n));
    Image image{30 + 5 * n, 60 - n, {}};
    image.pixels.resize(static_cast<size_t>(image.width) * image.height * 3);
    for (uint8_t& pixel : image.pixels) pixel = static_cast<uint8_t>(random.uniform(0, 256));
    images.push_back(std::move(image));
  }
  return images;
}

std::vector<std::vector<float>> logits_of(const std::vector<Prediction>& predictions) {
  std::vector<std::vector<float>> out;
  for (const Prediction& p : predictions) out.push_back(p.logits);
  return out;
}

TEST(Classifier, AnImageIsWhatItIsWhoeverStandsBesideIt) {
  const testing::TemporaryFolder folder;
  write_small_model(folder.path() / "model.safetensors");
  const std::vector<Image> images = make_images(21);
  std::vector<std::vector<float>> want;
  for (const int sessions : {1, 3}) {
    const Classifier classifier =
        Classifier::load(folder.path(), {.threads = 3, .max_batch = 6, .sessions = sessions});
    const auto together = logits_of(classifier.classify(images));
    if (want.empty()) want = together;
    EXPECT_EQ(together, want) << sessions;
    // Eight threads, with one image and with several at once.
    std::vector<std::thread> callers;
    for (size_t c = 0; c < 8; ++c)
      callers.emplace_back([&, c] {
        for (size_t i = 0; i < images.size(); ++i) {
          const size_t at = (i + c) % images.size();
          EXPECT_EQ(classifier.classify(images[at]).logits, want[at]);
        }
        const auto some = std::span(images).subspan(c, 9);
        EXPECT_EQ(logits_of(classifier.classify(some)),
                  std::vector(want.begin() + static_cast<long>(c),
                              want.begin() + static_cast<long>(c) + 9));
      });
    for (std::thread& caller : callers) caller.join();
  }
}

TEST(Classifier, AveragesTheLogitsOfAnImageAndItsMirrorImage) {
  const testing::TemporaryFolder folder;
  ModelFile model = write_small_model(folder.path() / "model.safetensors");
  model.metadata.test_views = 2;
  write_model(folder.path() / "both.safetensors", model);
  const Classifier one = Classifier::load(folder.path(), {.threads = 2, .max_batch = 4});
  const Classifier both =
      Classifier::load(folder.path() / "both.safetensors", {.threads = 2, .max_batch = 4});
  const Classifier asked = Classifier::load(folder.path(), {.threads = 2, .views = 2});
  EXPECT_EQ(one.views(), 1);
  EXPECT_EQ(both.views(), 2);
  EXPECT_GT(both.estimate(4), one.estimate(4));
  // At the network's size already, so that fitting does nothing.
  const Network& net = one.info().network;
  std::vector<Image> images;
  std::vector<Image> mirrored;
  for (const Image& image : make_images(9)) {
    images.push_back(resize(image, net.input_width, net.input_height, Resampling::bilinear));
    mirrored.push_back(images.back());
    for (int y = 0; y < net.input_height; ++y)
      for (int x = 0; x < net.input_width; ++x)
        for (int c = 0; c < 3; ++c)
          mirrored.back().pixels[(y * net.input_width + x) * 3 + c] =
              images.back().pixels[((y + 1) * net.input_width - 1 - x) * 3 + c];
  }
  const auto a = logits_of(one.classify(images));
  const auto b = logits_of(one.classify(mirrored));
  EXPECT_NE(a, b);
  auto want = a;
  for (size_t i = 0; i < want.size(); ++i)
    for (size_t c = 0; c < want[i].size(); ++c) want[i][c] = (a[i][c] + b[i][c]) / 2;
  EXPECT_EQ(logits_of(both.classify(images)), want);
  EXPECT_EQ(logits_of(asked.classify(images)), want);
  const Classifier first =
      Classifier::load(folder.path() / "both.safetensors", {.threads = 2, .views = 1});
  EXPECT_EQ(logits_of(first.classify(images)), a);
  Explainer explainer = Explainer::load(folder.path() / "both.safetensors");
  EXPECT_EQ(explainer.explain(images[3]).logits, want[3]);
  EXPECT_EQ(Explainer::load(folder.path(), "", {}, 2).explain(images[3]).logits, want[3]);
  EXPECT_ERROR(static_cast<void>(Explainer::load(folder.path(), "", {}, 3)), ErrorKind::usage,
               "views are 3");
}

TEST(Classifier, ComputesInThePrecisionThatItWasLoadedWith) {
  const testing::TemporaryFolder folder;
  write_small_model(folder.path() / "model.safetensors");
  const Classifier exact = Classifier::load(folder.path(), {.threads = 2});
  EXPECT_EQ(exact.precision(), Precision::fp32);
  EXPECT_EQ(Classifier::load(folder.path(), {.threads = 1, .precision = Precision::automatic})
                .precision(),
            resolve_precision(Precision::automatic));
  if (engine::tile_kernels(Precision::bf16) == nullptr) {
    // Before the file is looked at.
    EXPECT_ERROR(
        static_cast<void>(Classifier::load(folder.path() / "none", {.precision = Precision::bf16})),
        ErrorKind::usage, "`precision` bf16 needs a processor with");
    EXPECT_ERROR(
        static_cast<void>(Explainer::load(folder.path() / "none", "", {}, 0, Precision::bf16)),
        ErrorKind::usage, "`precision`");
    GTEST_SKIP() << "bf16 is refused on this processor: its answers were not compared";
  }
  const std::vector<Image> images = make_images(13);
  const auto want = exact.classify(images);
  std::vector<std::vector<float>> first;
  for (const int sessions : {1, 3}) {
    const Classifier rounded = Classifier::load(
        folder.path(),
        {.threads = 3, .max_batch = 4, .sessions = sessions, .precision = Precision::bf16});
    EXPECT_EQ(rounded.precision(), Precision::bf16);
    const auto got = rounded.classify(images);
    if (first.empty()) first = logits_of(got);
    // Alone, together and from several threads: no engine of the queue computes otherwise.
    EXPECT_EQ(logits_of(got), first);
    std::vector<std::thread> callers;
    for (size_t c = 0; c < 4; ++c)
      callers.emplace_back([&, c] {
        for (size_t i = c; i < images.size(); i += 2)
          EXPECT_EQ(rounded.classify(images[i]).logits, first[i]);
      });
    for (std::thread& caller : callers) caller.join();
    EXPECT_NE(first, logits_of(want));
    for (size_t i = 0; i < images.size(); ++i)
      for (size_t c = 0; c < want[i].probabilities.size(); ++c)
        EXPECT_NEAR(got[i].probabilities[c], want[i].probabilities[c], 0.05F) << i;
  }
  Explainer last = Explainer::load(folder.path(), "", {}, 0, Precision::bf16);
  EXPECT_EQ(last.explain(images[3]).logits, first[3]);
  Explainer lower = Explainer::load(folder.path(), "block2_conv1", {}, 0, Precision::bf16);
  const Prediction near = to_prediction(lower.explain(images[3]).logits);
  for (size_t c = 0; c < near.probabilities.size(); ++c)
    EXPECT_NEAR(near.probabilities[c], want[3].probabilities[c], 0.05F);
}

TEST(Classifier, RefusesWhatWouldBeReadOrWrittenBeyondItsEnd) {
  const testing::TemporaryFolder folder;
  write_small_model(folder.path() / "model.safetensors");
  const Classifier classifier = Classifier::load(folder.path(), {.threads = 1});
  const size_t inputs = classifier.input_elements();
  std::vector<float> in(2 * inputs);
  std::vector<float> out(2 * classifier.classes().size());
  classifier.run(in, 2, out);
  EXPECT_ERROR(classifier.run(in, 3, out), ErrorKind::usage, "3 images");
  EXPECT_ERROR(classifier.run(in, INT_MAX, out), ErrorKind::usage, "images");
  EXPECT_ERROR(classifier.run(in, -1, out), ErrorKind::usage, "-1 images");
  EXPECT_ERROR(classifier.run(in, 2, std::span(out).first(1)), ErrorKind::usage, "logits");
  EXPECT_ERROR(classifier.run({}, 1, out), ErrorKind::usage, "inputs");
  EXPECT_ERROR(static_cast<void>(classifier.classify(Image{100, 100, {1, 2, 3}})), ErrorKind::usage,
               "3 bytes a pixel");
  EXPECT_ERROR(classify_files(classifier, {}, nullptr, nullptr), ErrorKind::usage, "callback");
  for (const ClassifierOptions& wrong :
       {ClassifierOptions{.threads = -1}, ClassifierOptions{.threads = 1 << 20},
        ClassifierOptions{.max_batch = 0}, ClassifierOptions{.sessions = -1},
        ClassifierOptions{.views = 3}, ClassifierOptions{.views = -1}})
    EXPECT_ERROR(static_cast<void>(Classifier::load(folder.path(), wrong)), ErrorKind::usage, "");
}

TEST(Classifier, ASecondSessionTakesBuffersOnly) {
  const testing::TemporaryFolder folder;
  write_small_model(folder.path() / "model.safetensors");
  const auto memory = [&](int sessions) {
    return Classifier::load(folder.path(), {.threads = 4, .sessions = sessions}).prepare(8);
  };
  EXPECT_EQ(memory(2).weights, memory(1).weights);
  EXPECT_GT(memory(2).buffers, memory(1).buffers);
  EXPECT_LT(memory(2).buffers, 3 * memory(1).buffers);
}

TEST(Classifier, TellsWhatItIs) {
  const testing::TemporaryFolder folder;
  const ModelFile model = write_small_model(folder.path() / "model.safetensors");
  const Classifier classifier = Classifier::load(folder.path() / "model.safetensors");
  EXPECT_EQ(classifier.info().network.layers.size(), model.metadata.network.layers.size());
  EXPECT_EQ(classifier.info().training, R"({"epoch":1})");
  EXPECT_EQ(classifier.classes(), model.metadata.classes);
  EXPECT_EQ(classifier.classify(std::span<const Image>()).size(), 0U);
}

TEST(Classifier, LowLatencyIsTheSameButForRounding) {
  const testing::TemporaryFolder folder;
  write_small_model(folder.path() / "model.safetensors");
  const Classifier usual = Classifier::load(folder.path());
  const Classifier quick = Classifier::load(folder.path(), {.low_latency = true});
  for (const Image& image : make_images(3)) {
    const Prediction a = usual.classify(image);
    const Prediction b = quick.classify(image);
    for (size_t i = 0; i < a.logits.size(); ++i) EXPECT_NEAR(a.logits[i], b.logits[i], 1e-3);
  }
}

TEST(Classifier, AnExplanationComesWithTheSameAnswer) {
  const testing::TemporaryFolder folder;
  const ModelFile model = write_small_model(folder.path() / "model.safetensors");
  const Classifier classifier = Classifier::load(folder.path());
  for (const char* layer : {"", "block2_conv1", "block3_pool"}) {
    GradCam cam(model, layer, 2);
    for (const Image& image : make_images(2))
      EXPECT_EQ(cam.explain(image).logits, classifier.classify(image).logits) << layer;
  }
}

TEST(RequestQueue, CutsWhatIsLargerThanABatch) {
  const Network net = with_head(cut_after(backbone("vgg-mini", 32, 32), "block1_pool"), "gap", 2);
  std::vector<std::unique_ptr<engine::Executor>> engines;
  engines.push_back(engine::make_executor(nullptr, net, 0, net.layers.size(),
                                          testing::make_tensors(net, 1),
                                          engine::EngineOptions{1, 4}));
  RequestQueue queue(std::move(engines));
  const std::vector<float> inputs(size_t{3} * 32 * 32 * 9, 0.5F);
  std::vector<float> outputs(18);
  queue.run(inputs, 9, outputs);  // more than a batch
  for (size_t i = 2; i < 18; ++i) EXPECT_EQ(outputs[i], outputs[i % 2]);
}

}  // namespace
}  // namespace graft
