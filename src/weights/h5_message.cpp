#include "weights/h5_message.h"

#include <array>
#include <cstring>
#include <utility>

#include "base/socket_bytes.h"

namespace graft {
namespace {

class Encoder {
 public:
  void number(uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) out_.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  void text(std::string_view text) {
    number(text.size(), 4);
    for (const char c : text) out_.push_back(static_cast<std::byte>(c));
  }
  std::vector<std::byte> framed() && {
    const uint64_t size = out_.size() - kFrame;
    for (size_t i = 0; i < kFrame; ++i) out_[i] = static_cast<std::byte>(size >> (8 * i));
    return std::move(out_);
  }
  static constexpr size_t kFrame = 4;

 private:
  std::vector<std::byte> out_ = std::vector<std::byte>(kFrame);
};

class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t number(size_t bytes) {
    if (!good_ || bytes_.size() < bytes) {
      good_ = false;
      return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; ++i) value |= std::to_integer<uint64_t>(bytes_[i]) << (8 * i);
    bytes_ = bytes_.subspan(bytes);
    return value;
  }
  std::string text() {
    const uint64_t size = number(4);
    if (!good_ || size > bytes_.size()) {
      good_ = false;
      return {};
    }
    std::string out(size, '\0');
    if (size > 0) std::memcpy(out.data(), bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
    return out;
  }
  void refuse() { good_ = false; }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] bool complete() const { return good_ && bytes_.empty(); }

 private:
  std::span<const std::byte> bytes_;
  bool good_ = true;
};

H5Weight decode_weight(Decoder& in) {
  H5Weight weight;
  weight.layer = in.text();
  weight.name = in.text();
  weight.problem = in.text();
  weight.path = in.text();
  weight.bits = static_cast<uint8_t>(in.number(1));
  weight.bfloat16 = in.number(1) == 1;
  const uint64_t rank = in.number(1);
  if (rank > kH5MaxDimensions) in.refuse();
  uint64_t bytes = sizeof(float);
  for (uint64_t d = 0; in.good() && d < rank; ++d) {
    const uint64_t extent = in.number(8);
    if (extent == 0 || extent > kH5MaxTensorBytes / bytes) {
      in.refuse();
      break;
    }
    bytes *= extent;
    weight.shape.push_back(static_cast<int64_t>(extent));
  }
  return weight;
}

}  // namespace

uint64_t H5Weight::bytes() const {
  uint64_t bytes = sizeof(float);
  for (const int64_t extent : shape) bytes *= static_cast<uint64_t>(extent);
  return bytes;
}

std::vector<std::byte> encode(const H5Message& message) {
  Encoder out;
  out.number(static_cast<uint64_t>(message.tag), 1);
  if (message.tag == H5Tag::refusal) out.text(message.text);
  if (message.tag == H5Tag::read) out.number(message.index, 4);
  if (message.tag == H5Tag::catalogue) {
    out.text(message.text);
    out.text(message.record);
    out.number(message.weights.size(), 4);
    for (const H5Weight& weight : message.weights) {
      out.text(weight.layer);
      out.text(weight.name);
      out.text(weight.problem);
      out.text(weight.path);
      out.number(weight.bits, 1);
      out.number(weight.bfloat16 ? 1 : 0, 1);
      out.number(weight.shape.size(), 1);
      for (const int64_t extent : weight.shape) out.number(static_cast<uint64_t>(extent), 8);
    }
  }
  return std::move(out).framed();
}

bool decode(std::span<const std::byte> bytes, H5Message& message) {
  Decoder in(bytes);
  message = {};
  message.tag = static_cast<H5Tag>(in.number(1));
  switch (message.tag) {
    case H5Tag::refusal:
      message.text = in.text();
      return in.complete();
    case H5Tag::read:
      message.index = static_cast<uint32_t>(in.number(4));
      return in.complete();
    case H5Tag::values:
      return in.complete();
    case H5Tag::catalogue:
      break;
    default:
      return false;
  }
  message.text = in.text();
  message.record = in.text();
  for (uint64_t left = in.number(4); left > 0 && in.good(); --left)
    message.weights.push_back(decode_weight(in));
  return in.complete();
}

bool send_message(int socket, const H5Message& message) {
  return send_bytes(socket, encode(message));
}

bool receive_message(int socket, H5Message& message, const std::function<void()>& wait) {
  std::array<std::byte, Encoder::kFrame> frame{};
  if (!receive_bytes(socket, frame, wait)) return false;
  const uint64_t size = Decoder(frame).number(frame.size());
  if (size > kH5MaxMessageBytes) return false;
  std::vector<std::byte> bytes(size);
  return receive_bytes(socket, bytes, wait) && decode(bytes, message);
}

}  // namespace graft
