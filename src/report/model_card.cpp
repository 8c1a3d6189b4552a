#include "report/model_card.h"

#include <fmt/format.h>

#include <string_view>

#include "recipe/option_values.h"
#include "weights/load.h"

namespace graft {
namespace {

constexpr const char* kImageNetImages =
    "ImageNet's: 1.28 million photos from the web, of 1,000 kinds of things; public photos "
    "that the classifier is measured on may be among them";

/// Which images the backbone's weights may come from: an image that is among them tells nothing of
/// how the classifier does on new ones.
std::string seen_by_backbone(const Provenance& provenance) {
  const std::string& source = provenance.source;
  if (source.find(", fine-tuned on") != std::string::npos)
    return "those that it was fine-tuned on, and what its weights had seen before";
  if (source.starts_with("random")) return "none: its weights were random";
  if (source.starts_with("Graft vgg-mini")) {
    const bool distilled = source.find("distilled from VGG16") != std::string::npos;
    return fmt::format(
        "those that its weights' source names, which flatter it on scenes like them{}",
        distilled ? ", and by way of its teacher, VGG16, ImageNet's" : "");
  }
  if (source.find(kBeginsAsImageNet) != std::string::npos)
    return fmt::format(
        "{}; and whatever else the file was trained on, which is none of the published ones",
        kImageNetImages);
  // Published files alone are known for what they are; others may have any name.
  if (source.starts_with("Keras VGG") || source.starts_with("torchvision VGG"))
    return kImageNetImages;
  return "not known: the file does not say what its weights were trained on";
}

}  // namespace

ModelCard model_card(const ModelMetadata& about) {
  const auto& training = about.training;
  ModelCard rows = {
      {"Task", fmt::format("one of {} labels for an image: {}", about.classes.size(),
                           fmt::join(about.classes, ", "))},
      {"Backbone", about.network.backbone},
      {"Weights from", about.provenance.source},
      {"Images that the backbone has seen", seen_by_backbone(about.provenance)},
      {"MD5 of the weights", about.provenance.md5.empty() ? "–" : about.provenance.md5},
      {"Licence of the weights", about.provenance.licence},
      {"Input",
       fmt::format(
           "{}x{} pixels, {}, {}{}", about.network.input_height, about.network.input_width,
           about.preprocessing.crop_ratio > 0 ? "cut from the centre" : "stretched",
           options::word(about.preprocessing.resampling),
           about.test_views > 1 ? "; the image and its mirror image, logits averaged" : "")}};
  for (const auto& [key, label] : {std::pair{"training_images", "Training images"},
                                   {"validation_images", "Validation images"},
                                   {"fine_tune", "Fine-tuned"},
                                   {"augment", "Augmentation"},
                                   {"precision", "Computed with"},
                                   {"epoch", "Epoch kept"},
                                   {"seed", "Seed"}})
    if (training.contains(key))
      rows.emplace_back(label, training[key] == "0" && std::string_view(key) == "fine_tune"
                                   ? "nothing: the backbone is as it was"
                               : training[key].is_string() ? training[key].get<std::string>()
                                                           : training[key].dump());
  return rows;
}

std::string model_card_text(const ModelMetadata& metadata) {
  std::string text;
  for (const auto& [heading, row] : model_card(metadata))
    text += fmt::format("{}: {}\n", heading, row);
  return text + fmt::format("Limits: {}\n", kModelLimits);
}

}  // namespace graft
