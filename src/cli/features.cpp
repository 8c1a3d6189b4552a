// graft features: activations of a backbone as a NumPy or CSV file.
#include <algorithm>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/outputs.h"
#include "graft/dataset.h"
#include "graft/features.h"
#include "recipe/option_values.h"

namespace graft::cli {
namespace {

struct Options {
  CommonOptions common;
  FeatureOptions features;
  std::vector<std::string> paths;
  std::string output;
  std::string pool = "none";
  std::string cache_dir;
  bool no_cache = false;
  bool force = false;
  bool json = false;
};

int run(const Options& o) {
  const fs::path output = o.output;
  const fs::path suffix = output.extension();
  if (suffix != ".npy" && suffix != ".npz" && suffix != ".csv")
    fail(
        ErrorKind::usage,
        "-o: '{}' must end in .npy (the list of images goes to .csv beside it), .npz or .csv (with "
        "the paths inside)",
        clipped(o.output));
  refuse_kept(output, "-o");
  fs::path list_path;
  if (suffix == ".npy") {
    list_path = output;
    list_path.replace_extension(".csv");
    refuse_folder(list_path, "-o", "another name for the .npy file");
    refuse_foreign({list_path}, "-o",
                   "the list of rows that 'graft features' writes beside FILE.npy",
                   "another name for the .npy file", o.force,
                   [](const fs::path& file) { return file_begins_with(file, kFeatureListHeader); });
  }
  FeatureOptions options = o.features;
  options.cache = cache_folder(o.cache_dir);
  options.pooling = o.pool == "gap"       ? Pooling::gap
                    : o.pool == "flatten" ? Pooling::flatten
                                          : Pooling::none;
  check_features(options);
  std::vector<fs::path> paths;
  for (const std::string& argument : o.paths) {
    for (fs::path& path : list_images(argument, o.common.context()))
      paths.push_back(std::move(path));
    if (const std::string unread = unread_images(argument); !unread.empty())
      print_diagnostic("graft: {}: {}; left out\n", printable(argument), unread);
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());

  FeatureExtractor extractor(options, o.common.context());
  nlohmann::json skipped = nlohmann::json::array();
  const size_t rows = write_features(
      extractor, paths, output, list_path, [&](size_t i, const std::string& message) {
        print_diagnostic("graft: skipped: {}\n", message);
        skipped.push_back({{"path", paths[i].string()}, {"why", message}});
      });
  tell_wrote(o.common, output);
  if (!list_path.empty()) tell_wrote(o.common, list_path);
  std::vector<int64_t> shape = extractor.shape();
  shape.insert(shape.begin(), static_cast<int64_t>(rows));
  if (o.json)
    print_json({{"output", output.string()},
                {"list", list_path.empty() ? nlohmann::json() : nlohmann::json(list_path.string())},
                {"shape", shape},
                {"layer", extractor.layer()},
                {"precision", options::word(extractor.precision())},
                {"skipped", skipped}});
  else if (!o.common.quiet)
    print_result("{}: ({}) float32 of {}{}; images in {}\n", printable(output),
                 fmt::join(shape, ", "), extractor.layer(),
                 extractor.precision() == Precision::bf16 ? ", computed in bfloat16" : "",
                 printable(list_path.empty() ? output : list_path));
  return skipped.empty() ? 0 : 1;
}

}  // namespace

int run_features(int argc, char** argv) {
  Options o;
  CLI::App app("Activations of a backbone for images, as a NumPy or CSV file (float32).",
               "graft features");
  app.add_option("PATH", o.paths, "Images or folders of images")->required();
  app.add_option(
         "-o,--output", o.output,
         "By its suffix: .npy, with FILE.csv beside it that lists the rows; .npz, with the arrays "
         "features and paths; .csv, with the columns path, f0, f1, …")
      ->required()
      ->type_name("FILE");
  add_backbone_options(app, o.features.model);
  app.add_flag(
      "--include-top", o.features.include_top,
      "Up to the logits of the file's own classes ('predictions') where --until says nothing");
  app.add_option("--pool", o.pool, "none (N, C, H, W), gap (N, C) or flatten (N, C·H·W)")
      ->check(one_of({"none", "gap", "flatten"}))
      ->capture_default_str()
      ->type_name("POOL");
  app.add_option("--batch-size", o.features.batch_size, "Images computed at once")
      ->check(whole_number(1, 4096))
      ->capture_default_str()
      ->type_name("N");
  add_precision_option(app, o.features.precision);
  app.add_option("--seed", o.features.seed, "For --weights none")
      ->check(seed_number())
      ->capture_default_str()
      ->type_name("N");
  app.add_flag("--no-cache", o.no_cache, "Compute everything; at present this command always does");
  app.add_option("--cache-dir", o.cache_dir, "Graft's cache folder, where weights are kept")
      ->type_name("DIR");
  app.add_flag("--force", o.force,
               "Replace FILE.csv whatever it is (without: only such a list of rows)");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft features photos/ --backbone vgg16 --pool gap -o photos.npy\n"
      "  graft features photos/ --backbone vgg16 --pool gap -o photos.npz\n"
      "  graft features a.jpg b.jpg --backbone vgg19 --weights blocks1-3.h5 \\\n"
      "      --until block3_pool --input-size 150 -o maps.npy\n"
      "Rows follow the sorted paths. Activations are after ReLU; 'predictions' are logits.");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
