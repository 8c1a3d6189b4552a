// The network's layer list as a Keras functional model: layers, how they are connected, weights in
// Keras' layouts. Only layers that Keras 2 and 3 both have, and no code of Graft's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/model_file.h"

namespace graft {

/// The output of a layer's call: a layer may be called more than once.
struct KerasRef {
  size_t layer = 0;  ///< index into KerasGraph::layers
  size_t call = 0;
};

/// One variable. Its values are made when they are written: a large one at a time.
struct KerasVariable {
  std::string name;  ///< "kernel"
  std::vector<int64_t> shape;
  bool may_be_half = true;
  std::function<Tensor()> values;
};

struct KerasLayer {
  std::string kind;  ///< Keras' class
  std::string name;
  nlohmann::json config;        ///< its arguments, but name and dtype
  std::vector<int64_t> output;  ///< shape without the batch
  std::vector<std::vector<KerasRef>> calls;
  std::vector<KerasVariable> variables;
};

struct KerasGraph {
  std::vector<KerasLayer> layers;              ///< the input first; each reads layers before it
  size_t output = 0;                           ///< the layer of the probabilities
  std::map<std::string, std::string> modules;  ///< the network's layers → their names here
};

/// The name that a layer has in Keras, where no other has it: without '/', which is HDF5's and
/// TensorFlow's own.
std::string keras_name(std::string name);

/// Variables refer to `model`, which outlives the graph.
KerasGraph keras_graph(const ModelFile& model);

/// The graph as Keras 3 writes it into config.json of a .keras file.
nlohmann::json keras3_config(const KerasGraph& graph);
/// The graph as Keras 2 writes it into an .h5 file, which Keras 3 reads too.
nlohmann::json keras2_config(const KerasGraph& graph);

}  // namespace graft
