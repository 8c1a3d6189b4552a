// gradcam_probe MODEL PICTURE LAYER CLASS: the Grad-CAM map as JSON on stdout.
#include <fmt/format.h>

#include <cstdlib>

#include "model/gradcam.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const graft::ModelFile model = graft::read_model(graft::model_file(argv[1]));
  graft::GradCam cam(model, argv[3], 2);
  const graft::ActivationMap map =
      cam.explain(graft::load_image(argv[2]), static_cast<size_t>(std::atoi(argv[4])));
  const nlohmann::json out = {{"layer", cam.layer()},
                              {"width", map.width},
                              {"height", map.height},
                              {"values", map.values},
                              {"logits", map.logits}};
  fmt::print("{}\n", out.dump());
  return 0;
}
