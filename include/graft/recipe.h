// How a classifier is trained: everything that decides the result, beside the images.
//
//   graft::Recipe recipe = graft::Recipe::named("default");
//   recipe.optimization.learning_rate = 1e-3;
//
// The same options as `graft train` has, with the same defaults; a recipe and the program's TOML
// files of options turn into each other. Options are called as members are, with dashes; those that
// differ have their name beside them, `so`.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "graft/image.h"
#include "graft/network.h"
#include "graft/precision.h"

#pragma GCC visibility push(default)
namespace graft {

enum class OptimizerKind {
  adam,   ///< Kingma and Ba, 2014; weight decay is part of the gradient
  adamw,  ///< Loshchilov and Hutter, 2017; weight decay is apart
  sgd,    ///< with momentum
};

/// The learning rate over a phase of training.
enum class Schedule {
  constant,
  cosine,     ///< down to 0
  one_cycle,  ///< up to the rate and down again (Smith, 2018)
};

enum class ClassWeights {
  none,
  balanced,  ///< rare classes count as much as frequent ones
};

/// How new weights are drawn; biases are zero.
enum class Initializer {
  he_normal,       ///< He et al., "Delving deep into rectifiers", 2015; the last layer with gain 1
  glorot_uniform,  ///< Glorot and Bengio, 2010: within ±sqrt(6 / (fan_in + fan_out)); Keras' own
};

/// How pixels are prepared for weights of other programs, whose files do not say it.
enum class PixelFamily {
  of_weights,       ///< as the family of the weights has it: Keras' files keras, PyTorch's torch
  keras,            ///< keras_preprocessing()
  torch,            ///< torchvision_preprocessing()
  unit,             ///< unit_preprocessing()
  torch_stretched,  ///< torchvision's mean and deviation without its crop: Resize((224, 224))
  raw,              ///< raw_preprocessing()
  symmetric,        ///< symmetric_preprocessing()
};

/// How features of the frozen prefix are stored and used.
enum class FeatureType {
  fp16,  ///< values that a half cannot hold are stored as float32 all the same
  fp32,
};

/// The input of a network in pixels; 0: what its backbone is meant for.
struct InputSize {
  int height = 0;
  int width = 0;

  bool operator==(const InputSize&) const = default;
};

struct Recipe {
  struct Model {
    std::string backbone = "vgg16";  ///< one of backbone_names()
    std::string weights;  /// "imagenet" (Keras' or else torchvision's), "keras", "torchvision",
                          /// "builtin", "none", or a
    /// file; empty: the backbone's own.
    PixelFamily preprocessing = PixelFamily::of_weights;
    /// How images are brought to the input size, where not as the weights' family has it.
    std::optional<Resampling> resampling;
    std::string until;  ///< the layer behind which it is cut; empty: its last pooling
    InputSize input;
    /// See with_head(); "keep": `weights` is a classifier's file or run, of Graft's or another
    /// program's, which training goes on from. Its backbone, cut and input size are taken, and the
    /// last layer's rows of the classes that the data has too; rows of others are new.
    std::string head = "default";
    /// Of another program's classifier with `head` keep: its classes, as class_names() reads them.
    std::string classes;
    /// See freeze_plan(); empty: what suits the backbone, see resolved().
    std::string fine_tune;
    Initializer init = Initializer::he_normal;  ///< of the head

    bool operator==(const Model&) const = default;
  } model;

  struct Data {
    double val_split = 0.15;  ///< share of the training images, where there are no others
    double test_split = 0;
    std::string exclude;  ///< what inspect() finds, to be left out: words of kExclusions, by commas
    double max_skipped = 0.01;  ///< share of the images that may be missing or unreadable
    /// A run whose training, validation and test images are this one's, too, wherever they are by
    /// now; images that it does not have are split as usual.
    std::string split_from;
    /// Images that look the same (docs/data.md) go to one side, as identical files always do.
    bool group_near_duplicates = false;

    bool operator==(const Data&) const = default;
  } data;

  struct Views {
    std::string augment = "none";  ///< see docs/augmentation.md
    /// Views of each image, drawn once, their features cached; 0: new ones in every epoch; none:
    /// what suits the augmentation.
    std::optional<int> count;
    /// `test-views`: of an image that the finished model is given; 2: the image and its mirror
    /// image, whose logits are averaged. Validation while training is of the image alone.
    int test = 1;

