// graft cache: what the feature cache holds, and emptying it.
#include <fmt/chrono.h>

#include "base/diagnostics.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "graft/dataset.h"
#include "graft/features.h"

namespace graft::cli {
namespace {

using nlohmann::json;

struct Options {
  CommonOptions common;
  std::string cache_dir;
  bool json = false;
};

int list(const Options& o) {
  const fs::path folder = feature_cache_folder(o.cache_dir);
  const std::vector<CachedFeatures> sets =
      cached_features(o.cache_dir, [](const std::string& problem) {
        print_diagnostic("graft: {}; 'graft cache clear' removes it\n", problem);
      });
  uint64_t total = 0;
  json rows = json::array();
  for (const CachedFeatures& set : sets) {
    total += set.bytes;
    json row = json::parse(set.about);
    row.update({{"id", set.id}, {"images", set.images}, {"bytes", set.bytes}, {"used", set.used}});
    rows.push_back(row);
  }
  const DecompressedArchives archives =
      o.cache_dir.empty() ? decompressed_archives() : DecompressedArchives{};
  if (o.json) {
    print_json({{"folder", folder.string()},
                {"bytes", total},
                {"sets", rows},
                {"archives",
                 {{"folder", archives.folder.string()},
                  {"files", archives.files},
                  {"bytes", archives.bytes}}}});
    return 0;
  }
  for (const json& row : rows) {
    const json input = row.value("input", json::array({0, 0}));
    print_result("{:<10} {:<14} {:>9} {:>5} {:>8} images {:>9}  used {:%Y-%m-%d %H:%M}{}\n",
                 row.value("backbone", "?"), row.value("until", "?"),
                 fmt::format("{}x{}", input.at(0).dump(), input.at(1).dump()),
                 row.value("dtype", "?"), row["images"].get<uint64_t>(),
                 format_bytes(row["bytes"].get<double>()),
                 fmt::localtime(static_cast<std::time_t>(row["used"].get<int64_t>())),
                 row.value("precision", "fp32") == "fp32" ? "" : ", in bf16");
  }
  print_result("{} sets of features, {}, in {}\n", sets.size(),
               format_bytes(static_cast<double>(total)), printable(folder));
  if (archives.files > 0)
    print_result("{} decompressed {}, {}, in {}\n", archives.files,
                 archives.files == 1 ? "archive" : "archives",
                 format_bytes(static_cast<double>(archives.bytes)), printable(archives.folder));
  return 0;
}

int clear(const Options& o) {
  const fs::path folder = feature_cache_folder(o.cache_dir);
  uint64_t bytes = clear_cached_features(o.cache_dir);
  if (o.cache_dir.empty()) bytes += clear_decompressed_archives();
  if (o.json)
    print_json({{"folder", folder.string()}, {"freed", bytes}});
  else if (!o.common.quiet)
    print_result("freed {} in {}\n", format_bytes(static_cast<double>(bytes)), printable(folder));
  return 0;
}

}  // namespace

int run_cache(int argc, char** argv) {
  Options o;
  std::string action;
  CLI::App app(
      "Features of frozen prefixes on disk, which training runs share, and decompressed archives.",
      "graft cache");
  app.add_option("ACTION", action, "list or clear")
      ->required()
      ->check(one_of({"list", "clear"}))
      ->type_name("ACTION");
  app.add_option("--cache-dir", o.cache_dir,
                 "Graft's cache folder (default: $XDG_CACHE_HOME/graft or ~/.cache/graft)")
      ->type_name("DIR");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft cache list\n"
      "  graft cache clear");
  return run_app(app, argc, argv, [&] { return action == "list" ? list(o) : clear(o); });
}

}  // namespace graft::cli
