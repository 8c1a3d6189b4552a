// graft compare: runs side by side.
#include "graft/compare.h"

#include <unistd.h>

#include "base/file.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/option_flags.h"
#include "cli/outputs.h"
#include "cli/terminal.h"

namespace graft::cli {
namespace {

struct CompareOptions {
  CommonOptions common;
  std::vector<std::string> runs;
  std::string data;
  std::string html;
  bool json = false;
};

int run(const CompareOptions& o) {
  const std::vector<fs::path> runs(o.runs.begin(), o.runs.end());
  if (!o.html.empty()) refuse_input_as_output(o.html, "--html", runs);
  const Comparison made =
      o.data.empty()
          ? compare_runs(runs, o.common.context())
          : compare_runs(runs, open_dataset(o.data, o.common.context()), o.common.context());
  if (!o.html.empty()) {
    write_file_atomic(o.html, made.page);
    tell_wrote(o.common, o.html);
  }
  if (o.json)
    print_result("{}\n", made.json);
  else
    print_result("{}", for_stream(STDOUT_FILENO, with_flags(made.text)));
  return 0;
}

}  // namespace

int run_compare(int argc, char** argv) {
  CompareOptions o;
  CLI::App app("Training runs side by side: which is better, by how much, on which images.",
               "graft compare");
  app.add_option("RUN", o.runs, "Run folders")->required();
  app.add_option(
         "--data", o.data,
         "Compare on these images (their test split, else their validation split, else all), "
         "but for those that a run was trained on; default: the runs' own images that "
         "neither was trained on")
      ->type_name("DATA");
  app.add_option("--html", o.html, "Write a page to this file")
      ->check(ends_in(".html"))
      ->type_name("FILE.html");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft compare runs/a runs/b runs/c --html compare.html\n"
      "  graft compare runs/a runs/b --data photos/test");
  return run_app(app, argc, argv, [&] { return run(o); });
}

}  // namespace graft::cli
