// graft summary: the network as a table.
#include <optional>

#include "base/columns.h"
#include "base/diagnostics.h"
#include "base/fail.h"
#include "cli/commands.h"
#include "cli/common.h"
#include "cli/numbers.h"
#include "cli/option_flags.h"
#include "graft/classifier.h"

namespace graft::cli {
namespace {

struct SummaryOptions {
  CommonOptions common;
  Recipe::Model network;
  std::string model;
  int classes = 0;
  bool include_top = false;
  bool json = false;
};

nlohmann::json summary_json(const Summary& summary) {
  nlohmann::json layers = nlohmann::json::array();
  for (const SummaryRow& row : summary.rows) {
    nlohmann::json shape = {row.output.channels};
    if (!row.output.flat) shape = {row.output.channels, row.output.height, row.output.width};
    layers.push_back({{"name", row.name},
                      {"kind", row.kind},
                      {"output_shape", shape},
                      {"parameters", row.parameters},
                      {"trainable", row.trainable > 0}});
  }
  return {{"layers", layers},
          {"parameters", summary.parameters},
          {"trainable", summary.trainable},
          {"non_trainable", summary.non_trainable()}};
}

void print_table(const Network& network, const Summary& summary) {
  const std::string rule(78, '-');
  print_result("{} at {}x{}\n{}\n", network.backbone, network.input_height, network.input_width,
               rule);
  print_result("{:<26} {:<10} {:<18} {:>12}  {}\n{}\n", "layer", "kind", "output (C, H, W)",
               "parameters", "trains", rule);
  for (const SummaryRow& row : summary.rows)
    print_result("{} {:<10} {:<18} {:>12}  {}\n", in_columns(row.name, 26), row.kind,
                 to_string(row.output), format_count(row.parameters),
                 row.trainable > 0 ? "yes" : "");
  double flops = 0;
  for (const double f : layer_flops(network)) flops += f;
  print_result("{}\nTotal params: {}\nTrainable params: {}\nNon-trainable params: {}\n", rule,
               format_count(summary.parameters), format_count(summary.trainable),
               format_count(summary.non_trainable()));
  print_result("Forward pass: {:.2f} GFLOP an image; weights {}\n", flops / 1e9,
               format_bytes(4.0 * static_cast<double>(summary.parameters)));
}

int run(const CLI::App& app, const SummaryOptions& o) {
  Network network;
  std::string fine_tune = o.network.fine_tune;
  if (!o.model.empty()) {
    for (const char* option : {"--backbone", "--weights", "--until", "--input-size", "--head",
                               "--classes", "--include-top"})
      if (app.count(option) > 0)
        fail(ErrorKind::usage, "{} contradicts a MODEL, which has its own network; leave one out",
             option);
    const ModelInfo model = read_model_info(o.model);
    network = model.network;
    if (app.count("--fine-tune") == 0) fine_tune = model.fine_tune;
  } else {
    network = make_backbone(o.network, o.include_top);
    if (o.include_top && o.classes > 0)
      fail(ErrorKind::usage, "--include-top contradicts --classes: a new head replaces the top");
    if (app.count("--head") > 0 && o.classes == 0)
      fail(ErrorKind::usage, "--head needs --classes N, for the last Dense to the classes");
    if (o.classes > 0) network = with_head(std::move(network), o.network.head, o.classes);
  }
  if (const std::string note = fine_tune_note(network, fine_tune);
      !note.empty() && app.count("--fine-tune") > 0 && !o.common.quiet)
    print_diagnostic("note: {}\n", with_flags(note));
  if (fine_tune.empty()) fine_tune = "0";
  const Summary summary = summarize(network, freeze_plan(network, fine_tune));
  if (o.json)
    print_json(summary_json(summary));
  else
    print_table(network, summary);
  return 0;
}

}  // namespace

int run_summary(int argc, char** argv) {
  SummaryOptions o;
  CLI::App app("The layers, output shapes and parameters of a network or a saved model.",
               "graft summary");
  app.add_option("MODEL", o.model, "A saved model or run folder (default: from the options)");
  add_backbone_options(app, o.network);
  add_head_options(app, o.network);
  app.add_option("--classes", o.classes, "Number of classes of the head (default: no head)")
      ->check(whole_number(2, 1 << 20))
      ->type_name("N");
  app.add_flag("--include-top", o.include_top, "With fc1, fc2 and the 1000-class predictions");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft summary --backbone vgg16 --classes 6 \\\n"
      "      --head \"flatten dense:4096 dense:1072 dropout:0.2\"\n"
      "  graft summary --backbone vgg19 --until block3_pool --input-size 150 --json\n"
      "  graft summary runs/scenes");
  return run_app(app, argc, argv, [&] { return run(app, o); });
}

}  // namespace graft::cli
