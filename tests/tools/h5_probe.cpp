// h5_probe BACKBONE LAYER FILE…: reads each file as --weights would, up to the layer. A line of
// output for each: "ok N HASH" with the number of tensors and a hash of their values, or "error: "
// and the message; then the seconds of the slowest and the most memory, in KiB, of this process and
// of its helpers.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <span>
#include <string>

#include "base/hash.h"
#include "graft/error.h"
#include "weights/load.h"

namespace {

void probe(const std::string& backbone, const graft::Network& network, const char* file) {
  try {
    const graft::Weights weights =
        graft::load_weights({.weights = file, .backbone = backbone, .cache = {}}, network);
    std::string hashes;
    for (const auto& [name, tensor] : weights.tensors)
      hashes += graft::content_hash(std::as_bytes(tensor.values()));
    std::printf("ok %zu %s\n", weights.tensors.size(),
                graft::content_hash(std::as_bytes(std::span(hashes))).c_str());
  } catch (const graft::Error& error) {
    std::string text = error.what();
    std::printf("error: %s\n", text.substr(0, text.find('\n')).c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  const std::string backbone = argv[1];
  const graft::Network network = graft::cut_after(graft::backbone(backbone, 32, 32), argv[2]);
  double slowest = 0;
  for (int i = 3; i < argc; ++i) {
    const auto start = std::chrono::steady_clock::now();
    probe(backbone, network, argv[i]);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    slowest = std::max(slowest, seconds.count());
  }
  rusage own{};
  rusage helpers{};
  ::getrusage(RUSAGE_SELF, &own);
  ::getrusage(RUSAGE_CHILDREN, &helpers);
  std::printf("%.2f %ld %ld\n", slowest, own.ru_maxrss, helpers.ru_maxrss);
  return 0;
}
