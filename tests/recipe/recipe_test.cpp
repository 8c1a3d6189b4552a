// Recipes: the option table both ways.
#include "graft/recipe.h"

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "recipe/options_text.h"
#include "support.h"

namespace graft {
namespace {

/// Gives each option a value that is not its default.
struct Changer {
  template <typename T, typename What>
  void operator()(const options::Option& option, T& member, const What& what) const {
    for (const char* text : {"1",       "0.5",         "7",
                             "2",       "none",        "balanced",
                             "sgd",     "cosine",      "glorot-uniform",
                             "cpu",     "fp32",        "bf16",
                             "vgg19",   "96x128",      "duplicates",
                             "hflip",   "block3_pool", "gap",
                             "all",     "0.25",        "unit",
                             "bicubic", "true"}) {
      T changed{};
      try {
        options::read_value(text, changed, what);
      } catch (const Error&) {
        continue;
      }
      if (options::value_text(changed) == options::value_text(member)) continue;
      member = changed;
      return;
    }
    ADD_FAILURE() << "no other value for " << option.name;
  }
};

struct Names {
  std::vector<std::string>& names;
  template <typename T, typename What>
  void operator()(const options::Option& option, T&, const What&) const {
    names.emplace_back(option.name);
  }
};

TEST(Recipe, EveryOptionComesBackFromItsFile) {
  Recipe recipe;
  options::visit_options(Changer{}, recipe);
  recipe.model.weights = "none";
  Recipe read;
  read.merge_toml(recipe.to_toml(), "text");
  EXPECT_EQ(read.to_toml(), recipe.to_toml());
  nlohmann::json one = nlohmann::json::object();
  nlohmann::json other = one;
  options::visit_options(options::OptionRecorder{one}, recipe);
  options::visit_options(options::OptionRecorder{other}, read);
  EXPECT_EQ(one, other);
  EXPECT_EQ(one["label_smoothing"], recipe.optimization.label_smoothing);
  EXPECT_EQ(one["optimizer"], "sgd");
  EXPECT_FALSE(one.contains("weights")) << "paths are nobody's business";
  nlohmann::json fixed = nlohmann::json::object();
  options::visit_options(options::OptionRecorder{fixed, false}, recipe);
  EXPECT_TRUE(fixed.contains("seed"));
  EXPECT_FALSE(fixed.contains("epochs"));
}

TEST(Recipe, UnknownOptionsOfAFileAreErrors) {
  Recipe recipe;
  EXPECT_ERROR(recipe.merge_toml("epoch = 3\n", "mine.toml"), ErrorKind::usage,
               "mine.toml:1: unknown key 'epoch' (did you mean epochs?)");
  EXPECT_ERROR(recipe.merge_toml("learning_rate = 1e-3\n", "mine.toml"), ErrorKind::usage,
               "mine.toml:1: unknown key 'learning_rate' (did you mean lr?)");
  EXPECT_ERROR(recipe.merge_toml("recipe = 'notebook'\n", "mine.toml"), ErrorKind::usage, "recipe");
  // Of the program, not of a recipe.
  recipe.merge_toml("output = 'runs/a'\nno-report = true\nval = 'v'\n", "mine.toml");
  EXPECT_EQ(recipe, Recipe());
}

TEST(Recipe, PrecisionIsAnOptionLikeAnyOther) {
  Recipe recipe;
  EXPECT_EQ(recipe.precision, Precision::fp32);
  recipe.merge_toml("precision = 'auto'\n", "mine.toml");
  EXPECT_EQ(recipe.precision, Precision::automatic);
  EXPECT_EQ(recipe.resolved().precision, Precision::automatic) << "no machine is at hand here";
  recipe.merge_toml("precision = 'bf16'\n", "mine.toml");
  nlohmann::json record = nlohmann::json::object();
  options::visit_options(options::OptionRecorder{record, /*renewable=*/false}, recipe);
  EXPECT_EQ(record["precision"], "bf16");
  EXPECT_ERROR(recipe.merge_toml("precision = 'fp16'\n", "mine.toml"), ErrorKind::usage,
               "mine.toml:1: `precision`: 'fp16' is none of fp32, bf16, auto");
  recipe.precision = static_cast<Precision>(7);
  EXPECT_ERROR(recipe.check(), ErrorKind::usage, "7 is the number of no value");
}

TEST(Recipe, AFileIsTakenWholeOrNotAtAll) {
  Recipe recipe;
  EXPECT_ERROR(recipe.merge_toml("epochs = 77\nlr = 'x'\n", "mine.toml"), ErrorKind::usage, "lr");
  EXPECT_EQ(recipe, Recipe());
}

TEST(Recipe, IsTheSameFromItsFileOnceItIsResolved) {
  const Recipe recipe = Recipe::named("notebook").resolved();
  Recipe again;
  again.merge_toml(recipe.to_toml(), "again");
  EXPECT_EQ(again, recipe);
  again.seed = 5;
  EXPECT_NE(again, recipe);
}

TEST(Recipe, NamesAreUnique) {
  Recipe recipe;
  std::vector<std::string> names;
  options::visit_options(Names{names}, recipe);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
}

TEST(Recipe, ThoseThatComeWithGraft) {
  EXPECT_EQ(Recipe::named("default").to_toml(), Recipe().to_toml());
  const Recipe notebook = Recipe::named("notebook");
  EXPECT_EQ(notebook.model.head, "flatten dense:4096 dense:1072 dropout:0.2");
  EXPECT_EQ(notebook.model.init, Initializer::glorot_uniform);
  EXPECT_EQ(notebook.optimization.optimizer, OptimizerKind::adam);
  EXPECT_EQ(notebook.optimization.patience, 5);
  for (const std::string& name : recipe_names()) Recipe::named(name).check();
  EXPECT_ERROR(Recipe::named("notebok"), ErrorKind::usage, "did you mean notebook");
}

TEST(Recipe, FillsInWhatIsLeftOpen) {
  Recipe recipe;
  recipe.model.fine_tune = "0";
  EXPECT_EQ(recipe.resolved().optimization.learning_rate, 2e-3);
  EXPECT_EQ(recipe.resolved().optimization.patience, 0);
  EXPECT_EQ(recipe.resolved().model.weights, "imagenet");
  recipe.model.fine_tune = "2";
  recipe.optimization.schedule = Schedule::constant;
  recipe.model.backbone = "vgg-mini";
  EXPECT_EQ(recipe.resolved().optimization.learning_rate, 1e-4);
  EXPECT_EQ(recipe.resolved().optimization.patience, 5);
  EXPECT_EQ(recipe.resolved().model.weights, "builtin");
  EXPECT_EQ(recipe.resolved().model.input, (InputSize{112, 112}));
  recipe.model.weights = "none";
  EXPECT_EQ(recipe.resolved().optimization.learning_rate, 2e-3);
}

TEST(Recipe, FineTunesWholePretrainedTrunksUnlessToldOtherwise) {
  const auto tuned = [](const std::function<void(Recipe&)>& change) {
    Recipe recipe;
    change(recipe);
    recipe = recipe.resolved();
    EXPECT_EQ(recipe.model.fine_tune != "0", *recipe.optimization.freeze_epochs > 0);
    return recipe.model.fine_tune;
  };
  EXPECT_EQ(tuned([](Recipe&) {}), "block5_conv1");
  EXPECT_EQ(tuned([](Recipe& r) { r.model.backbone = "vgg19_bn"; }), "block5_conv1");
  EXPECT_EQ(tuned([](Recipe& r) { r.model.until = "block5_pool"; }), "block5_conv1");
  EXPECT_EQ(tuned([](Recipe& r) { r.model.weights = "/somewhere/vgg16.h5"; }), "block5_conv1");
  EXPECT_EQ(tuned([](Recipe& r) { r.model.fine_tune = "0"; }), "0");
  EXPECT_EQ(tuned([](Recipe& r) { r.model.until = "block4_pool"; }), "0");
  EXPECT_EQ(tuned([](Recipe& r) { r.model.backbone = "vgg-mini"; }), "0");
  EXPECT_EQ(tuned([](Recipe& r) { r.model.weights = "none"; }), "0");
  EXPECT_EQ(tuned([](Recipe& r) { r.optimization.learning_rate = 1e-3; }), "0");
  EXPECT_EQ(tuned([](Recipe& r) { r.optimization.epochs = 1; }), "0");
  for (const char* name : {"notebook", "scratch", "pretrain"}) {
    const Recipe recipe = Recipe::named(name).resolved();
    EXPECT_EQ(*recipe.optimization.freeze_epochs, 0) << name;
  }
}

TEST(Recipe, FewImagesTakeMoreEpochs) {
  const Recipe::Optimization many = Recipe().resolved(8000).optimization;
  EXPECT_EQ(many.epochs, 6);
  EXPECT_EQ(many.freeze_epochs, 4);
  const Recipe::Optimization few = Recipe().resolved(100).optimization;  // 2 steps an epoch
  EXPECT_EQ(few.epochs, 120);
  EXPECT_EQ(few.freeze_epochs, 80);
  Recipe recipe;
  recipe.optimization.epochs = 5;
  EXPECT_EQ(recipe.resolved(100).optimization.epochs, 5);
  EXPECT_EQ(recipe.resolved(100).optimization.freeze_epochs, 3);
  recipe.optimization.min_steps = 100;
  const Recipe more = recipe.resolved(100);
  EXPECT_EQ(more.optimization.epochs, 50);
  EXPECT_EQ(more.resolved(10).optimization.epochs, 50) << "what a run has recorded stays";
  EXPECT_EQ(recipe.resolved(8000).optimization.epochs, 5);
  EXPECT_EQ(Recipe::named("quick").resolved(100).optimization.epochs, 120);
  EXPECT_EQ(Recipe::named("quick").resolved(8000).optimization.epochs, 5);
  EXPECT_EQ(Recipe::named("notebook").resolved(100).optimization.epochs, 10);
}

/// The recipe of that name with options over it, as of a command line.
Recipe over(const std::string& name, const std::string& toml, const std::set<std::string>& stated) {
  const Recipe beneath = Recipe::named(name);
  Recipe recipe = beneath;
  recipe.merge_toml(toml, "test");
  recipe.settle(beneath, stated);
  return recipe.resolved();
}

TEST(Recipe, AHeadsRateIsNotThatOfPretrainedLayers) {
  const auto rate = [](const Recipe& r) { return *r.optimization.learning_rate; };
  EXPECT_EQ(rate(over("notebook", "fine-tune = \"2\"", {"fine-tune"})), 1e-4);
  EXPECT_EQ(rate(over("notebook", "fine-tune = \"2\"\nlr = 1e-3", {"fine-tune", "lr"})), 1e-3);
  EXPECT_EQ(rate(over("notebook", "fine-tune = \"0\"", {"fine-tune"})), 1e-3);
  const Recipe both =
      over("notebook", "fine-tune = \"2\"\nfreeze-epochs = 3", {"fine-tune", "freeze-epochs"});
  EXPECT_EQ(rate(both), 1e-4);
  EXPECT_EQ(both.optimization.head_learning_rate, 1e-3);
  EXPECT_EQ(rate(over("fine-tune", "fine-tune = \"0\"", {"fine-tune"})), 2e-3)
      << "nor theirs that of a new head";
  EXPECT_EQ(rate(over("fine-tune", "fine-tune = \"all\"", {"fine-tune"})), 1e-4);
}

TEST(Recipe, StatedEpochsAreAllThereAre) {
  const Recipe quick = over("quick", "epochs = 3", {"epochs"});
  EXPECT_EQ(quick.resolved(100).optimization.epochs, 3);
  Recipe beneath;
  beneath.model.fine_tune = "block5_conv1";
  beneath.optimization.epochs = 6;
  beneath.optimization.freeze_epochs = 4;
  Recipe shorter = beneath;
  shorter.optimization.epochs = 3;
  shorter.settle(beneath, {"epochs"});
  EXPECT_EQ(shorter.optimization.freeze_epochs, 2);
  Recipe longer = beneath;
  longer.optimization.epochs = 9;
  longer.settle(beneath, {"epochs"});
  EXPECT_EQ(longer.optimization.freeze_epochs, 4);
  Recipe frozen = beneath;
  frozen.model.fine_tune = "0";
  frozen.settle(beneath, {"fine-tune"});
  EXPECT_EQ(frozen.optimization.freeze_epochs, 0);
}

TEST(Recipe, RefusesValuesOutOfRange) {
  Recipe recipe;
  recipe.optimization.momentum = 1.5;
  EXPECT_ERROR(recipe.check(), ErrorKind::usage, "`momentum`");
  recipe = {};
  recipe.optimization.weight_decay = std::numeric_limits<double>::quiet_NaN();
  EXPECT_ERROR(recipe.check(), ErrorKind::usage, "`weight-decay`");
  recipe = {};
  recipe.optimization.batch_size = 0;
  EXPECT_ERROR(recipe.check(), ErrorKind::usage, "`batch-size`");
  EXPECT_ERROR(recipe.merge_toml("epochs = 3\nlr = \"fast\"\n", "x.toml"), ErrorKind::usage,
               "x.toml:2: `lr`");
  EXPECT_ERROR(recipe.merge_toml("lr = [1]\n", "x.toml"), ErrorKind::usage, "x.toml:1");
  EXPECT_ERROR(recipe.merge_toml("lr = \n", "x.toml"), ErrorKind::usage, "not TOML");
}

// What was trained before is not thrown away by a new head's rate.
TEST(Recipe, AHeadThatIsKeptTrainsAtFineTuningsRate) {
  Recipe recipe;
  recipe.model.weights = "some.safetensors";
  recipe.model.fine_tune = "0";
  const double fresh = *recipe.resolved().optimization.learning_rate;
  recipe.model.head = "keep";
  EXPECT_LT(*recipe.resolved().optimization.learning_rate, fresh / 10);
  recipe.optimization.learning_rate = fresh;
  EXPECT_EQ(*recipe.resolved().optimization.learning_rate, fresh);
}

}  // namespace
}  // namespace graft
