// What is found in one file of a dataset, before files are compared.
#pragma once

#include <string>
#include <string_view>

#include "dataset/perceptual_hash.h"
#include "graft/dataset.h"
#include "graft/inspect.h"
#include "image/codecs.h"

namespace graft {

/// What one file says.
struct Facts {
  std::string hash;   // empty: unreadable, or the only file of its size
  std::string error;  // empty: decodes
  ImageFacts image;
  bool known = false;        // image is valid
  bool unsupported = false;  // of a kind that is not read, rather than damaged
  int largest = 0;           // value of a PNG with 16 bits a channel
  bool colourless = false;
  PerceptualHash look;
};

/// Reads a file. `alone`: no other has its size, so that none can be identical, and its hash is not
/// needed.
Facts examine(const Sample& sample, InspectionDepth depth, bool alone);

/// As bytes, and back. Throws Error(input), which begins with `name`, for bytes that are none.
std::string facts_bytes(const Facts& facts);
Facts facts_of(std::string_view bytes, const std::string& name);

/// What the facts about all samples say together.
Inspection conclude(const Dataset& dataset, const std::vector<Facts>& facts, InspectionDepth depth,
                    const RunContext& context);

}  // namespace graft
