// Pictures through an engine: decoding overlaps with computing, damaged files are reported.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/progress.h"
#include "engine/engine.h"
#include "graft/image.h"
#include "image/augment.h"

namespace graft {

struct ExtractJob {
  std::span<const std::filesystem::path> paths;
  int input_height = 0;
  int input_width = 0;
  Preprocessing preprocessing;
  int threads = 1;  ///< for decoding
  int batch = 16;   ///< images handed to the engine at once, at most
  std::string label = "computing features";
  Verbosity verbosity = Verbosity::normal;
  /// The view of a picture with that content_hash(); null: pictures as they are.
  std::function<View(const std::string& hash)> view = nullptr;
  /// content_hashes() of the paths where the caller has them; empty: computed where needed.
  std::span<const std::string> hashes{};
  /// Where to leave view_key() of each file that was decoded, by index; null: nowhere. A key is
  /// there when `sink` gets that picture.
  std::vector<std::string>* keys = nullptr;
};

/// content_hash_of_file() of each; empty for a file that cannot be read.
std::vector<std::string> content_hashes(std::span<const std::filesystem::path> paths, int threads);

/// Identifies the picture that the network gets to see: content_hash() of its file, and the view.
std::string view_key(const ExtractJob& job, const std::string& hash);

/// Calls `sink(i, values)` for each picture in the order of the paths, from the calling thread;
/// `on_error(i, message)` instead for one that cannot be decoded. Batches are made smaller where
/// memory is short. Throws Error(memory), before anything is computed, where one image does not
/// fit; Error(interrupted) after a signal.
void extract(const ExtractJob& job, Engine& engine,
             const std::function<void(size_t, std::span<const float>)>& sink,
             const std::function<void(size_t, const std::string&)>& on_error);

/// As above, up to the network's input alone: `sink` gets the 8-bit picture at input size.
void load_inputs(const ExtractJob& job, const std::function<void(size_t, const Image&)>& sink,
                 const std::function<void(size_t, const std::string&)>& on_error);

}  // namespace graft
