// draw_scenes FOLDER COUNT FIRST_SEED SIZE [things]: the demo's images (or those of things) as
// FOLDER/<kind>/<n>.jpg.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/file.h"
#include "demo/scenes.h"
#include "demo/things.h"
#include "graft/image.h"

int main(int argc, char** argv) {
  if (argc != 5 && argc != 6) {
    std::fputs("usage: draw_scenes FOLDER COUNT FIRST_SEED SIZE [things]\n", stderr);
    return 2;
  }
  const bool things = argc == 6 && std::string_view(argv[5]) == "things";
  const std::filesystem::path folder = argv[1];
  const int count = std::atoi(argv[2]);
  const auto first = static_cast<uint64_t>(std::atoll(argv[3]));
  const int size = std::atoi(argv[4]);
  const auto& names = things ? graft::kThingNames : graft::kSceneNames;
  for (size_t kind = 0; kind < names.size(); ++kind) {
    const auto target = folder / std::string(names.at(kind));
    graft::make_folder(target);
    for (int i = 0; i < count; ++i) {
      graft::AtomicFile file(target / (std::to_string(i) + ".jpg"));
      const auto draw = things ? graft::draw_thing : graft::draw_scene;
      file.write(graft::encode_jpeg(draw(kind, first + i, size), 90));
      file.commit();
    }
  }
  return 0;
}
