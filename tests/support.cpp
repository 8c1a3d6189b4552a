#include "support.h"

#include <cstdlib>
#include <fstream>

#include "base/random.h"
#include "weights/load.h"

namespace graft::testing {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "graft-test-XXXXXX").string();
  path_ = ::mkdtemp(pattern.data());
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void write(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

TensorMap make_tensors(const Network& net, uint64_t seed) {
  TensorMap tensors = random_tensors(net, 0, net.layers.size(), seed);
  Random random(seed, 99);
  for (const TensorSpec& spec : tensor_specs(net)) {
    if (spec.shape.size() > 1) continue;
    std::vector<float> values(static_cast<size_t>(spec.elements()));
    const bool positive = spec.name.ends_with(".running_var");
    for (float& v : values)
      v = static_cast<float>(positive ? random.uniform(0.3, 2) : random.uniform(-0.5, 0.8));
    tensors.insert_or_assign(spec.name, Tensor(spec.shape, std::move(values)));
  }
  return tensors;
}

}  // namespace graft::testing
