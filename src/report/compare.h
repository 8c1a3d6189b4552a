// Parts of graft/compare.h.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "graft/compare.h"
#include "report/predictions.h"
#include "run/run_folder.h"

namespace graft {

struct ComparedRun {
  std::string name;  ///< as given
  RunFolder run;
  /// What it says about images that it was not trained on, by what identifies them.
  std::map<std::string, PredictionRow> held_back;
  std::set<std::string> trained;  ///< the images that it was trained on
};

/// One class of a comparison.
struct ClassComparison {
  std::string label;
  int64_t images = 0;
  int64_t right_a = 0;
  int64_t right_b = 0;
};

/// An image that one of two runs alone got right.
struct Flip {
  const PredictionRow* a = nullptr;
  const PredictionRow* b = nullptr;
};

/// Two runs on the images that both classified and neither was trained on: McNemar's test of "both
/// are wrong equally often" (McNemar, 1947), exact: two-sided binomial over the images that one
/// alone got right.
struct PairComparison {
  size_t a = 0;
  size_t b = 0;
  std::string split{};  ///< "test", "val", or "unseen" where they are of several
  int64_t images = 0;   ///< in common
  int64_t only_a = 0;   ///< right in a alone
  int64_t only_b = 0;
  int64_t both = 0;
  double p = 1;
  double difference = 0;  ///< top-1 of b less that of a
  double low = 0;         ///< its 95 % interval
  double high = 0;
  std::vector<ClassComparison> classes{};
  std::vector<Flip> flips{};  ///< the most certain first

  [[nodiscard]] bool is_significant() const { return images > 0 && p < 0.05; }
};

double mcnemar(int64_t only_a, int64_t only_b);

/// The keys on which two runs are compared: test images that they have in common, else all in
/// common. `held_back` of both: see ComparedRun.
std::vector<std::string> common_images(const ComparedRun& a, const ComparedRun& b);

/// Every run against every other. What it gives points into `runs`.
std::vector<PairComparison> compare_pairs(const std::vector<ComparedRun>& runs);

nlohmann::json compare_json(const std::vector<ComparedRun>& runs,
                            const std::vector<PairComparison>& pairs);
std::string compare_text(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs);
std::string compare_page(const std::vector<ComparedRun>& runs,
                         const std::vector<PairComparison>& pairs);

}  // namespace graft
