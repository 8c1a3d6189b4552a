// augment_probe FILE NAME=VALUE…: "WIDTH HEIGHT\n" and raw RGB on stdout of an image under the
// view with those numbers (names as in graft::View), or, with seed=S number=N augment=WORDS, the
// view that is drawn. With views=K as well: the numbers of views 0 to K - 1 instead, one a line.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "base/hash.h"
#include "graft/error.h"
#include "image/augment.h"

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  std::map<std::string, std::string> text;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t equals = word.find('=');
    if (equals == std::string::npos) return 2;
    text[word.substr(0, equals)] = word.substr(equals + 1);
  }
  const auto number = [&](const char* name, double otherwise) {
    const auto at = text.find(name);
    return at == text.end() ? otherwise : std::atof(at->second.c_str());
  };
  try {
    const graft::Image image = graft::load_image(argv[1]);
    graft::View v;
    if (text.count("views") > 0) {
      const graft::Augmentation augmentation = graft::parse_augmentation(text["augment"]);
      const std::string hash = graft::content_hash_of_file(argv[1]);
      const auto seed = static_cast<uint64_t>(number("seed", 0));
      for (uint64_t n = 0; n < static_cast<uint64_t>(number("views", 0)); ++n) {
        v = graft::draw_view(augmentation, seed, hash, n);
        std::printf("%.17g %.17g %.17g %.17g %.17g %.17g %.17g %.17g %.17g %d %d %.17g\n", v.theta,
                    v.shift_x, v.shift_y, v.pixels_x, v.pixels_y, v.shear, v.zoom_x, v.zoom_y,
                    v.channel, v.hflip ? 1 : 0, v.vflip ? 1 : 0, v.brightness);
      }
      return 0;
    }
    if (text.count("augment") > 0)
      v = graft::draw_view(
          graft::parse_augmentation(text["augment"]), static_cast<uint64_t>(number("seed", 0)),
          graft::content_hash_of_file(argv[1]), static_cast<uint64_t>(number("number", 0)));
    else
      v = {.theta = number("theta", 0),
           .shift_x = number("shift_x", 0),
           .shift_y = number("shift_y", 0),
           .pixels_x = number("pixels_x", 0),
           .pixels_y = number("pixels_y", 0),
           .shear = number("shear", 0),
           .zoom_x = number("zoom_x", 1),
           .zoom_y = number("zoom_y", 1),
           .channel = number("channel", 0),
           .hflip = number("hflip", 0) != 0,
           .vflip = number("vflip", 0) != 0,
           .brightness = number("brightness", 1),
           .fill = static_cast<graft::FillMode>(static_cast<int>(number("fill", 0))),
           .contrast = number("contrast", 1),
           .saturation = number("saturation", 1),
           .hue = number("hue", 0)};
    const graft::Image out =
        graft::make_view(image, image.width, image.height, graft::keras_preprocessing(), v);
    std::printf("%d %d\n", out.width, out.height);
    std::fwrite(out.pixels.data(), 1, out.pixels.size(), stdout);
  } catch (const graft::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
