// What passes between Graft and graft-read-h5, the program that reads .h5 files for it (decision
// 0013). Neither side trusts the other's bytes: decoding checks every length.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// Descriptors that the program is started with.
inline constexpr int kH5Socket = 3;  ///< messages, both ways
inline constexpr int kH5File = 4;    ///< the .h5 file, read-only
inline constexpr int kH5Values = 5;  ///< a memfd that receives one tensor's values at a time

/// Keras' own guard (keras/src/saving/saving_lib.py): a larger dataset is refused.
inline constexpr uint64_t kH5MaxTensorBytes = uint64_t{4} << 30U;
inline constexpr size_t kH5MaxDimensions = 8;
inline constexpr size_t kH5MaxMessageBytes = size_t{16} << 20U;

/// One weight of a Keras file: what is known of it before its values are read.
struct H5Weight {
  std::string layer;           ///< an entry of layer_names
  std::string name;            ///< an entry of that layer's weight_names
  std::vector<int64_t> shape;  ///< as stored; every extent is at least 1
  std::string problem;         ///< why its values cannot be read; then the shape is empty
  std::string path{};          ///< of its dataset in the file
  uint8_t bits = 0;            ///< of a value as stored: 16, 32 or 64; 0 where there is a problem
  bool bfloat16 = false;       ///< of those of 16 bits

  [[nodiscard]] uint64_t bytes() const;  ///< of its values as float32
  bool operator==(const H5Weight&) const = default;
};

enum class H5Tag : uint8_t {
  catalogue = 1,  ///< to Graft, first: the weights
  refusal = 2,    ///< to Graft: why the file or a weight cannot be read; the last message
  values = 3,     ///< to Graft: the weight that was asked for is in shared memory
  read = 4,       ///< to the program: read the weight with this index
};

/// A message without its frame (a length in 32 bits, which stands before it on the socket).
struct H5Message {
  H5Tag tag = H5Tag::refusal;
  std::vector<H5Weight> weights;  ///< of a catalogue
  std::string text;               ///< of a refusal; of a catalogue the model's description, or ""
  uint32_t index = 0;             ///< of read
  std::string record{};           ///< of a catalogue: what `graft export` says of the model, or ""
};

/// The bytes with their frame. Requires that they fit kH5MaxMessageBytes.
std::vector<std::byte> encode(const H5Message& message);

/// The message, or false where the bytes are none.
bool decode(std::span<const std::byte> bytes, H5Message& message);

/// Writes and reads whole messages on a blocking socket; false at its end or on any error. `wait`
/// is called before each read, and may throw.
bool send_message(int socket, const H5Message& message);
bool receive_message(int socket, H5Message& message, const std::function<void()>& wait);

}  // namespace graft
