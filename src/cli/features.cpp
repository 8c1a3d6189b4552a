// graft features: activations of a backbone as a NumPy or CSV file.
#include <algorithm>
#include <optional>

#include "base/diagnostics.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/group_folder.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/group_options.h"
#include "cli/numbers.h"
#include "cli/outputs.h"
#include "cli/shard_options.h"
#include "cli/training_program.h"
#include "graft/dataset.h"
#include "graft/features.h"
#include "recipe/option_values.h"

namespace graft::cli {
namespace {

struct Options {
  CommonOptions common;
  FeatureOptions features;
  std::string device = "cpu";
  std::vector<std::string> paths;
  std::string output;
  std::string pool = "none";
  std::string cache_dir;
  bool no_cache = false;
  bool force = false;
  bool json = false;
  ShardOptions shards;
  GroupOptions group;
  GroupPlace place;
};

/// The list of rows beside an .npy file; empty: the file has the paths itself.
fs::path list_beside(const Options& o) {
  const fs::path output = o.output;
  const fs::path suffix = output.extension();
  if (suffix != ".npy" && suffix != ".npz" && suffix != ".csv")
    fail(
        ErrorKind::usage,
        "-o: '{}' must end in .npy (the list of images goes to .csv beside it), .npz or .csv (with "
        "the paths inside)",
        clipped(o.output));
  refuse_kept(output, "-o");
  if (suffix == ".csv" && !o.force) {
    fs::path values = output;
    values.replace_extension(".npy");
    std::error_code error;
    if (fs::exists(values, error) && file_begins_with(output, kFeatureListHeader))
      fail(ErrorKind::usage,
           "-o: {} is the list of the rows of {}; choose another name, or --force to replace it",
           printable(output), printable(values));
  }
  if (suffix != ".npy") return {};
  fs::path list = output;
  list.replace_extension(".csv");
  refuse_folder(list, "-o", "another name for the .npy file");
  refuse_foreign({list}, "-o", "the list of rows that 'graft features' writes beside FILE.npy",
                 "another name for the .npy file", o.force,
                 [](const fs::path& file) { return file_begins_with(file, kFeatureListHeader); });
  return list;
}

/// The images that are named, each once, sorted.
std::vector<fs::path> images_of(const Options& o) {
  std::vector<fs::path> paths;
  for (const std::string& argument : o.paths) {
    const std::string suffix = fs::path(argument).extension();
    std::error_code none;
    if ((suffix == ".csv" || suffix == ".txt") && fs::is_regular_file(argument, none))
      fail(ErrorKind::usage,
           "{}: a list of images is given as @FILE, a path a line; labels have no place in it",
           printable(argument));
    std::string unread;
    for (fs::path& path : list_images(argument, o.common.context(), &unread))
      paths.push_back(std::move(path));
    if (!unread.empty() && o.place.rank == 0)
      print_diagnostic("graft: {}: {}; left out\n", printable(argument), unread);
  }
  if (!std::is_sorted(paths.begin(), paths.end())) std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  return paths;
}

FeatureOptions feature_options(const Options& o, const DeviceOpener& open) {
  FeatureOptions options = o.features;
  options.device = open(o.device, o.common);
  options.cache = cache_folder(o.cache_dir);
  options.pooling = o.pool == "gap"       ? Pooling::gap
                    : o.pool == "flatten" ? Pooling::flatten
                                          : Pooling::none;
  check_features(options);
  return options;
}

/// Images that could not be read, as they are told.
class Skipped {
 public:
  void add(const fs::path& path, const std::string& why) {
    print_diagnostic("graft: skipped: {}\n", why);
    list_.push_back({{"path", path.string()}, {"why", why}});
  }
  [[nodiscard]] const nlohmann::json& list() const { return list_; }

