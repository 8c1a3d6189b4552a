// draw_scenes FOLDER COUNT FIRST_SEED SIZE: the demo's pictures as FOLDER/<kind>/<n>.jpg.
#include <cstdlib>

#include "base/file.h"
#include "demo/scenes.h"
#include "image/encode.h"

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const std::filesystem::path folder = argv[1];
  const int count = std::atoi(argv[2]);
  const auto first = static_cast<uint64_t>(std::atoll(argv[3]));
  const int size = std::atoi(argv[4]);
  for (size_t kind = 0; kind < graft::kSceneNames.size(); ++kind) {
    const auto target = folder / std::string(graft::kSceneNames.at(kind));
    graft::make_folder(target);
    for (int i = 0; i < count; ++i) {
      graft::AtomicFile file(target / (std::to_string(i) + ".jpg"));
      file.write(graft::encode_jpeg(graft::draw_scene(kind, first + i, size), 90));
      file.commit();
    }
  }
  return 0;
}
