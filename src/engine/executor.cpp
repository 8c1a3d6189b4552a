#include "engine/executor.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/fail.h"
#include "base/words.h"
#include "engine/engine.h"
#include "engine/kernels.h"

namespace graft {
namespace engine {
namespace {

constexpr std::string_view kNumbered = "cuda:";

}  // namespace

std::unique_ptr<Executor> make_executor(const ComputeDevice* device, const Network& network,
                                        size_t begin, size_t end, const TensorMap& tensors,
                                        const EngineOptions& options) {
  if (device != nullptr) return device->executor(network, begin, end, tensors, options);
  return std::make_unique<Engine>(network, begin, end, tensors, options);
}

std::string numerics(const ComputeDevice* device, Precision precision) {
  return device != nullptr ? device->numerics(precision) : Engine::numerics(precision);
}

int batch_for(const ComputeDevice* device, int wanted) {
  return device != nullptr ? std::max(wanted, device->batch()) : wanted;
}

bool names_device(const std::string& name) { return name != "cpu" && name != "auto"; }

int device_index(const std::string& name) {
  // More than any machine has, and what LibTorch has room for.
  constexpr int kMost = 127;
  int index = -1;
  if (!name.starts_with(kNumbered)) return -1;
  const char* first = name.data() + kNumbered.size();
  const char* last = name.data() + name.size();
  const auto [end, error] = std::from_chars(first, last, index);
  // "cuda:00" would be another name for one device.
  const bool plain = last - first == 1 || (first != last && *first != '0');
  return error == std::errc() && end == last && plain && index <= kMost ? index : -1;
}

}  // namespace engine

std::string device_name(const ComputeDevice* device) {
  return device != nullptr ? device->name() : "cpu";
}

std::vector<std::string> device_names() { return {"auto", "cpu", "cuda", "torch-cpu"}; }

void check_device(const std::string& name) {
  const std::vector<std::string> known = device_names();
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  if (engine::device_index(name) >= 0) return;
  fail(ErrorKind::usage, "'{}' is none of auto, cpu, cuda, cuda:N (as in cuda:1), torch-cpu{}",
       clipped(name), did_you_mean(name, known));
}

Precision resolve_precision(Precision precision, const std::string& device) {
  if (!engine::names_device(device)) {
    engine::kernels();  // throws where GRAFT_TARGET names nothing that there is
    try {
      return resolve_precision(precision);
    } catch (const Error& error) {
      fail(ErrorKind::usage, "{}; or, on a GPU, name it with `device cuda`", error.what());
    }
  }
  if (precision != Precision::automatic) return precision;
  return device.starts_with("cuda") ? Precision::bf16 : Precision::fp32;
}

}  // namespace graft
