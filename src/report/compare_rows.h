// What the text and the page of a comparison share.
#pragma once

#include <string>
#include <vector>

#include "report/compare.h"

namespace graft {

/// The table of runs: a row of names, and one for each run.
std::vector<std::string> run_header();
std::vector<std::string> run_row(const ComparedRun& run);

std::vector<std::string> pair_header();
std::vector<std::string> pair_row(const std::vector<ComparedRun>& runs, const PairComparison& p);

std::vector<std::string> class_header();
std::vector<std::string> class_row(const ClassComparison& c);

/// Who won, in a sentence.
std::string verdict(const std::vector<ComparedRun>& runs, const PairComparison& p);

/// Stands where a run has no such figure.
inline constexpr const char* kNoFigure = "–";

/// Options in which the runs differ, by name: of each run its value, "–" where it has none. The
/// first row is the header.
std::vector<std::vector<std::string>> option_differences(const std::vector<ComparedRun>& runs);

/// A value of config.toml as text, without its quotes; "" where it is missing.
std::string run_option(const ComparedRun& run, const std::string& key);

/// Of the whole run, as times.json counts; of runs that have none, of the epochs.
double run_seconds(const ComparedRun& run);

}  // namespace graft
