// graft preview: a contact sheet of what an augmentation does to one's pictures.
#include <algorithm>

#include "base/diagnostics.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/option_flags.h"
#include "cli/outputs.h"
#include "cli/signals.h"
#include "dataset/dataset.h"
#include "graft/error.h"
#include "image/augment.h"
#include "image/encode.h"

namespace graft::cli {
namespace {

constexpr int kGap = 4;        // pixels between pictures
constexpr int kFirstGap = 16;  // behind the column of pictures as they are
constexpr uint8_t kBackground = 245;
constexpr int64_t kMaxMegapixels = 200;

struct PreviewOptions {
  CommonOptions common;
  Recipe::Model network;  // of which: input size
  std::string data;
  std::string augment = "light";
  std::string output = "preview.png";
  int images = 6;
  int views = 8;
  uint64_t seed = 0;
  bool named = false;  // the user named the output
  bool force = false;
};

constexpr const char* kSoftware = "graft preview";

/// Training pictures in random order, one class after the other in turn.
std::vector<fs::path> pick(const Dataset& dataset, uint64_t seed) {
  std::vector<std::vector<fs::path>> by_class(dataset.classes.size());
  for (const Sample& sample : dataset.samples)
    if (sample.split != Split::test && sample.split != Split::validation)
      by_class[static_cast<size_t>(sample.label)].push_back(sample.path);
  Random random(seed);
  size_t most = 0;
  for (auto& paths : by_class) {
    random.shuffle(paths);
    most = std::max(most, paths.size());
  }
  std::vector<fs::path> out;
  for (size_t i = 0; i < most; ++i)
    for (const auto& paths : by_class)
      if (i < paths.size()) out.push_back(paths[i]);
  return out;
}

class Sheet {
 public:
  Sheet(int rows, int columns, int height, int width) : cell_height_(height), cell_width_(width) {
    image_.width = columns * (width + kGap) + kFirstGap;
    image_.height = rows * (height + kGap) + kGap;
    image_.pixels.assign(size_t{3} * image_.width * image_.height, kBackground);
  }
  void put(int row, int column, const Image& picture) {
    const int left = kGap + column * (cell_width_ + kGap) + (column > 0 ? kFirstGap - kGap : 0);
    const int top = kGap + row * (cell_height_ + kGap);
    for (int y = 0; y < picture.height; ++y)
      std::copy_n(&picture.pixels[size_t{3} * picture.width * y], size_t{3} * picture.width,
                  &image_.pixels[(static_cast<size_t>(top + y) * image_.width + left) * 3]);
  }
  [[nodiscard]] const Image& image() const { return image_; }

 private:
  int cell_height_;
  int cell_width_;
  Image image_;
};

int run(const PreviewOptions& o) {
  const Augmentation augmentation = parse_augmentation(o.augment);
  if (fs::path(o.output).extension() != ".png")
    fail(ErrorKind::usage, "-o: '{}' must end in .png", clipped(o.output));
  if (!o.named)
    refuse_foreign({o.output}, "preview", "a contact sheet that 'graft preview' drew",
                   "another name with -o", o.force,
                   [](const fs::path& file) { return is_png_of(file, kSoftware); });
  const Network base = make_backbone(o.network);
  const int height = base.input_height;
  const int width = base.input_width;
  const Dataset dataset = open_dataset(o.data);
  if (!o.common.quiet)
    print_diagnostic("{}: understood as {}\n", printable(o.data), dataset.understood);
  const std::vector<fs::path> paths = pick(dataset, o.seed);
  const int rows = static_cast<int>(std::min<size_t>(paths.size(), o.images));
  const int64_t megapixels =
      int64_t{rows} * (height + kGap) * (o.views + 1) * (width + kGap) / 1'000'000;
  if (megapixels > kMaxMegapixels)
    fail(ErrorKind::usage,
         "the sheet would have {} megapixels, and {} are the limit; use fewer --images or --views, "
         "or a smaller --input-size",
         megapixels, kMaxMegapixels);
  Sheet sheet(rows, o.views + 1, height, width);
  const Preprocessing preprocessing = keras_preprocessing();
  int row = 0;
  for (const fs::path& path : paths) {
    if (row == rows) break;
    check_interrupted();
    try {
      const std::vector<std::byte> bytes = read_file(path);
      const Image picture = decode_image(bytes, printable(path));
      const std::string hash = content_hash(bytes);
      const Image fitted = fit_image(picture, width, height, preprocessing);
      sheet.put(row, 0, fitted);
      for (int number = 0; number < o.views; ++number) {
        const View view = draw_view(augmentation, o.seed, hash, static_cast<uint64_t>(number));
        sheet.put(row, number + 1,
                  augmentation.crops() ? make_view(picture, width, height, preprocessing, view)
                                       : apply_view(fitted, view));
      }
      ++row;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input && error.kind() != ErrorKind::io) throw;
      print_diagnostic("graft: skipped: {}\n", error.what());
    }
  }
  if (row == 0) fail(ErrorKind::input, "{}: none of the pictures could be read", printable(o.data));
  const std::vector<std::byte> png = encode_png(sheet.image(), kSoftware);
  write_file_atomic(o.output, {reinterpret_cast<const char*>(png.data()), png.size()});
  if (augmentation.mixup > 0 || augmentation.cutmix > 0)
    print_diagnostic(
        "graft: mixup and cutmix mix samples while training; the sheet shows the "
        "views before that\n");
  if (!o.common.quiet)
    print_result("{}: {} pictures as they are (left), and {} views of each\n", printable(o.output),
                 row, o.views);
  return 0;
}

}  // namespace

int run_preview(int argc, char** argv) {
  CLI::App app("Shows what an augmentation does to pictures, on a contact sheet.", "graft preview");
  PreviewOptions o;
  app.add_option("DATA", o.data, "A folder of class folders, or anything that train takes")
      ->required();
  app.add_option("--augment", o.augment, "As for train: none, light, or words")
      ->check(parsed_by([](const std::string& text) { parse_augmentation(text); }))
      ->capture_default_str()
      ->type_name("WORDS");
  FlagAdder{app}({"input-size", "N", "Size of each image, as in 224 or 150x200 (default: 224)"},
                 o.network.input, options::Extent{});
  app.add_option("--images", o.images, "Pictures, one row each")
      ->check(whole_number(1, 50))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--views", o.views, "Views of each picture")
      ->check(whole_number(1, 30))
      ->capture_default_str()
      ->type_name("K");
  app.add_option("--seed", o.seed, "The seed of the training run to preview")
      ->check(seed_number())
      ->capture_default_str()
      ->type_name("N");
  app.add_option("-o,--output", o.output, "The contact sheet")
      ->capture_default_str()
      ->type_name("FILE.png");
  app.add_flag("--force", o.force,
               "Without -o: replace preview.png whatever it is (otherwise: only such a sheet)");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft preview photos/ \\\n"
      "      --augment 'rotate:90 shift:0.5 brightness:0.1-0.7 hflip vflip'");
  return run_app(app, argc, argv, [&] {
    o.named = app.count("--output") > 0;
    return run(o);
  });
}

}  // namespace graft::cli