    bool operator==(const Views&) const = default;
  } views;

  struct Optimization {
    /// None: 8, 6 where resolved() chooses `fine-tune`.
    std::optional<int> epochs;
    /// `min-steps`: of few images as many epochs more as make so many steps of the optimiser; none:
    /// 240 where `epochs` is not given, else 0.
    std::optional<int> min_steps;
    int batch_size = 64;
    OptimizerKind optimizer = OptimizerKind::adamw;
    std::optional<double>
        learning_rate;  ///< `lr`; none: 2e-3; 1e-4 where pretrained layers train too
    Schedule schedule = Schedule::one_cycle;
    double warmup_epochs = 0;  ///< of a linear rise before constant or cosine
    double weight_decay = 0.01;
    double momentum = 0.9;  ///< of sgd
    double beta2 = 0.999;   ///< decay of adam's and adamw's mean of squared gradients
    double label_smoothing = 0.1;
    double clip_gradients = 0;  ///< largest norm of all gradients together; 0: no limit
    ClassWeights class_weights = ClassWeights::none;
    double ema = 0;  ///< decay of a moving average of the weights; 0: none
    /// Epochs without a better one before training stops; 0: never; none: 5 where the learning rate
    /// is constant, else never.
    std::optional<int> patience;
    /// Of the epochs, the first that train the head alone; none: 0, but two thirds of them where
    /// resolved() chooses `fine-tune`.
    std::optional<int> freeze_epochs;
    double head_learning_rate = 2e-3;  ///< `head-lr`: in these
    /// Learning rate of each backbone block over that of the block above it, of the last over the
    /// head's.
    double lr_decay_per_block = 1;

    bool operator==(const Optimization&) const = default;
  } optimization;

  uint64_t seed = 0;  ///< of the split, new weights, order, views and dropout
  /// What computes frozen layers and trains the others, as open_device() takes it.
  std::string device = "auto";
  FeatureType feature_type = FeatureType::fp16;  ///< `cache-dtype`
  /// Of frozen layers, whose features are cached or computed in every epoch, and of what trains:
  /// its weights and the optimiser's state are float32. plan() decides what `automatic` is.
  Precision precision = Precision::fp32;

  bool operator==(const Recipe&) const = default;

  /// "default", or one of recipe_names(). Throws Error(usage).
  static Recipe named(std::string_view name);
  /// Takes over what a file of options states (TOML, as `graft train --config` reads it). `name`
  /// stands for the text in messages. Options of the program that are not of a recipe (`output`,
  /// `val` …) are skipped. Throws Error(usage) that names line and option, also for one that there
  /// is not.
  void merge_toml(std::string_view text, std::string_view name);
  /// As such a file: every option in effect, with what is left open filled in as resolved() does.
  [[nodiscard]] std::string to_toml() const;

  /// The same with everything that is left open filled in. `fine-tune` becomes block5_conv1 where a
  /// whole VGG11 to VGG19 has pretrained weights and no learning rate is given, which would be that
  /// of the head alone; else 0. What suits depends on backbone and cut: docs/recipes.md.
  /// `images` are for training, 0: many.
  [[nodiscard]] Recipe resolved(size_t images = 0) const;
  /// This recipe being `beneath` with options `stated` (as in a file) given over it: lets go what
  /// hung on them and is not stated itself. What was the head's learning rate does not become that
  /// of pretrained layers, nor theirs a head's alone; epochs that are stated are all there are,
  /// with fewer freeze epochs among them.
  void settle(const Recipe& beneath, const std::set<std::string>& stated);
  /// Throws Error(usage) that names an option whose value is out of its range.
  void check() const;
};

/// The backbone that a recipe names, cut where it says. Throws Error(usage).
Network make_backbone(const Recipe::Model& model, bool include_top = false);

/// Says so where `fine_tune` is a number above that of the backbone's layers, which means all of
/// them; else empty.
std::string fine_tune_note(const Network& network, const std::string& fine_tune);

/// The recipes that come with Graft, beside "default".
std::vector<std::string> recipe_names();

}  // namespace graft
#pragma GCC visibility pop
