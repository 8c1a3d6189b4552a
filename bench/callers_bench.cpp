// How many images a second come of eight threads that classify one image at a time, beside one
// caller with batches of eight? Alternately, in one process; prints both rates and their ratio.
//
//   callers_bench MODEL SECONDS
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <span>
#include <thread>
#include <vector>

#include "graft/classifier.h"
#include "graft/error.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kCallers = 8;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double rate_of_batches(const graft::Classifier& classifier, std::span<const graft::Image> images,
                       double seconds) {
  size_t done = 0;
  const auto start = Clock::now();
  while (seconds_since(start) < seconds) done += classifier.classify(images).size();
  return static_cast<double>(done) / seconds_since(start);
}

double rate_of_callers(const graft::Classifier& classifier, std::span<const graft::Image> images,
                       double seconds) {
  std::atomic<size_t> done = 0;
  const auto start = Clock::now();
  std::vector<std::thread> callers;
  for (const graft::Image& image : images)
    callers.emplace_back([&] {
      while (seconds_since(start) < seconds) {
        static_cast<void>(classifier.classify(image));
        ++done;
      }
    });
  for (std::thread& caller : callers) caller.join();
  return static_cast<double>(done) / seconds_since(start);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: callers_bench MODEL SECONDS\n";
    return 2;
  }
  try {
    const graft::Classifier classifier = graft::Classifier::load(argv[1]);
    const double seconds = std::atof(argv[2]);
    const graft::Network& net = classifier.info().network;
    std::vector<graft::Image> images(kCallers);
    for (size_t i = 0; i < kCallers; ++i) {
      images[i] = {net.input_width, net.input_height, {}};
      images[i].pixels.assign(size_t{3} * net.input_width * net.input_height,
                              static_cast<uint8_t>(20 * i));
    }
    constexpr int kRounds = 5;
    std::vector<double> ratios;
    for (int round = 0; round <= kRounds; ++round) {
      const double batches = rate_of_batches(classifier, images, seconds);
      const double callers = rate_of_callers(classifier, images, seconds);
      if (round == 0) continue;  // plans are built, pages touched
      ratios.push_back(callers / batches);
      std::cout << "batches of 8: " << batches << " images/s, 8 callers: " << callers
                << " images/s, ratio " << ratios.back() << std::endl;
    }
    std::sort(ratios.begin(), ratios.end());
    std::cout << "median ratio " << ratios[kRounds / 2] << std::endl;
  } catch (const graft::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
