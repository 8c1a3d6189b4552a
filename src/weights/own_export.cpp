#include "weights/own_export.h"

#include <functional>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/json.h"
#include "weights/file_seal.h"
#include "weights/flattened_order.h"
#include "weights/h5_process.h"
#include "weights/keras_classifier.h"
#include "weights/keras_model.h"
#include "weights/keras_names.h"
#include "weights/keras_values.h"
#include "weights/load.h"
#include "weights/metadata.h"
#include "weights/onnx_file.h"
#include "weights/onnx_weights.h"
#include "weights/torch_file.h"

namespace graft {
namespace {

using Texts = std::map<std::string, std::string>;
/// A module's tensor by its canonical role, or nothing.
using Find =
    std::function<std::optional<StoredTensor>(const std::string& module, const std::string& role)>;

OwnExport changed() {
  return {std::nullopt,
          "it was changed since 'graft export' wrote it, and is read as any other program's"};
}

/// A sealed file's model; of one that this version cannot read as its own, as of a changed one.
OwnExport as_export(std::optional<StoredSafetensors> model) {
  return model ? OwnExport{std::move(model)} : changed();
}

/// A record as one JSON object: each value as the text that it is in a model file's metadata.
Texts texts_of(const nlohmann::json& record) {
  Texts out;
  for (const auto& [key, value] : record.items()) out.emplace(key, value.dump());
  return out;
}

/// The record of an archive, where the hash in it is that of the record and of what is beside it.
std::optional<Texts> sealed_texts(const std::string& document, const std::string& beside,
                                  const std::string& name) {
  nlohmann::json record = parse_json(document, name + ": its record of the model");
  const auto seal = record.is_object() ? record.find(kSealKey) : record.end();
  if (seal == record.end() || !seal->is_string()) return std::nullopt;
  const std::string digits = *seal;
  *seal = kSealBlank;
  if (record_seal(record.dump(), beside) != digits) return std::nullopt;
  return texts_of(record);
}

/// The name that each layer has in the file.
Texts modules_of(const Texts& record, const std::string& name) {
  Texts out;
  const auto at = record.find("modules");
  if (at == record.end()) return out;
  const nlohmann::json modules = parse_json(at->second, name + ": `modules` of its record");
  if (!modules.is_object())
    fail(ErrorKind::input, "{}: `modules` of its record are no names by layer", name);
  for (const auto& [layer, module] : modules.items())
    out.emplace(layer, JsonField(module, name, "modules").text());
  return out;
}

std::optional<StoredSafetensors> assemble(const Texts& record, const std::string& name,
                                          const Find& find, bool channels_last) {
  std::optional<Texts> metadata = own_metadata(record);
  if (!metadata) return std::nullopt;
  const Texts modules = modules_of(record, name);
  const Network network = parse_metadata(*metadata, name).network;
  const std::vector<Shape> shapes = output_shapes(network);
  StoredSafetensors out;
  out.metadata = *std::move(metadata);
  for (const TensorSpec& spec : tensor_specs(network)) {
    const std::string& layer = network.layers[spec.layer].name;
    const auto module = modules.find(layer);
    if (module == modules.end()) return std::nullopt;
    const std::string role = spec.name.substr(layer.size() + 1);
    const std::optional<StoredTensor> tensor = find(module->second, role);
    if (!tensor || tensor->shape != spec.shape) return std::nullopt;
    out.tensors.emplace(spec.name,
                        channels_last ? in_graft_order(*tensor, network, spec, shapes) : *tensor);
  }
  return out;
}

OwnExport from_torch(const Texts& record, const StoredTensors& tensors, const std::string& name) {
  const Find find = [&](const std::string& module,
                        const std::string& role) -> std::optional<StoredTensor> {
    const auto at = tensors.find(module + "." + role);
    return at == tensors.end() ? std::nullopt : std::optional(at->second);
  };
  return as_export(assemble(record, name, find, /*channels_last=*/false));
}

}  // namespace

std::optional<Texts> own_metadata(const Texts& exported) {
  const auto format = exported.find("graft_export");
  if (format == exported.end() || format->second != "1") return std::nullopt;
  Texts out;
  for (const char* key : {"network", "classes", "preprocessing", "provenance", "training"}) {
    const auto at = exported.find(key);
    if (at != exported.end()) out.emplace(key, at->second);
  }
  const auto views = exported.find("test_views");
  const bool one_view = views == exported.end() || views->second == "1";
  out["graft_format"] = one_view ? "2" : "3";
  if (!one_view) out["test_views"] = views->second;
  return out;
}

OwnExport own_export(const std::shared_ptr<H5File>& file, const fs::path& path) {
  if (file->record().empty()) return {};
  const std::string& name = file->name();
  std::optional<Texts> record;
  if (!file->beside_record().empty()) {
    record = sealed_texts(file->record(), file->beside_record(), name);
  } else {
    const nlohmann::json held = parse_json(file->record(), name + ": its record of the model");
    const auto seal = held.is_object() ? held.find(kSealKey) : held.end();
    if (seal != held.end() && seal->is_string() &&
        has_seal(MappedFile(path).bytes(), seal->get<std::string>()))
      record = texts_of(held);
  }
  if (!record) return changed();
  if (file->description().empty())  // weights alone, each under its layer's name
    return as_export(assemble(
        *record, name,
        [&](const std::string& module, const std::string& role) -> std::optional<StoredTensor> {
          for (size_t i = 0; i < file->weights().size(); ++i) {
            const H5Weight& weight = file->weights()[i];
            if (weight.layer == module && weight.problem.empty() && keras_role(weight.name) == role)
              return stored_h5_weight(file, i);
          }
          return std::nullopt;
        },
        /*channels_last=*/true));
  const KerasModel model = parse_keras_model(file->description(), name);
  const KerasLocator locator(model, file->weights(), name);
  const Find find = [&](const std::string& module,
                        const std::string& role) -> std::optional<StoredTensor> {
    const KerasNode* layer = model.find(module);
    if (layer == nullptr || keras_roles(*layer).empty()) return std::nullopt;
    const std::map<std::string, size_t> roles = locator.roles_of({layer});
    const auto at = roles.find(role);
    return at == roles.end() ? std::nullopt : std::optional(stored_h5_weight(file, at->second));
  };
  return as_export(assemble(*record, name, find, /*channels_last=*/true));
}

OwnExport own_export(const TorchFile& file, const fs::path& path) {
  if (file.record.empty()) return {};
  const std::string name = printable(path);
  const std::optional<Texts> record = sealed_texts(file.record, file.beside_record, name);
  return record ? from_torch(*record, file.tensors, name) : changed();
}

OwnExport own_export(const StoredSafetensors& file, const fs::path& path) {
  if (!file.metadata.contains("graft_export")) return {};
  return file.sealed ? from_torch(file.metadata, file.tensors, printable(path)) : changed();
}

OwnExport own_export(const std::shared_ptr<const OnnxFile>& file, const fs::path& path) {
  if (!file->metadata().contains("graft_export")) return {};
  const auto seal = file->metadata().find(kSealKey);
  if (seal == file->metadata().end() || !has_seal(MappedFile(path).bytes(), seal->second))
    return changed();
  return as_export(own_model(*file));
}

OwnExport own_export(const fs::path& path, const std::stop_token& until) {
  switch (require_weights_file(path).format) {
    case FileKind::hdf5:
    case FileKind::keras:
      return own_export(std::make_shared<H5File>(path, until), path);
    case FileKind::torch:
      return own_export(read_torch(path), path);
    case FileKind::onnx:
      return own_export(OnnxFile::open(path), path);
    default:
      return own_export(open_safetensors(path), path);
  }
}

}  // namespace graft
