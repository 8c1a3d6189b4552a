// device_bench DEVICE fp32|bf16 BACKBONE SIZE BATCHES: images a second through a backbone up to its
// last pooling on a device, from the host's memory to the host's memory, as extraction does it: as
// many threads as the device has lanes, each with batches of the device's own size. For
// bench/device.py, which runs PyTorch beside it.
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "engine/executor.h"
#include "graft/error.h"
#include "graft/train.h"
#include "weights/load.h"

namespace graft {
namespace {

void bench(const std::string& name, bool rounded, const std::string& of, int size, int batches) {
  const int threads = RunContext().thread_count();
  set_training_threads(threads);
  const std::shared_ptr<const ComputeDevice> device = open_device(name);
  const Network net = backbone(of, size, size);
  const size_t end = net.layers.size();
  engine::EngineOptions options;
  options.threads = threads;
  options.max_batch = engine::batch_for(device.get(), options.max_batch);
  options.precision = rounded ? Precision::bf16 : Precision::fp32;
  const std::unique_ptr<engine::Executor> executor =
      engine::make_executor(device.get(), net, 0, end, random_tensors(net, 0, end, 1), options);
  const int rows = executor->max_batch();
  executor->prepare(rows);
  const auto each = [&](std::atomic<int>& left) {
    std::vector<float> in(static_cast<size_t>(executor->input_elements()) * rows, 0.5F);
    std::vector<float> out(static_cast<size_t>(executor->output_elements()) * rows);
    while (left-- > 0) executor->run(in.data(), rows, out.data());
  };
  const auto run = [&](int count) {
    std::atomic<int> left = count;
    const auto start = std::chrono::steady_clock::now();
    {
      std::vector<std::jthread> lanes;
      for (int i = 0; i < executor->lanes(); ++i) lanes.emplace_back([&] { each(left); });
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  run(executor->lanes());  // buffers and kernels
  const double seconds = run(batches);
  fmt::print("{{\"device\": \"{}\", \"batch\": {}, \"images_per_second\": {:.1f}}}\n",
             device_name(device.get()), rows, batches * rows / seconds);
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  if (argc != 6) {
    fmt::print(stderr, "device_bench DEVICE fp32|bf16 BACKBONE SIZE BATCHES\n");
    return 2;
  }
  try {
    graft::bench(argv[1], std::string(argv[2]) == "bf16", argv[3], std::atoi(argv[4]),
                 std::atoi(argv[5]));
  } catch (const graft::Error& error) {
    fmt::print(stderr, "device_bench: {}\n", error.what());
    return 1;
  }
  return 0;
}
