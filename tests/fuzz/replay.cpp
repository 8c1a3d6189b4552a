// replay FOLDER [ROUNDS]: every file of a corpus through the fuzz target that is linked in, then
// ROUNDS seeded mutations of each. For builds without libFuzzer.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz/fuzz.h"

namespace {

using Bytes = std::vector<uint8_t>;

Bytes mutate(Bytes bytes, std::mt19937& random) {
  const auto below = [&](size_t n) { return n == 0 ? 0 : random() % n; };
  for (size_t k = 1 + below(4); k > 0; --k) {
    const size_t at = below(bytes.size());
    switch (below(5)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<uint8_t>(random());
        break;
      case 2:
        if (!bytes.empty()) bytes[at] ^= static_cast<uint8_t>(1U << below(8));
        break;
      case 3:
        bytes.insert(bytes.begin() + static_cast<long>(at), 1 + below(8),
                     static_cast<uint8_t>(random()));
        break;
      default: {
        const size_t n = std::min<size_t>(below(16), bytes.size() - at);
        const Bytes piece(bytes.begin() + static_cast<long>(at),
                          bytes.begin() + static_cast<long>(at + n));
        bytes.insert(bytes.begin() + static_cast<long>(below(bytes.size())), piece.begin(),
                     piece.end());
      }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 0;
  constexpr std::chrono::seconds kMostTime(10);  // for all mutations together
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) files.push_back(entry);
  std::sort(files.begin(), files.end());
  std::vector<Bytes> inputs;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    inputs.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
    LLVMFuzzerTestOneInput(inputs.back().data(), inputs.back().size());
  }
  std::mt19937 random(1);
  size_t runs = 0;
  const auto end = std::chrono::steady_clock::now() + kMostTime;
  for (int round = 0; round < rounds && std::chrono::steady_clock::now() < end; ++round) {
    for (const Bytes& input : inputs) {
      const Bytes changed = mutate(input, random);
      LLVMFuzzerTestOneInput(changed.data(), changed.size());
      ++runs;
    }
  }
  std::printf("%zu files, %zu mutations\n", files.size(), runs);
  return files.empty() ? 1 : 0;
}
