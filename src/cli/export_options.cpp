#include "cli/export_options.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "base/fail.h"
#include "base/file.h"
#include "cli/arguments.h"
#include "cli/outputs.h"
#include "cli/status_stream.h"
#include "graft/classifier.h"

namespace graft::cli {
namespace {

struct Typed {
  CommonOptions common;
  std::string model;
  std::string output;
  std::string format;
  std::string dtype = "fp32";
  std::string input = "uint8";
  bool without_head = false;
  ImportArguments import;
  bool force = false;
  bool json = false;
  int status_fd = -1;
};

/// The word for a format, and the suffixes that its files have; the first is that of a name that is
/// made up.
struct Format {
  ExportFormat format;
  std::string_view word;
  std::string_view suffixes;
  std::string_view made_up;
};
constexpr Format kFormats[] = {
    {ExportFormat::onnx, "onnx", ".onnx", ".onnx"},
    {ExportFormat::keras, "keras", ".keras or .h5", ".keras"},
    {ExportFormat::keras_h5, "keras", ".keras or .h5", ".h5"},
    {ExportFormat::torch, "torch", ".pth or .pt", ".pth"},
    // Beside the model of a run folder, which is a .safetensors file too.
    {ExportFormat::safetensors, "safetensors", ".safetensors", ".torch.safetensors"},
};

/// The format of a file of that name, among those that the word stands for; empty: any.
const Format* named_format(const std::string& file, const std::string& word) {
  const std::optional<ExportFormat> named = export_format(file);
  if (!named) return nullptr;
  for (const Format& format : kFormats)
    if (format.format == named.value() && (word.empty() || format.word == word)) return &format;
  return nullptr;
}

const Format& format_of(const Typed& o) {
  if (const Format* format = named_format(o.output, o.format)) return *format;
  if (o.format.empty())
    fail(ErrorKind::usage,
         "name the format: --format onnx, keras, torch or safetensors, or -o FILE that ends in "
         ".onnx, .keras, .h5, .pth or .safetensors");
  const auto* format = std::find_if(std::begin(kFormats), std::end(kFormats),
                                    [&](const Format& f) { return f.word == o.format; });
  if (!o.output.empty())
    fail(ErrorKind::usage, "-o: '{}' must end in {} for --format {}", clipped(o.output),
         format->suffixes, o.format);
  return *format;
}

ExportArguments arguments_of(const Typed& o) {
  const Format& format = format_of(o);
  ExportArguments out{
      .common = o.common,
      .model = o.model,
      .output = o.output,
      .options = {.format = format.format,
                  .half = o.dtype == "fp16",
                  .input = o.input == "float" ? ExportInput::float32 : ExportInput::uint8,
                  .without_head = o.without_head},
      .import = o.import.import(),
      .json = o.json,
      .status_fd = o.status_fd};
  const fs::path model = model_file(o.model);
  if (out.output.empty()) {
    out.output = model;
    out.output.replace_extension(format.made_up);
    if (std::error_code error; !o.force && fs::exists(fs::symlink_status(out.output, error)))
      fail(ErrorKind::usage,
           "--format: {}, the model's name with another end, exists already; choose a name with -o "
           "FILE, or --force to replace it",
           printable(out.output));
  }
  refuse_weights_alone(out.output, "-o");
  refuse_input_as_output(out.output, "-o", {model});
  return out;
}

}  // namespace

int run_export_app(int argc, char** argv, const std::function<int(const ExportArguments&)>& run) {
  Typed o;
  CLI::App app("Writes a trained model as a file for other runtimes.", "graft export");
  app.add_option("MODEL", o.model,
                 "A model.safetensors or a run folder, or another program's file of a classifier")
      ->required();
  app.add_option("--format", o.format,
                 "onnx (opset 13), keras (.keras, or .h5 by the name), torch (.pth, a state_dict) "
                 "or safetensors (the same tensors); default: by the name of FILE")
      ->check(one_of({"onnx", "keras", "torch", "safetensors"}))
      ->type_name("FORMAT");
  app.add_option("-o,--output", o.output,
                 "The file to write (default: beside MODEL, with the format's suffix)")
      ->type_name("FILE");
  app.add_option("--dtype", o.dtype,
                 "How to store the weights; fp16 halves the file, computing stays float32")
      ->check(one_of({"fp32", "fp16"}))
      ->capture_default_str()
      ->type_name("fp32|fp16");
  app.add_option("--input", o.input,
                 "onnx: uint8 (pixels, N,H,W,3, RGB; preprocessing in the graph) or float "
                 "(N,3,H,W, preprocessed)")
      ->check(one_of({"uint8", "float"}))
      ->capture_default_str()
      ->type_name("uint8|float");
  app.add_flag("--without-head", o.without_head,
               "torch, safetensors, keras (.h5): the backbone alone, under torchvision's or Keras' "
               "names");
  add_import_options(app, o.import);
  app.add_flag("--force", o.force, "Without -o: replace a file of that name");
  app.add_flag("--json", o.json, "One JSON document on stdout");
  add_status_option(app, o.status_fd);
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft export runs/pets -o pets.onnx\n"
      "  graft export runs/pets --format keras -o pets.keras\n"
      "  graft export runs/pets --format torch --dtype fp16 -o pets.pth\n"
      "  graft export theirs.keras --classes cat,dog -o theirs.onnx\n"
      "Images must be brought to the input size as the model's preprocessing says; ONNX files say "
      "it in their metadata. docs/export.md has inputs, outputs and names.");
  return run_app(app, argc, argv, [&] {
    return reporting_errors(o.status_fd, [&] { return run(arguments_of(o)); });
  });
}

}  // namespace graft::cli
