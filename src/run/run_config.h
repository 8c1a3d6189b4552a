// What a run was made with, as its config.toml has it.
#pragma once

#include <array>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "graft/train.h"
#include "recipe/options.h"
#include "recipe/options_file.h"

namespace graft {

template <>
struct options::Words<GradientCompression> {
  static constexpr std::array<std::string_view, 3> list = {"none", "fp16", "bf16"};
};

/// How every config.toml of a run begins, now and in earlier versions.
inline constexpr std::string_view kConfigStart = "# Options of this run.";

/// A recipe, and where the data, the caches and the report are.
struct RunConfig {
  Recipe recipe;
  std::string data;  ///< empty in files of earlier versions
  std::string val;
  std::string test;
  std::string corrections;
  std::string cache_dir;
  double cache_limit = 20;  ///< GB
  bool no_cache = false;
  bool no_report = false;
  bool check_labels = false;
  GradientCompression compression = GradientCompression::none;

  [[nodiscard]] CacheOptions cache() const { return {!no_cache, cache_dir, cache_limit * 1e9}; }
};

/// Visits all options; see recipe/options.h.
template <typename Visitor>
void visit_run_config(Visitor&& visit, RunConfig& c) {
  using G = options::OptionGroup;
  visit({"val", "DIR", "Validation images: a folder of class folders", G::common, true}, c.val,
        options::PathText{});
  visit({"test", "DIR", "Test images, evaluated once at the end", G::common, true}, c.test,
        options::PathText{});
  options::visit_options(visit, c.recipe);
  visit({"corrections", "FILE",
         "A review of labels (review.csv) that a person has filled in: images to keep, relabel or "
         "drop, before anything else",
         G::data},
        c.corrections, options::PathText{});
  visit(
      {"check-labels", "",
       "Look for labels that are probably wrong: review.csv in the run folder, to be filled in for "
       "`corrections`, and a part of the report",
       G::data, true},
      c.check_labels, options::Flag{});
  visit({"cache-dir", "DIR",
         "Graft's cache folder, for weights and features (default: $XDG_CACHE_HOME/graft)",
         G::machine, true},
        c.cache_dir, options::PathText{});
  visit({"cache-limit", "GB",
         "Most disk space for cached features; the least recently used go first", G::machine, true},
        c.cache_limit, options::Number{0.001, 100'000});
  visit({"no-cache", "", "Neither read nor write cached features", G::machine}, c.no_cache,
        options::Flag{});
  visit({"gradient-compression", "TYPE",
         "What gradients are rounded to on their way between the processes of a group: none, fp16 "
         "(with a scale for each 25 MB) or bf16; half the bytes",
         G::machine, true},
        c.compression, options::Word{});
  visit({"no-report", "", "Do not write report.html into the run folder", G::run, true},
        c.no_report, options::Flag{});
}

/// Every option in effect.
std::string to_toml(const RunConfig& config);
/// Of a run folder. Throws Error(input) where there is none, Error(usage) for what it cannot hold.
RunConfig read_run_config(const std::filesystem::path& run);

/// For a run that is resumed: where the run whose split it took over has gone, its own split.csv
/// says the same.
void keep_own_split(Recipe& recipe, const std::filesystem::path& run);

/// The corrections that a run which is resumed began with: its copy, since people go on with the
/// file that they `named`. Empty where none were.
std::filesystem::path run_corrections(const std::filesystem::path& run,
                                      const std::filesystem::path& named);

/// Throws Error(usage) where that device cannot compute as a run has begun.
void require_precision_of(const std::filesystem::path& run, const Recipe& recipe);

}  // namespace graft
