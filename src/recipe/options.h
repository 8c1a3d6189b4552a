// The options of a recipe, each once: from this table come the flags of the command line, their
// help, files of options both ways, what a model records of its training, and what a run that is
// resumed must agree in.
#pragma once

#include <string_view>

#include "graft/device.h"
#include "graft/image.h"
#include "recipe/option_values.h"

namespace graft::options {

/// Where the help shows an option, and in which order.
enum class OptionGroup { common, data, model, augmentation, training, machine, run };

struct Option {
  std::string_view name;   ///< "label-smoothing": a flag behind "--", a key in files
  std::string_view value;  ///< what stands for the value in the help
  std::string_view help;
  OptionGroup group = OptionGroup::common;
  bool renewable = false;   ///< a run that is resumed may change it
  bool has_default = true;  ///< the help shows it
  char letter = 0;          ///< of a short flag; 0: none
};

/// Checks that throw Error(usage).
void check_backbone(const std::string& text);
void check_head(const std::string& text);
void check_augmentation(const std::string& text);
void check_exclusions(const std::string& text);
std::vector<std::string> exclusion_words();
/// A backbone's name as Graft writes it, for the ways that others write it: "VGG16", "VGG-16",
/// "vgg16bn" are vgg16 and vgg16_bn. Other texts stay as they are.
std::string backbone_name(const std::string& typed);

/// Calls `visit(option, member, what)` for each option that names a backbone and its input.
template <typename Visitor>
void visit_backbone(Visitor&& visit, Recipe::Model& m) {
  using G = OptionGroup;
  visit({"backbone", "NAME",
         "vgg11, vgg13, vgg16, vgg19, each also with BatchNorm as in vgg16_bn, or vgg-mini",
         G::common},
        m.backbone, Text{check_backbone, backbone_name, backbone_names});
  visit({"weights", "WEIGHTS",
         "'imagenet' (from the cache, or downloaded: Keras' weights, or else torchvision's), "
         "'keras', "
         "'torchvision', 'builtin' (vgg-mini's, inside this program), "
         "a Keras .h5 or .keras, PyTorch .pth, safetensors or ONNX file, a Graft model or run, or "
         "'none' "
         "for random ones (default: imagenet; vgg-mini builtin)",
         G::common},
        m.weights, PathText{[] {
          return std::vector<std::string>{"imagenet", "keras", "torchvision", "builtin", "none"};
        }});
  visit({"preprocessing", "FAMILY",
         "How pixels are prepared for weights of another program: keras, torch, torch-stretched "
         "(without its centre crop), unit (RGB / 255), symmetric (RGB / 127.5 - 1), raw (RGB 0 to "
         "255), or 'weights': as is usual where they come from",
         G::model},
        m.preprocessing, Word{});
  visit({"resampling", "FILTER",
         "How images are brought to the input size: nearest, bilinear, bilinear-noaa (not "
         "antialiased) or bicubic (default: as the weights' preprocessing has it)",
         G::model},
        m.resampling, Word{});
  visit({"input-size", "N", "Input size in pixels, N or HEIGHTxWIDTH (default: 224; vgg-mini 112)",
         G::common},
        m.input, Extent{});
  visit({"until", "LAYER", "Cut the backbone behind this layer (default: its last pooling)",
         G::model},
        m.until, Text{});
}

/// The same for those that say what stands on the backbone, and what of it is trained.
template <typename Visitor>
void visit_head(Visitor&& visit, Recipe::Model& m) {
  using G = OptionGroup;
  visit({"head", "LAYERS",
         "New layers above the cut: conv:N maxpool gap gmp stats batchnorm flatten dense:N "
         "dropout:P; the last Dense to the classes is implied; or 'keep': go on with the head of "
         "the classifier that `weights` names",
         G::model},
        m.head, Text{});
  visit({"fine-tune", "N|LAYER|all",
         "Backbone layers to train too: 0, the last N as Keras counts, the first one's name, or "
         "'all' (default: from block5_conv1 on, at the end, where a whole VGG11 to VGG19 has "
         "pretrained weights and no --lr is given; else 0)",
         G::common},
        m.fine_tune, Text{nullptr, nullptr, [] { return std::vector<std::string>{"all"}; }});
}

/// All options of a recipe.
template <typename Visitor>
void visit_options(Visitor&& visit, Recipe& r) {
  using G = OptionGroup;
  auto& o = r.optimization;
  constexpr uint64_t kMostEpochs = 100'000;
  constexpr Number kRate{1e-12, 1e3};
  visit_backbone(visit, r.model);
  visit_head(visit, r.model);
  visit({"classes", "NAMES",
         "For `head` keep with another program's classifier: its classes in the order of its "
         "outputs, "
         "'A,B,C', or a text file with one a line",
         G::model},
        r.model.classes, Text{});
  visit({"epochs", "N",
         "Passes over the training images (default: 8; 6 where fine-tuning is the default; more of "
         "few images, for 240 "
         "steps)",
         G::common, true},
        o.epochs, WholeNumber{1, kMostEpochs});
  visit({"min-steps", "N",
         "Of few images as many epochs more as make N steps of the optimiser (default: 240 where "
         "`epochs` is not given, else 0)",
         G::training},
        o.min_steps, WholeNumber{0, kMostEpochs});
  visit({"batch-size", "N", "Images per optimiser step", G::common}, o.batch_size,
        WholeNumber{1, 65'536});
  visit({"lr", "F", "Learning rate (default: 2e-3; 1e-4 where pretrained layers train too)",
         G::common},
        o.learning_rate, kRate);
  visit({"augment", "WORDS",
         "Random variants of the training images: none, light, or words such as 'rotate:90 "
         "shift:0.5 brightness:0.1-0.7 hflip vflip' (docs/augmentation.md)",
         G::common},
        r.views.augment, Text{check_augmentation});
  visit({"seed", "N", "For the split, new weights, order and dropout", G::common}, r.seed,
        WholeNumber{0, UINT64_MAX});
  visit({"val-split", "F",
         "Share of the training images set aside for validation, where there are none", G::data},
        r.data.val_split, Number{0.01, 0.9});
  visit({"test-split", "F", "Share of the training images set aside as test images (default: none)",
         G::data},
        r.data.test_split, Number{0, 0.9});
  visit({"split-from", "RUN",
         "A run whose split is taken over, image by image; those that it does not have are split "
         "as usual",
         G::data, true},
        r.data.split_from, PathText{});
  visit({"group-near-duplicates", "",
         "Images that look the same stay on one side of the split, as identical files always do; "
         "reads every image once more",
         G::data},
        r.data.group_near_duplicates, Flag{});
  visit({"exclude", "WORDS",
         "Images to leave out, as 'graft check' finds them: corrupt, duplicates, near-duplicates, "
         "conflicts, leaks, tiny, extreme-aspect, greyscale",
         G::data},
        r.data.exclude, Text{check_exclusions, nullptr, exclusion_words});
  visit({"max-skipped", "SHARE",
         "Share of the images that may be missing or unreadable; more is an error", G::data, true},
        r.data.max_skipped, Number{0, 1});
  visit({"views", "K",
         "Views drawn of each image, once, their features cached; 0: new ones in every epoch, not "
         "cached (default: 4, or the flips there are; 0 where nothing is frozen)",
         G::augmentation},
        r.views.count, WholeNumber{0, 1000});
  visit({"test-views", "K",
         "Views of each image that the finished model looks at; 2: the image and its mirror image, "
         "logits averaged, in twice the time",
         G::augmentation},
        r.views.test, WholeNumber{1, kMostTestViews});
  visit({"optimizer", "NAME", "adam, adamw or sgd", G::training}, o.optimizer, Word{});
  visit({"schedule", "NAME",
         "The learning rate over the run: constant, cosine (down to 0) or one-cycle", G::training},
        o.schedule, Word{});
  visit({"warmup-epochs", "F", "Epochs in which the learning rate rises to `lr` (constant, cosine)",
         G::training},
        o.warmup_epochs, Number{0, 1000});
  visit({"freeze-epochs", "E",
         "Of the epochs, the first that train the head alone, before `fine-tune` (default: 0; two "
         "thirds where fine-tuning is the default)",
         G::training},
        o.freeze_epochs, WholeNumber{0, kMostEpochs});
  visit({"head-lr", "F", "Learning rate of the freeze epochs", G::training}, o.head_learning_rate,
        kRate);
  visit({"lr-decay-per-block", "F",
         "Learning rate of the backbone's last block over the head's, and of each block over the "
         "next",
         G::training},
        o.lr_decay_per_block, Number{0, 1});
  visit({"ema", "F",
         "Decay of a moving average of the weights, which is then what is validated and saved, as "
         "in 0.999; 0: none",
         G::training},
        o.ema, Number{0, 0.99999});
  visit({"weight-decay", "F", "Decay of the weights (adamw: decoupled)", G::training},
        o.weight_decay, Number{0, 10});
  visit({"momentum", "F", "Momentum of sgd", G::training}, o.momentum, Number{0, 0.9999});
  visit({"beta2", "F", "Decay of adam's mean of squared gradients; less suits short runs",
         G::training},
        o.beta2, Number{0.5, 0.999999});
  visit(
      {"label-smoothing", "F", "Share of each target spread evenly over all classes", G::training},
      o.label_smoothing, Number{0, 0.999});
  visit({"clip-gradients", "F", "Largest norm of all gradients together; 0: no limit", G::training},
        o.clip_gradients, Number{0, 1e9});
  visit({"class-weights", "NAME", "balanced: rare classes count as much as frequent ones",
         G::training},
        o.class_weights, Word{});
  visit({"patience", "N",
         "Stop after this many epochs without a better validation accuracy; 0: never (default: 5; "
         "0 with one-cycle or cosine, which are best at their end)",
         G::training, true},
        o.patience, WholeNumber{0, kMostEpochs});
  visit({"init", "NAME", "How the head's weights start: he-normal or glorot-uniform", G::training},
        r.model.init, Word{});
  visit({"device", "NAME",
         "What computes frozen layers and trains the others: cpu; cuda or cuda:N, a GPU; auto, a "
         "GPU where there is one; torch-cpu, LibTorch on the processor",
         G::machine, true},
        r.device, Text{check_device, nullptr, device_names});
  visit({"cache-dtype", "TYPE",
         "How features of the frozen prefix are stored in the cache: fp16 or fp32", G::machine},
        r.feature_type, Word{});
  visit(
      {"precision", "TYPE",
       "What convolutions and large dense layers are computed with: fp32; bf16 (AMX, AVX512_BF16, "
       "a GPU); or auto, bf16 where the processor is fast at it, and on a GPU that `device` names",
       G::machine},
      r.precision, Word{});
}

}  // namespace graft::options
