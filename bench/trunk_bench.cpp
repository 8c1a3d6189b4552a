// How long does a backbone's forward pass take? Answers on request, so that a script can interleave
// it with a peer: reads "run" lines on stdin, prints the seconds of one pass for each.
//
//   trunk_bench BACKBONE SIZE BATCH THREADS [fp32|bf16]
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include "base/random.h"
#include "engine/engine.h"
#include "weights/load.h"

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) return 2;
  const int size = std::atoi(argv[2]);
  const int batch = std::atoi(argv[3]);
  const graft::Network net = graft::backbone(argv[1], size, size);
  graft::engine::EngineOptions options;
  options.threads = std::atoi(argv[4]);
  options.max_batch = batch;
  options.single_plan = true;
  if (argc == 6 && std::string(argv[5]) == "bf16") options.precision = graft::Precision::bf16;
  graft::engine::Engine engine(net, 0, net.layers.size(),
                               graft::random_tensors(net, 0, net.layers.size(), 1), options);
  std::vector<float> in(static_cast<size_t>(engine.input_elements()) * batch);
  std::vector<float> out(static_cast<size_t>(engine.output_elements()) * batch);
  graft::Random random(1);
  for (float& value : in) value = static_cast<float>(random.uniform(-100, 150));
  engine.run(in.data(), batch, out.data());
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    const auto start = std::chrono::steady_clock::now();
    engine.run(in.data(), batch, out.data());
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::cout << taken.count() << std::endl;
  }
  return 0;
}
