// graft features: activations of a backbone as a NumPy file.
#include <algorithm>
#include <cmath>

#include "base/diagnostics.h"
#include "base/file.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/outputs.h"
#include "dataset/csv.h"
#include "dataset/dataset.h"
#include "dataset/folders.h"
#include "features/image_stream.h"
#include "features/npy.h"
#include "graft/error.h"
#include "weights/load.h"

namespace graft::cli {
namespace {

struct FeaturesOptions {
  CommonOptions common;
  Recipe::Model network;
  std::vector<std::string> paths;
  std::string output;
  std::string pool = "none";
  std::string cache_dir;
  bool no_cache = false;
  int batch_size = 16;
  uint64_t seed = 0;
  bool include_top = false;
  bool force = false;
  bool json = false;
};

constexpr const char* kListHeader = "row,path\n";

std::string weight_source(const FeaturesOptions& o) {
  return o.network.weights.empty() ? default_weights(o.network.backbone) : o.network.weights;
}

Network make_network(const FeaturesOptions& o) {
  // Naming a layer of the top asks for it.
  const std::string& until = o.network.until;
  const bool top = o.include_top || until == "flatten" || until == "fc1" || until == "fc2" ||
                   until == "predictions";
  Network network = make_backbone(o.network, top);
  if (network.layers.back().name == "predictions")
    network.layers.back().outputs = top_classes(weight_source(o));
  return network;
}

Network with_pooling(Network network, const std::string& pool) {
  if (pool != "gap") return network;
  if (output_shapes(network).back().flat)
    fail(ErrorKind::usage, "--pool gap needs maps, but {} gives a flat vector; leave --pool out",
         network.layers.back().name);
  append(network, {.kind = LayerKind::gap, .name = "gap", .in_head = true});
  return network;
}

int run(const FeaturesOptions& o) {
  const fs::path output = o.output;
  if (output.extension() != ".npy")
    fail(ErrorKind::usage,
         "-o: '{}' must end in .npy (the list of pictures goes to .csv beside it)",
         clipped(o.output));
  fs::path list_path = output;
  list_path.replace_extension(".csv");
  refuse_folder(list_path, "-o", "another name for the .npy file");
  refuse_foreign({list_path}, "-o", "the list of rows that 'graft features' writes beside FILE.npy",
                 "another name for the .npy file", o.force,
                 [](const fs::path& file) { return file_begins_with(file, kListHeader); });
  const Network base = make_network(o);
  const Network network = with_pooling(base, o.pool);
  std::vector<fs::path> paths;
  for (const std::string& argument : o.paths) {
    for (fs::path& path : list_images(argument)) paths.push_back(std::move(path));
    if (const std::string unread = unread_images(argument); !unread.empty())
      print_diagnostic("graft: {}: {}; left out\n", printable(argument), unread);
  }
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());

  WeightsRequest request;
  request.weights = weight_source(o);
  request.backbone = o.network.backbone;
  request.input_height = network.input_height;
  request.input_width = network.input_width;
  request.seed = o.seed;
  request.cache = cache_folder(o.cache_dir);
  request.context = o.common.context();
  const Weights weights = load_weights(request, base);
  if (!weights.note.empty() && !o.common.quiet) print_diagnostic("graft: note: {}\n", weights.note);
  Engine engine(network, 0, network.layers.size(), weights.tensors,
                {o.common.thread_count(), o.batch_size});

  const Shape shape = output_shapes(network).back();
  std::vector<int64_t> row = {shape.elements()};
  if (!shape.flat && o.pool == "none") row = {shape.channels, shape.height, shape.width};
  NpyWriter npy(output, row);
  std::string list = kListHeader;
  size_t rows = 0;
  nlohmann::json skipped = nlohmann::json::array();
  const ImageJob job{.paths = paths,
                     .height = network.input_height,
                     .width = network.input_width,
                     .preprocessing = weights.preprocessing,
                     .batch = o.batch_size,
                     .context = o.common.context()};
  stream_features(
      job, forward_of(engine),
      [&](const StreamedImage& image, std::span<const float> values) {
        if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
          fail(ErrorKind::input,
               "{}: the features of {} are not finite: the weights are too large or damaged; take "
               "others",
               o.network.weights.empty() ? o.network.backbone : o.network.weights,
               printable(paths[image.index]));
        npy.add(values);
        list += fmt::format("{},{}\n", rows++, csv_field(paths[image.index].string()));
      },
      [&](size_t i, const std::string& message) {
        print_diagnostic("graft: skipped: {}\n", message);
        skipped.push_back({{"path", paths[i].string()}, {"why", message}});
      });
  if (rows == 0) fail(ErrorKind::input, "none of the {} pictures could be read", paths.size());
  write_file_atomic(list_path, list);
  npy.commit();
  row.insert(row.begin(), static_cast<int64_t>(rows));
  if (o.json)
    print_json({{"output", output.string()},
                {"list", list_path.string()},
                {"shape", row},
                {"layer", network.layers.back().name},
                {"skipped", skipped}});
  else if (!o.common.quiet)
    print_result("{}: {} float32 of {}; pictures in {}\n", printable(output), shape_text(row),
                 network.layers.back().name, printable(list_path));
  return skipped.empty() ? 0 : 1;
}

}  // namespace

int run_features(int argc, char** argv) {
  FeaturesOptions o;
  CLI::App app("Activations of a backbone for pictures, as a NumPy .npy file (float32).",
               "graft features");
  app.add_option("PATH", o.paths, "Pictures or folders of pictures")->required();
  app.add_option("-o,--output", o.output, "The .npy file; FILE.csv beside it lists the rows")
      ->required()
      ->type_name("FILE.npy");
  add_backbone_options(app, o.network);
  app.add_flag(
      "--include-top", o.include_top,
      "Up to the logits of the file's own classes ('predictions') where --until says nothing");
  app.add_option("--pool", o.pool, "none (N, C, H, W), gap (N, C) or flatten (N, C·H·W)")
      ->check(one_of({"none", "gap", "flatten"}))
      ->capture_default_str()
      ->type_name("POOL");
  app.add_option("--batch-size", o.batch_size, "Pictures computed at once")
      ->check(whole_number(1, 4096))
      ->capture_default_str()
      ->type_name("N");
  app.add_option("--seed", o.seed, "For --weights none")
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
      "  graft features a.jpg b.jpg --backbone vgg19 --weights blocks1-3.h5 \\\n"
      "      --until block3_pool --input-size 150 -o maps.npy\n"
      "Rows follow the sorted paths. Activations are after ReLU; 'predictions' are logits.");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
