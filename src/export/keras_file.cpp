#include "export/keras_file.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <string_view>

#include "base/fail.h"
#include "base/zip_writer.h"
#include "export/export_metadata.h"
#include "export/h5_writer.h"
#include "export/keras_graph.h"
#include "weights/file_seal.h"

namespace graft {
namespace {

// The versions whose dialects these are; readers choose by them how they read.
constexpr const char* kKeras3 = "3.0.0";
constexpr const char* kKeras2 = "2.15.0";

/// Conv2D → conv2d, MaxPooling2D → max_pooling2d: Keras' naming.to_snake_case for such names.
std::string snake_case(const std::string& kind) {
  std::string out;
  for (size_t i = 0; i < kind.size(); ++i) {
    const auto c = static_cast<unsigned char>(kind[i]);
    const bool word = i > 0 && std::isupper(c) != 0 && i + 1 < kind.size() &&
                      std::islower(static_cast<unsigned char>(kind[i + 1])) != 0;
    if (word) out += '_';
    out += static_cast<char>(std::tolower(c));
  }
  return out;
}

StoredType stored(const KerasVariable& variable, const ExportOptions& options) {
  return options.half && variable.may_be_half ? StoredType::f16 : StoredType::f32;
}

/// model.weights.h5: layers by kind and number, variables by number.
void write_weights(H5Writer& h5, const KerasGraph& graph, const ExportOptions& options) {
  std::map<std::string, int> seen;
  for (const KerasLayer& layer : graph.layers) {
    std::string place = snake_case(layer.kind);
    if (const int number = seen[place]++; number > 0) place += "_" + std::to_string(number);
    const std::string group = "/layers/" + place + "/vars";
    h5.group(group);
    for (size_t i = 0; i < layer.variables.size(); ++i)
      h5.array(group + "/" + std::to_string(i), layer.variables[i].values(),
               stored(layer.variables[i], options));
  }
  h5.group("/vars");
}

/// Layers of the older layout, each with its variables by name, in a group that ends in '/'.
void write_layers(H5Writer& h5, const KerasGraph& graph, const std::string& root,
                  const std::set<std::string>& wanted, const ExportOptions& options) {
  std::vector<std::string> names;
  for (const KerasLayer& layer : graph.layers)
    if (wanted.contains(layer.name)) names.push_back(layer.name);
  h5.attribute(root == "/" ? root : root.substr(0, root.size() - 1), "layer_names", names);
  for (const KerasLayer& layer : graph.layers) {
    if (!wanted.contains(layer.name)) continue;
    const std::string group = root + layer.name;
    h5.group(group);
    std::vector<std::string> variables;
    for (const KerasVariable& variable : layer.variables) {
      variables.push_back(layer.name + "/" + variable.name + ":0");
      h5.array(group + "/" + variables.back(), variable.values(), stored(variable, options));
    }
    h5.attribute(group, "weight_names", variables);
  }
}

/// With the hash of the file in its record.
void write_sealed(AtomicFile& file, H5Writer& h5) {
  const std::span<const std::byte> bytes = h5.finish();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const std::string place = fmt::format("\"{}\":\"", kSealKey);
  const size_t at = text.rfind(place + std::string(kSealBlank)) + place.size();
  file.write(bytes.first(at));
  file.write(seal_of(bytes, at));
  file.write(bytes.subspan(at + kSealBlank.size()));
}

}  // namespace

void write_keras(AtomicFile& file, const ModelFile& model, const ExportOptions& options) {
  const KerasGraph graph = keras_graph(model);
  H5Writer h5;
  write_weights(h5, graph, options);
  ZipWriter zip(file);
  zip.add("metadata.json", nlohmann::json({{"keras_version", kKeras3}}).dump());
  zip.add("config.json", keras3_config(graph).dump());
  zip.add("model.weights.h5", h5.finish());
  // Keras reads the entries that it knows and leaves others alone.
  zip.add("graft.json",
          sealed_record(export_metadata(model.metadata, graph.modules), zip.listing()));
  zip.finish();
}

void write_keras_h5(AtomicFile& file, const ModelFile& model, const ExportOptions& options) {
  const KerasGraph graph = keras_graph(model);
  H5Writer h5;
  const std::string root = "/model_weights";
  h5.group(root);
  for (const char* group : {"/", "/model_weights"}) {
    h5.attribute(group, "backend", std::string("tensorflow"));
    h5.attribute(group, "keras_version", std::string(kKeras2));
  }
  h5.attribute("/", "model_config", keras2_config(graph).dump());
  h5.attribute("/", "graft",
               export_document(export_metadata(model.metadata, graph.modules)).dump());
  std::set<std::string> names;
  for (const KerasLayer& layer : graph.layers) names.insert(layer.name);
  write_layers(h5, graph, root + "/", names, options);
  write_sealed(file, h5);
}

void write_keras_trunk(AtomicFile& file, const ModelFile& backbone, const ExportOptions& options) {
  const KerasGraph graph = keras_graph(backbone);
  std::set<std::string> names;  // of its layers, and not of those that a whole model has around
  for (const auto& [layer, name] : graph.modules) names.insert(name);
  H5Writer h5;
  const std::string root = "/";
  h5.attribute(root, "backend", std::string("tensorflow"));
  h5.attribute(root, "keras_version", std::string(kKeras2));
  h5.attribute(root, "graft",
               export_document(export_metadata(backbone.metadata, graph.modules)).dump());
  write_layers(h5, graph, root, names, options);
  write_sealed(file, h5);
}

}  // namespace graft
