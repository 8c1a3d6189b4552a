#include "export/torch_file.h"

#include <utility>

#include "base/fail.h"
#include "base/zip_writer.h"
#include "export/export_metadata.h"
#include "export/pickle.h"
#include "export/torch_names.h"
#include "weights/safetensors.h"
#include "weights/torch_file.h"

namespace graft {
namespace {

/// A tensor's name here and there.
struct Renamed {
  std::string canonical;
  std::string torch;
};

std::vector<Renamed> renamed(const Network& network) {
  const std::vector<std::string> modules = torch_modules(network);
  std::vector<Renamed> out;
  for (const TensorSpec& spec : tensor_specs(network)) {
    const std::string role = spec.name.substr(network.layers[spec.layer].name.size());
    out.push_back({spec.name, modules[spec.layer] + role});
  }
  return out;
}

/// With the name of each layer's module, by which the layers' list finds its tensors.
std::map<std::string, std::string> metadata_of(const ModelFile& model) {
  const Network& network = model.metadata.network;
  const std::vector<std::string> modules = torch_modules(network);
  std::map<std::string, std::string> by_layer;
  for (size_t i = 0; i < modules.size(); ++i)
    if (!modules[i].empty()) by_layer.emplace(network.layers[i].name, modules[i]);
  return export_metadata(model.metadata, by_layer);
}

}  // namespace

void write_torch(AtomicFile& file, const ModelFile& model, const ExportOptions& options) {
  // torch::save's layout: a folder that may have any name, the pickle, each storage by its key, and
  // the format's version; storages begin at multiples of 64, so that torch can map them.
  constexpr uint64_t kAlignment = 64;
  ZipWriter zip(file, kAlignment);
  std::vector<std::pair<std::string, std::vector<int64_t>>> tensors;
  const std::vector<Renamed> names = renamed(model.metadata.network);
  tensors.reserve(names.size());
  for (const Renamed& name : names)
    tensors.emplace_back(name.torch, model.tensors.at(name.canonical).shape());
  zip.add("archive/data.pkl",
          state_dict_pickle(tensors, options.half ? "HalfStorage" : "FloatStorage"));
  zip.add("archive/byteorder", "little");
  for (size_t i = 0; i < names.size(); ++i) {
    const Tensor& tensor = model.tensors.at(names[i].canonical);
    const std::string record = fmt::format("archive/data/{}", i);
    if (options.half)
      zip.add(record,
              std::as_bytes(std::span<const uint16_t>(as_halves(tensor, names[i].canonical))));
    else
      zip.add(record, std::as_bytes(tensor.values()));
  }
  zip.add("archive/version", "3\n");
  // PyTorch reads the records that its pickle names and leaves others alone.
  zip.add("archive/extra/graft.json", sealed_record(metadata_of(model), zip.listing()));
  zip.finish();
}

void write_torch_safetensors(AtomicFile& file, const ModelFile& model,
                             const ExportOptions& options) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const Renamed& name : renamed(model.metadata.network))
    tensors.emplace_back(name.torch, model.tensors.at(name.canonical));
  std::map<std::string, std::string> metadata = metadata_of(model);
  metadata["format"] = "pt";  // what others' loaders look for
  write_safetensors(file, tensors, metadata, options.half ? StoredType::f16 : StoredType::f32);
}

}  // namespace graft
