#include "model/model_file.h"

#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "weights/file_kind.h"

namespace graft {

fs::path model_file(const fs::path& path) {
  require_reachable(path / "model.safetensors");
  std::error_code error;
  if (!fs::exists(path, error))
    fail(ErrorKind::input,
         "{}: no such model; give a model.safetensors or the run folder that "
         "'graft train' made",
         printable(path));
  if (!fs::is_directory(path, error)) return path;
  fs::path file = path / "model.safetensors";
  if (fs::exists(file, error)) return file;
  if (!fs::exists(path / "config.toml", error))
    fail(ErrorKind::input,
         "{}: this folder is no run (it has no model.safetensors and no config.toml); give the run "
         "folder that 'graft train' made",
         printable(path));
  fail(ErrorKind::input,
       "{}: this run has no model.safetensors yet: its training goes on or was interrupted; "
       "'graft train DATA `resume` RUN' ends it, and checkpoints/ may hold a model",
       printable(path));
}

ModelFile read_model_or_backbone(const fs::path& path) {
  const std::string name = printable(path);
  expect_model_file(path);
  SafetensorsFile file = read_safetensors(path);
  ModelFile model{parse_metadata(file.metadata, name), std::move(file.tensors)};
  check_tensors(model.metadata.network, model.metadata.network.layers.size(), model.tensors, name,
                "");
  check_finite(model.tensors, name);
  return model;
}

ModelFile read_model(const fs::path& path) {
  ModelFile model = read_model_or_backbone(path);
  const std::string name = printable(path);
  if (model.metadata.classes.empty())
    fail(ErrorKind::input,
         "{}: a backbone without a head, which cannot classify; train one on it with "
         "'graft train DATA `backbone` {} `weights` {}' ('graft export {} `without-head` -o FILE' "
         "writes it for other programs)",
         name, model.metadata.network.backbone, name, name);
  return model;
}

void write_model(const fs::path& path, const ModelFile& model, StoredType type) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const TensorSpec& spec : tensor_specs(model.metadata.network))
    tensors.emplace_back(spec.name, model.tensors.at(spec.name));
  write_safetensors(path, tensors, format_metadata(model.metadata), type);
}

}  // namespace graft
