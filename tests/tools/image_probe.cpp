// image_probe FILE [WIDTH HEIGHT FILTER|torchvision]: "WIDTH HEIGHT\n" and raw RGB on
// stdout, decoded and brought to a size as the product does it.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "graft/error.h"
#include "graft/image.h"
#include "recipe/option_values.h"

int main(int argc, char** argv) {
  if (argc != 2 && argc != 5) return 2;
  try {
    graft::Image image = graft::load_image(argv[1]);
    if (argc == 5) {
      const std::string how = argv[4];
      graft::Preprocessing p;
      if (how == "torchvision")
        p = graft::torchvision_preprocessing();
      else
        graft::options::read_value(how, p.resampling, graft::options::Word{});
      image = graft::fit_image(image, std::atoi(argv[2]), std::atoi(argv[3]), p);
    }
    std::printf("%d %d\n", image.width, image.height);
    std::fwrite(image.pixels.data(), 1, image.pixels.size(), stdout);
  } catch (const graft::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
