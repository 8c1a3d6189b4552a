// graft compare: runs side by side.
#include "graft/compare.h"
#include "base/file.h"
#include "cli/commands.h"
#include "cli/common.h"

namespace graft::cli {
namespace {

struct CompareOptions {
  CommonOptions common;
  std::vector<std::string> runs;
  std::string html;
  bool json = false;
};

int run(const CompareOptions& o) {
  const Comparison made = compare_runs({o.runs.begin(), o.runs.end()});
  if (!o.html.empty()) {
    write_file_atomic(o.html, made.page);
    tell_wrote(o.common, o.html);
  }
  if (o.json)
    print_result("{}\n", made.json);
  else
    print_result("{}", made.text);
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
