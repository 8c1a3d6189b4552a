// Images from files to networks: decoded ahead of their use, in order, damaged ones reported.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "features/batcher.h"
#include "graft/context.h"
#include "graft/image.h"
#include "image/augment.h"

namespace graft {

struct ImageJob {
  std::span<const std::filesystem::path> paths;
  int height = 0;  ///< of the network's input
  int width = 0;
  Preprocessing preprocessing;
  int batch = 16;  ///< images computed at once, at most
  std::string label = "computing features";
  RunContext context{};
  /// The view of an image with that content_hash(); null: images as they are.
  std::function<View(const std::string& hash)> view = nullptr;
  /// content_hashes() of the paths where the caller has them; an image with another content by now
  /// is an error, and one without a hash is not held to any. Empty: computed where needed.
  std::span<const std::string> hashes{};
  bool needs_keys = false;    ///< StreamedImage::key is wanted
  bool keeps_source = false;  ///< StreamedImage::source is wanted
  int thumbnail = 0;  ///< pixels of its longer side, where StreamedImage::thumbnail is wanted
  /// Where several processes share out the images: the number of the block of kImageBlock images
  /// that is this one's next; behind the last one that of a block that is not there. Null: all
  /// images are this process's. Called from a thread of the stream.
  std::function<uint64_t()> next_block = nullptr;
};
/// As many as are computed at once, so that little is left to wait for where a process is slow.
inline constexpr size_t kImageBlock = 16;

/// One file's image on its way to a network.
struct StreamedImage {
  size_t index = 0;   ///< in ImageJob::paths
  Image image;        ///< at input size
  Image source;       ///< as decoded, where the job keeps it
  Image thumbnail;    ///< of the image as decoded, where the job wants it
  std::string key;    ///< view_key(), where the job needs it
  std::string error;  ///< why there is no image; empty: there is one
};

/// Reads and decodes a file. Throws Error(input) where `hash` is not empty and not its
/// content_hash().
Image load_known_image(const std::filesystem::path& path, const std::string& hash);

/// Identifies the image that the network gets to see: content_hash() of its file, and the view.
std::string view_key(const ImageJob& job, const std::string& hash);

/// Decodes while the batch before is used. The job must outlive the stream.
class ImageStream {
 public:
  explicit ImageStream(const ImageJob& job);
  ~ImageStream();
  /// The next images in the order of the paths, at most `batch` of them; nothing at the end.
  std::optional<std::vector<StreamedImage>> next();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Calls `sink(image, values)` with what `forward` makes of each image, in the order of the paths,
/// from the calling thread; `on_error(i, message)` instead for one that cannot be decoded. Batches
/// are made smaller where memory is short. Throws Error(memory), before anything is computed, where
/// one image does not fit; Error(interrupted) where the context says stop.
void stream_features(const ImageJob& job, const Forward& forward,
                     const std::function<void(const StreamedImage&, std::span<const float>)>& sink,
                     const std::function<void(size_t, const std::string&)>& on_error);

/// Throws Error(memory) where an image, or `times` its memory, does not fit.
void require_memory(const ImageJob& job, const Forward& forward, uint64_t times);

/// As above, up to the network's input alone.
void stream_images(const ImageJob& job, const std::function<void(const StreamedImage&)>& sink,
                   const std::function<void(size_t, const std::string&)>& on_error);

}  // namespace graft