 private:
  nlohmann::json list_ = nlohmann::json::array();
};

/// What was written. Returns the exit code.
int tell_result(const Options& o, const fs::path& list, const MergedFeatures& made,
                const Skipped& skipped) {
  const fs::path output = o.output;
  tell_wrote(o.common, output);
  if (!list.empty()) tell_wrote(o.common, list);
  std::vector<int64_t> shape = made.shape;
  shape.insert(shape.begin(), static_cast<int64_t>(made.rows));
  if (o.json)
    print_json({{"output", output.string()},
                {"list", list.empty() ? nlohmann::json() : nlohmann::json(list.string())},
                {"shape", shape},
                {"layer", made.layer},
                {"precision", options::word(made.precision)},
                {"skipped", skipped.list()}});
  else if (!o.common.quiet)
    print_result("{}: ({}) float32 of {}{}; images in {}\n", printable(output),
                 fmt::join(shape, ", "), made.layer,
                 made.precision == Precision::bf16 ? ", computed in bfloat16" : "",
                 printable(list.empty() ? output : list));
  return skipped.list().empty() ? 0 : 1;
}

int run_shard(const Options& o, const DeviceOpener& open) {
  const Shard shard = parse_shard(o.shards.shard);
  const fs::path folder = o.output;
  std::error_code error;
  const fs::path suffix = folder.extension();
  if (suffix == ".npy" || suffix == ".npz" || suffix == ".csv" ||
      fs::exists(folder, error) > fs::is_directory(folder, error))
    fail(ErrorKind::usage,
         "-o: '{}' must be a folder, in which each shard gets a file of its own; --merge makes of "
         "them what they are for",
         clipped(o.output));
  const FeatureOptions options = feature_options(o, open);
  const std::vector<fs::path> paths = images_of(o);
  FeatureExtractor extractor(options, o.common.context());
  Skipped skipped;
  const FeatureShard made = write_feature_shard(
      extractor, paths, shard, folder,
      [&](size_t i, const std::string& why) { skipped.add(paths[i], why); }, o.force,
      o.common.context());
  if (made.earlier == 0 || made.earlier < made.images) tell_wrote(o.common, made.part);
  if (o.json) {
    nlohmann::json document = shard_json(shard, made.part, made.images, made.earlier);
    document["skipped"] = skipped.list();
    print_json(document);
  } else if (!o.common.quiet)
    print_result("{}: shard {} of {}, {} of {} images{}; 'graft features --merge {}' joins them\n",
                 printable(made.part), shard.index, shard.count, made.images, paths.size(),
                 made.skipped > 0 ? fmt::format(", {} of them skipped", made.skipped) : "",
                 shell_quoted(printable(folder)));
  // Skipped images are no reason for a batch system to start the task again: merging tells them.
  return 0;
}

int run_merge(const Options& o) {
  const fs::path list = list_beside(o);
  for (const std::string& part : o.shards.parts) refuse_input_as_output(o.output, "-o", {part});
  Skipped skipped;
  const MergedFeatures made = merge_features(
      o.shards.part_paths(), o.output, list,
      [&](const fs::path& path, const std::string& why) { skipped.add(path, why); },
      o.common.context());
  return tell_result(o, list, made, skipped);
}

/// Where processes of a group leave what they make.
fs::path parts_folder(const Options& o) {
  const fs::path output = o.output;
  return parts_folder(o.group, output.parent_path()) / (output.filename().native() + ".parts");
}

int run(const Options& o, const DeviceOpener& open) {
  const fs::path list = list_beside(o);
  const FeatureOptions options = feature_options(o, open);
  const std::vector<fs::path> paths = images_of(o);
  // In a group the progress of all is shown, not that of each part.
  RunContext context = o.common.context();
  WithoutProgress messages(context.reporter);
  if (o.place.size > 1) context.reporter = &messages;
  FeatureExtractor extractor(options, context);
  Skipped skipped;
  if (o.place.size > 1) {
    const std::optional<MergedFeatures> made = write_features_in_group(
        extractor, paths, o.place, parts_folder(o), o.output, list,
        [&](const fs::path& path, const std::string& why) { skipped.add(path, why); }, o.force,
        o.common.context());
    return made ? tell_result(o, list, *made, skipped) : 0;
  }
  std::error_code none;
  if (fs::exists(parts_folder(o), none))
    o.common.context().tell(
        Severity::warning,
        fmt::format("{}: what a group of processes has begun; only a group goes on with it, and "
                    "this process begins anew",
                    printable(parts_folder(o))));
  const size_t rows =
      write_features(extractor, paths, o.output, list,
                     [&](size_t i, const std::string& why) { skipped.add(paths[i], why); });
  return tell_result(o, list, {rows, extractor.shape(), extractor.layer(), extractor.precision()},
                     skipped);
}

}  // namespace

int run_features(int argc, char** argv) {
  return run_features_on(opener_by_becoming(argv), argc, argv);
}

int run_features_on(const DeviceOpener& open, int argc, char** argv) {
  Options o;
  CLI::App app("Activations of a backbone for images, as a NumPy or CSV file (float32).",
               "graft features");
  app.add_option(
      "PATH", o.paths,
      "Images, folders of them, tar shards ('shard-{0000..0999}.tar', or their folder), or "
      "@list.txt with a path a line");
  app.add_option(
         "-o,--output", o.output,
         "By its suffix: .npy, with FILE.csv beside it that lists the rows; .npz, with the arrays "
         "features and paths; .csv, with the columns path, f0, f1, …; with --shard a folder")
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
  add_device_option(app, o.device);
  add_precision_option(app, o.features.precision);
  app.add_option("--seed", o.features.seed, "For --weights none")
      ->check(seed_number())
      ->capture_default_str()
      ->type_name("N");
  app.add_flag("--no-cache", o.no_cache, "Compute everything; at present this command always does");
  app.add_option("--cache-dir", o.cache_dir, "Graft's cache folder, where weights are kept")
      ->type_name("DIR");
  app.add_flag("--force", o.force,
               "Replace FILE.csv whatever it is (without: only such a list of rows), and parts of "
               "other options");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_shard_options(app, o.shards, "joined into the file of -o, as one process would write it");
  add_group_options(app, o.group, "FILE.parts beside the file of -o");
  for (const char* option : {"--shard", "--merge"})
    for (const char* other : {"--workers", "--parts"})
      app.get_option(option)->excludes(app.get_option(other));
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft features photos/ --backbone vgg16 --pool gap -o photos.npy\n"
      "  graft features photos/ --backbone vgg16 --pool gap -o photos.npz\n"
      "  graft features a.jpg b.jpg --backbone vgg19 --weights blocks1-3.h5 \\\n"
      "      --until block3_pool --input-size 150 -o maps.npy\n"
      "  graft features photos/ --backbone vgg16 --pool gap --shard 0/2 -o parts/\n"
      "  graft features --merge parts/ -o photos.npy\n"
      "  mpirun -n 8 graft features photos/ --backbone vgg16 --pool gap -o photos.npy\n"
      "Rows follow the sorted paths. Activations are after ReLU; 'predictions' are logits.");
  return run_app(app, argc, argv, [&] {
    if (o.shards.merges()) {
      refuse_options_beside(app, "--merge", {"--force"});
      return group_rank().rank == 0 ? run_merge(o) : 0;
    }
    if (o.paths.empty())
      fail(ErrorKind::usage,
           "PATH is required: images or folders of them (or --merge with the parts of --shard)");
    if (!o.shards.shard.empty()) return run_shard(o, open);
    require_no_workers_on(o.device, o.group);
    // Before there are several to say what is wrong.
    static_cast<void>(list_beside(o));
    if (o.device == "cpu") static_cast<void>(feature_options(o, open));
    o.place = join_group(o.group, o.common);
    return run(o, open);
  });
}

}  // namespace graft::cli
