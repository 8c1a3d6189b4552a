// The frozen prefix's features of many images: from the feature cache where they are there,
// computed and stored where they are not.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "engine/executor.h"
#include "features/feature_cache.h"
#include "features/image_stream.h"
#include "graft/network.h"
#include "weights/tensor.h"

namespace graft {

struct PrefixJob {
  const Network& network;
  size_t end;  ///< layers [0, end)
  const TensorMap& tensors;
  FeatureCache* cache = nullptr;  ///< null: everything is computed
  /// What features are rounded to, with a cache and without one: a run whose cache fails gives the
  /// model that it would have given.
  FeatureType dtype = FeatureType::fp16;
  /// That they are computed with: fp32 or bf16, since it is part of their identity.
  Precision precision = Precision::fp32;
  /// Where not 0: images are computed up to layer `waypoint` − 1, whose features are stored as
  /// well, and from there on from what was stored. For what goes on from there later: a later phase
  /// of training, whose prefix is shorter.
  size_t waypoint = 0;
  const ComputeDevice* device = nullptr;  ///< that computes; null: the engine
};

/// The identity of features behind layer `end` − 1: a hash of the layers and their weights, input
/// size, preprocessing, the stored type, and what computes them. With view_key() of an image it is
/// the cache's key.
std::string feature_set_id(const PrefixJob& job, const Preprocessing& preprocessing, size_t end);

/// Features are stored behind layer stored_end() − 1: layers of the head without parameters may
/// belong to the prefix, but what is stored is of use to every head.
size_t stored_end(const PrefixJob& job);

/// Calls `sink(i, values)` once for each image, in any order, from the calling thread, and
/// `on_error(i, message)` for those that cannot be decoded. `values` are the same, to the bit,
/// whether they were computed now or in an earlier run from the same layer on, and whether there is
/// a cache or not. A cache that fails (full disk) is left aside with a warning. Throws
/// Error(interrupted) where the context says stop; what was computed until then is in the cache.
/// Tells, as a detail, how many came from where.
void prefix_features(const PrefixJob& job, const ImageJob& images,
                     const std::function<void(size_t, std::span<const float>)>& sink,
                     const std::function<void(size_t, const std::string&)>& on_error);

/// The two steps of it in which features come into the cache, for processes that share out the
/// work: of images that the cache does not have, those whose features behind an earlier layer are
/// there are continued; or all that ImageJob::next_block gives to this process are computed. The
/// job has a cache, and ends at its stored_end(). Images that cannot be read are passed over. Where
/// the cache fails or is full, the rest is left out.
enum class StoreStep { continue_earlier, compute };
void store_features(const PrefixJob& job, const ImageJob& images, StoreStep step);
/// Whether features behind an earlier layer than the job's are stored.
bool has_earlier_features(const PrefixJob& job, const Preprocessing& preprocessing);
/// Makes the job's set of features if there is none, and marks it as used now. Returns its id.
std::string use_feature_set(const PrefixJob& job, const Preprocessing& preprocessing, size_t end);

}  // namespace graft
