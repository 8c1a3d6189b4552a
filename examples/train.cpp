// Trains a classifier on a folder of labelled images, classifies from eight threads at once, and
// goes on with a second run that another thread stops.
//
//   example_train DATA RUN
#include <iostream>
#include <thread>
#include <vector>

#include "graft/error.h"
#include "graft/train.h"

namespace {

/// Asks to stop after the first epoch.
class StopSoon : public graft::TrainObserver {
 public:
  explicit StopSoon(std::stop_source& stop) : stop_(stop) {}
  void epoch(const graft::EpochRecord&, bool) override { stop_.request_stop(); }

 private:
  std::stop_source& stop_;
};

void run(const std::string& data, const std::string& folder) {
  graft::Recipe recipe;
  recipe.model.backbone = "vgg-mini";
  recipe.model.input = {32, 32};
  recipe.optimization.epochs = 3;
  const graft::TrainPlan plan = graft::plan(graft::open_dataset(data), recipe);
  std::cout << graft::plan_text(plan);

  const graft::Run first = graft::train(plan, folder, {.report = false});
  const graft::Classifier classifier = first.classifier();
  const graft::Image image = graft::load_image(plan.dataset.samples[0].path);
  const size_t expected = classifier.classify(image).best();
  std::vector<std::thread> callers;
  for (int i = 0; i < 8; ++i)
    callers.emplace_back([&] {
      if (classifier.classify(image).best() != expected) std::abort();
    });
  for (std::thread& caller : callers) caller.join();
  std::cout << "classified as " << classifier.classes()[expected] << "\n";

  std::stop_source stop;
  StopSoon observer(stop);
  try {
    graft::train(plan, folder + "-2", {.report = false, .observers = {&observer}},
                 {.stop = stop.get_token()});
  } catch (const graft::Error& error) {
    if (error.kind() != graft::ErrorKind::interrupted) throw;
    std::cout << error.what() << "\n";
  }
  const graft::Run second = graft::resume(folder + "-2");
  std::cout << "resumed: " << second.history.size() << " epochs, best " << second.best_epoch
            << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: example_train DATA RUN\n";
    return 2;
  }
  graft::set_training_threads(1);
  try {
    run(argv[1], argv[2]);
  } catch (const graft::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
