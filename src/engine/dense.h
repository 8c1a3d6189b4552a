// Dense layers on the engine's product kernel: weights stream past once, whatever the batch.
#pragma once

#include "engine/buffer.h"
#include "engine/fold.h"
#include "engine/team.h"

namespace graft::engine {

class Dense {
 public:
  Dense(int64_t inputs, const FoldedLayer& weights, Team& team);

  /// Floats of the packed inputs of `count` images (shared), and of products for each member.
  [[nodiscard]] size_t packed_inputs(int count) const;
  [[nodiscard]] static size_t private_scratch(int count);

  /// Floats of packed weights.
  [[nodiscard]] size_t packed() const { return weights_.size(); }

  /// `in`: count × inputs, `out`: count × outputs. Passes one region; ends inside another.
  void run(Team::Member& member, const float* in, float* out, int count, float* packed,
           float* private_scratch) const;

 private:
  size_t inputs_;
  size_t padded_;  // rounded up to a block
  size_t outputs_;
  bool relu_;
  Buffer weights_;  // [outputs / nr][inputs][nr]
  Buffer bias_;
};

}  // namespace graft::engine
