// graft compare: runs side by side.
#include <set>

#include "base/file.h"
#include "cli/common.h"
#include "graft/error.h"
#include "report/compare.h"

namespace graft::cli {
namespace {

struct CompareOptions {
  CommonOptions common;
  std::vector<std::string> runs;
  std::string html;
  bool json = false;
};

int run(const CompareOptions& o) {
  std::vector<ComparedRun> runs;
  std::set<std::string> seen;
  for (const std::string& folder : o.runs) {
    if (!seen.insert(fs::weakly_canonical(folder).string()).second)
      fail(ErrorKind::usage, "{}: named twice; name different runs", folder);
    runs.push_back(read_compared_run(folder));
  }
  if (runs.size() < 2) fail(ErrorKind::usage, "compare needs at least two run folders");
  const std::vector<PairComparison> pairs = compare_pairs(runs);
  if (!o.html.empty()) write_file_atomic(o.html, compare_page(runs, pairs));
  if (o.json)
    print_json(compare_json(runs, pairs));
  else
    print_result("{}", compare_text(runs, pairs));
  return 0;
}

}  // namespace

int run_compare(int argc, char** argv) {
  CompareOptions o;
  CLI::App app("Training runs side by side, with a test of whether they differ.", "graft compare");
  app.add_option("RUN", o.runs, "Run folders")->required();
  app.add_option("--html", o.html, "Write a page to this file")
      ->check(ends_in(".html"))
      ->type_name("FILE.html");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_common_options(app, o.common);
  app.footer("Examples:\n  graft compare runs/a runs/b runs/c --html compare.html");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
