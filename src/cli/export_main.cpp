// The program `graft-export`, which `graft export` becomes.
#include <memory>

#include "base/diagnostics.h"
#include "base/file.h"
#include "cli/export_options.h"
#include "cli/signals.h"
#include "cli/status_stream.h"

namespace graft::cli {
namespace {

int run(const ExportArguments& given) {
  ExportArguments o = given;
  if (o.status_fd >= 0) o.common.report_to(std::make_shared<StatusStream>(o.status_fd));
  const ExportResult result =
      export_model(o.model, o.output, o.options, o.import, o.common.context());
  tell_wrote(o.common, o.output);
  if (o.json) {
    print_json({{"output", o.output.string()},
                {"bytes", result.bytes},
                {"images_compared", result.images_compared},
                {"largest_error", result.largest_error},
                {"checks", result.checks}});
    return 0;
  }
  if (o.common.quiet) return 0;
  print_result("{}: {}\n", printable(o.output), format_bytes(static_cast<double>(result.bytes)));
  for (const std::string& check : result.checks) print_result("{}\n", check);
  print_result(
      "the {} of {} synthetic images agree with those of the file as read back (largest "
      "difference {:.1e})\n",
      o.options.without_head ? "maps" : "logits", result.images_compared, result.largest_error);
  return 0;
}

}  // namespace
}  // namespace graft::cli

int main(int argc, char** argv) {
  graft::prepare_standard_streams();
  graft::cli::install_signal_handlers();
  return graft::cli::run_export_app(argc, argv, graft::cli::run);
}
