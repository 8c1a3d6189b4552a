// graft preview: a contact sheet of what an augmentation does to one's images.
#include "graft/preview.h"
#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/option_flags.h"
#include "cli/outputs.h"
#include "graft/image.h"

namespace graft::cli {
namespace {

struct Options {
  CommonOptions common;
  Recipe::Model network;  // of which: input size
  PreviewOptions sheet;
  std::string data;
  std::string output = "preview.png";
  bool named = false;  // the user named the output
  bool force = false;
};

constexpr const char* kSoftware = "graft preview";

int run(const Options& o) {
  if (fs::path(o.output).extension() != ".png")
    fail(ErrorKind::usage, "-o: '{}' must end in .png", clipped(o.output));
  if (!o.named)
    refuse_foreign({o.output}, "preview", "a contact sheet that 'graft preview' drew",
                   "another name with -o", o.force,
                   [](const fs::path& file) { return is_png_of(file, kSoftware); });
  PreviewOptions sheet = o.sheet;
  const Network base = make_backbone(o.network);
  sheet.input = {base.input_height, base.input_width};
  const Dataset dataset = open_dataset(o.data, o.common.context());
  if (!o.common.quiet)
    print_diagnostic("{}: understood as {}\n", printable(o.data), dataset.understood);
  const Preview made = preview(dataset, sheet, o.common.context());
  const std::vector<std::byte> png = encode_png(made.sheet, kSoftware);
  write_file_atomic(o.output, {reinterpret_cast<const char*>(png.data()), png.size()});
  tell_wrote(o.common, o.output);
  if (!o.common.quiet)
    print_result("{}: {} images as they are (left), and {} views of each\n", printable(o.output),
                 made.rows, sheet.views);
  return 0;
}

}  // namespace

int run_preview(int argc, char** argv) {
  CLI::App app("Shows what an augmentation does to images, on a contact sheet.", "graft preview");
  Options o;
  app.add_option("DATA", o.data, "A folder of class folders, or anything that train takes")
      ->required();
  app.add_option("--augment", o.sheet.augment, "As for train: none, light, or words")
      ->check(parsed_by(options::check_augmentation))
      ->capture_default_str()
      ->type_name("WORDS");
  FlagAdder{app}({"input-size", "N", "Size of each image, as in 224 or 150x200 (default: 224)"},
                 o.network.input, options::Extent{});
  app.add_option("--images", o.sheet.images, "Images, one row each")
      ->check(whole_number(1, 50))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--views", o.sheet.views, "Views of each image")
      ->check(whole_number(1, 30))
      ->capture_default_str()
      ->type_name("K");
  app.add_option("--seed", o.sheet.seed, "The seed of the training run to preview")
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
