// graft weights: what is published, what is here, and whether it is whole.
#include <optional>

#include "base/file.h"
#include "base/hash.h"
#include "base/words.h"
#include "cli/arguments.h"
#include "cli/common.h"
#include "cli/outputs.h"
#include "graft/error.h"
#include "model/backbone_file.h"
#include "recipe/options.h"
#include "weights/download.h"
#include "weights/registry.h"

namespace graft::cli {
namespace {

struct WeightsOptions {
  CommonOptions common;
  std::string cache_dir;
  std::vector<std::string> names;
  bool include_top = false;
  bool json = false;
  std::string output;
  std::string dtype = "fp32";
  bool fold = false;
  std::string source, licence;
};

enum class FileState { absent, good, wrong_size, wrong_md5 };

FileState check(const PublishedFile& file, const fs::path& path) {
  std::error_code error;
  if (!fs::exists(path, error)) return FileState::absent;
  if (fs::file_size(path, error) != file.bytes) return FileState::wrong_size;
  return md5_of_file(path) == file.md5 ? FileState::good : FileState::wrong_md5;
}

int list(const WeightsOptions& o) {
  const fs::path cache = cache_folder(o.cache_dir);
  nlohmann::json rows = nlohmann::json::array();
  if (!o.json)
    print_result("{:<9} {:<4} {:>9}  {:<32}  {}\n", "backbone", "top", "size", "MD5", "here");
  for (const PublishedFile& file : published_files()) {
    std::error_code error;
    const fs::path path = cached_path(file, cache);
    const bool exists = fs::exists(path, error);
    const bool here = exists && fs::file_size(path, error) == file.bytes;
    if (o.json)
      rows.push_back({{"backbone", file.backbone},
                      {"include_top", file.include_top},
                      {"url", file.url},
                      {"md5", file.md5},
                      {"bytes", file.bytes},
                      {"licence", file.licence},
                      {"path", cached_path(file, cache).string()},
                      {"present", exists}});
    else
      print_result("{:<9} {:<4} {:>9}  {:<32}  {}\n", file.backbone,
                   file.include_top ? "yes" : "no", format_bytes(static_cast<double>(file.bytes)),
                   file.md5,
                   here     ? "yes"
                   : exists ? "wrong size"
                            : "no");
  }
  if (o.json)
    print_json({{"folder", (cache / "weights").string()}, {"files", rows}});
  else
    print_result("folder: {}\n", printable(cache / "weights"));
  return 0;
}

const PublishedFile& need_published(const std::string& name, bool include_top) {
  const PublishedFile* file = find_published(name, include_top);
  if (file == nullptr) {
    std::vector<std::string> names;
    for (const PublishedFile& known : published_files()) names.emplace_back(known.backbone);
    fail(ErrorKind::usage,
         "no published weights for '{}'{}; 'graft weights list' shows what there is", clipped(name),
         did_you_mean(name, names));
  }
  return *file;
}

int fetch(const WeightsOptions& o) {
  if (o.names.empty())
    fail(ErrorKind::usage, "name the backbone: 'graft weights download vgg16' or vgg19");
  const fs::path cache = cache_folder(o.cache_dir);
  for (const std::string& typed : o.names) {
    const PublishedFile& file = need_published(options::backbone_name(typed), o.include_top);
    const fs::path path = cached_path(file, cache);
    std::error_code error;
    if (fs::exists(path, error)) {
      if (check(file, path) == FileState::good) {
        print_result("{}: already there\n", printable(path));
        continue;
      }
      fail(ErrorKind::input, "{}: is there, but is not the published file; delete it first",
           printable(path));
    }
    download({download_url(file), path, file.md5, file.bytes}, o.common.context());
    print_result("{}\n", printable(path));
  }
  return 0;
}

/// One row of `verify`: what is wrong with a file, or nothing.
std::string problem(FileState state) {
  switch (state) {
    case FileState::wrong_size:
      return "wrong size: delete and download it again";
    case FileState::wrong_md5:
      return "wrong MD5: delete and download it again";
    case FileState::absent:
    case FileState::good:
      break;
  }
  return "";
}

int verify(const WeightsOptions& o) {
  const fs::path cache = cache_folder(o.cache_dir);
  int bad = 0;
  int seen = 0;
  nlohmann::json rows = nlohmann::json::array();
  const auto report = [&](const fs::path& path, const std::string& why, const std::string& source) {
    ++seen;
    bad += why.empty() ? 0 : 1;
    rows.push_back(
        {{"path", path.string()}, {"ok", why.empty()}, {"why", why}, {"source", source}});
    if (!o.json)
      print_result("{}: {}\n", printable(path), why.empty() ? "good (" + source + ")" : why);
  };
  if (o.names.empty()) {
    for (const PublishedFile& file : published_files()) {
      const fs::path path = cached_path(file, cache);
      const FileState state = check(file, path);
      if (state != FileState::absent) report(path, problem(state), file.source);
    }
  }
  for (const std::string& name : o.names) {
    if (const PublishedFile* file = find_published(options::backbone_name(name), o.include_top)) {
      const fs::path path = cached_path(*file, cache);
      const FileState state = check(*file, path);
      report(path, state == FileState::absent ? "not downloaded" : problem(state), file->source);
      continue;
    }
    const PublishedFile* file = find_published_md5(md5_of_file(name));
    report(name, file == nullptr ? "not one of the published files" : "",
           file == nullptr ? "" : file->source);
  }
  if (o.json)
    print_json({{"files", rows}});
  else if (seen == 0)
    print_result("nothing to verify in {}\n", printable(cache / "weights"));
  return bad == 0 ? 0 : 1;
}

/// From a model to the backbone in it, as a file for --weights.
int convert(const WeightsOptions& o) {
  if (o.names.size() != 1 || o.output.empty())
    fail(ErrorKind::usage,
         "'graft weights convert MODEL -o FILE.safetensors': one model, one file");
  if (fs::path(o.output).extension() != ".safetensors")
    fail(ErrorKind::usage, "--output: {}: the name must end in .safetensors", o.output);
  refuse_input_as_output(o.output, "--output", {resolve_model(o.names.front())});
  ModelFile made = without_head(read_model(resolve_model(o.names.front())));
  if (o.fold) made = fold_batchnorm(made);
  if (!o.source.empty()) made.metadata.provenance.source = o.source;
  if (!o.licence.empty()) made.metadata.provenance.licence = o.licence;
  write_model(o.output, made, o.dtype == "fp16" ? StoredType::f16 : StoredType::f32);
  std::error_code error;
  print_result("{}: {}, {}\n", printable(o.output), made.metadata.network.backbone,
               format_bytes(static_cast<double>(fs::file_size(o.output, error))));
  return 0;
}

}  // namespace

int run_weights(int argc, char** argv) {
  WeightsOptions o;
  std::string action;
  CLI::App app(
      "Weights of backbones: what is published, fetching it, checking it; a model's for reuse.",
      "graft weights");
  app.add_option("ACTION", action, "list, download, verify or convert")
      ->required()
      ->check(one_of({"list", "download", "verify", "convert"}))
      ->type_name("ACTION");
  app.add_option("NAME", o.names,
                 "Backbones (vgg16, vgg19); for verify also files; for "
                 "convert a model");
  app.add_option("-o,--output", o.output, "convert: the file to write")->type_name("FILE");
  app.add_option("--dtype", o.dtype, "convert: how to store the values")
      ->check(one_of({"fp32", "fp16"}))
      ->capture_default_str()
      ->type_name("fp32|fp16");
  app.add_flag("--fold-batchnorm", o.fold,
               "convert: fold BatchNorm into the convolutions: vgg16_bn becomes vgg16");
  app.add_option("--source", o.source, "convert: where the weights come from, to be recorded")
      ->type_name("TEXT");
  app.add_option("--licence", o.licence, "convert: their licence, to be recorded")
      ->type_name("TEXT");
  app.add_flag("--include-top", o.include_top, "The file with fc1, fc2 and predictions");
  app.add_option("--cache-dir", o.cache_dir,
                 "Graft's cache folder (default: $XDG_CACHE_HOME/graft or ~/.cache/graft)")
      ->type_name("DIR");
  app.add_flag("--json", o.json, "One JSON document on stdout (list, verify)");
  add_common_options(app, o.common);
  app.footer(
      "Examples:\n"
      "  graft weights list\n"
      "  graft weights download vgg19\n"
      "  graft weights verify\n"
      "  graft weights convert runs/mine -o backbone.safetensors\n"
      "  graft train photos/ --weights backbone.safetensors\n"
      "$GRAFT_WEIGHTS_MIRROR names another server that has the same files.");
  return run_app(app, argc, argv, [&] {
    if (action == "list") return list(o);
    if (action == "convert") return convert(o);
    return action == "download" ? fetch(o) : verify(o);
  });
}

}  // namespace graft::cli
