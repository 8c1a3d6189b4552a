// Classifies images with a trained model, a line each.
//
//   example_classify MODEL IMAGE ...
#include <cstdio>
#include <vector>

#include "graft/classifier.h"
#include "graft/error.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: example_classify MODEL IMAGE ...\n");
    return 2;
  }
  try {
    const graft::Classifier classifier = graft::Classifier::load(argv[1]);
    std::vector<graft::Image> images;
    for (int i = 2; i < argc; ++i) images.push_back(graft::load_image(argv[i]));
    const std::vector<graft::Prediction> predictions = classifier.classify(images);
    for (size_t i = 0; i < predictions.size(); ++i) {
      const size_t best = predictions[i].best();
      std::printf("%s: %s %.4f\n", argv[i + 2], classifier.classes()[best].c_str(),
                  static_cast<double>(predictions[i].probabilities[best]));
    }
  } catch (const graft::Error& error) {
    std::fprintf(stderr, "example_classify: %s\n", error.what());
    return 1;
  }
  return 0;
}
