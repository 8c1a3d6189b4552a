// Parts of graft/compare.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "graft/compare.h"
#include "report/predictions.h"
#include "run/run_folder.h"

namespace graft {

struct ComparedRun {
  std::string name;  ///< as given
  RunFolder run;
  std::vector<PredictionRow> predictions;
};

/// Reads a run folder. Throws Error(input) where it is none, or was made before predictions were
/// kept.
ComparedRun read_compared_run(const std::filesystem::path& folder);

/// Two runs on the images that both classified: McNemar's test of "both are wrong equally often"
/// (McNemar, 1947), exact: two-sided binomial over the images that one alone got right.
struct PairComparison {
  size_t a = 0;
  size_t b = 0;
  std::string split;   ///< "test", or "val" where one of them has no test images
  int64_t images = 0;  ///< in common
  int64_t only_a = 0;  ///< right in a alone
  int64_t only_b = 0;
  int64_t both = 0;
  double p = 1;
};

double mcnemar(int64_t only_a, int64_t only_b);

/// Every run against every other.
std::vector<PairComparison> compare_pairs(const std::vector<ComparedRun>& runs);

nlohmann::json compare_json(const std::vector<ComparedRun>& runs,
                            const std::vector<PairComparison>& pairs);
std::string compare_text(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs);
std::string compare_page(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs);

}  // namespace graft
