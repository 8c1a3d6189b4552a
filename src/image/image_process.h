// Images that graft-read-image decodes, a confined process of its own (decision 0030).
#pragma once

#include "image/codecs.h"

namespace graft {

/// As decode_image() and probe_image(), which call these. Thread-safe: each thread that decodes has
/// a process for as long as it needs one; processes wait for the next image and end with this one.
/// Throws Error(io) where the program cannot be started.
Decoded decode_in_process(const EncodedImage& encoded, ImageFormat format);
ImageFacts probe_in_process(const EncodedImage& encoded, ImageFormat format);

}  // namespace graft
