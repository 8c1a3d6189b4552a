// The labels of a dataset judged by the features of a backbone.
#pragma once

#include <string>
#include <vector>

#include "features/feature_cache.h"
#include "graft/device.h"
#include "graft/labels.h"
#include "graft/network.h"
#include "weights/tensor.h"

namespace graft {

/// Layers [0, end) of a network, whose pooled outputs images are judged by.
struct JudgingBackbone {
  Network network;
  size_t end = 0;
  TensorMap tensors;
  Preprocessing preprocessing;
  FeatureType dtype = FeatureType::fp16;
  Precision precision = Precision::fp32;
  const ComputeDevice* device = nullptr;  ///< that computes; null: the engine
  bool knows_labels = false;  ///< its weights may have been trained on these very labels
};

/// Whether so many layers are enough to tell what is in an image: four poolings, which leave maps
/// of a sixteenth of the image's size, or the whole backbone. Fewer know textures, not things.
bool judges_well(const Network& network, size_t end);

/// Whether weights come from a run of Graft's that may have trained layers of them.
bool trained_on_labels(const Provenance& weights);

/// The layers of the backbone, without a head.
size_t backbone_end(const Network& network);

/// See check_labels().
LabelCheck judge_labels(const Dataset& dataset, const JudgingBackbone& backbone,
                        FeatureCache* cache, uint64_t seed, const RunContext& context);

}  // namespace graft
