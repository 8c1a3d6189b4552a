#include "report/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>

#include "base/fail.h"
#include "base/file.h"
#include "base/limits.h"
#include "graft/image.h"
#include "report/figures.h"
#include "report/tensorboard.pb.h"

namespace graft {
namespace {

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4), byte by byte: event files are small.
uint32_t crc32c(std::string_view bytes) {
  static const auto kTable = [] {
    constexpr uint32_t kPolynomial = 0x82F63B78;  // reflected
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = value >> 1U ^ ((value & 1U) != 0 ? kPolynomial : 0);
      table.at(i) = value;
    }
    return table;
  }();
  uint32_t crc = ~0U;
  for (const char c : bytes) crc = crc >> 8U ^ kTable.at((crc ^ static_cast<uint8_t>(c)) & 0xFFU);
  return ~crc;
}

/// TFRecord rotates and offsets its checksums (tensorflow/core/lib/hash/crc32c.h).
uint32_t masked(uint32_t crc) { return (crc >> 15U | crc << 17U) + 0xA282EAD8U; }

template <typename T>
void append(std::string& out, T value) {
  for (size_t i = 0; i < sizeof value; ++i) out += static_cast<char>(value >> (8 * i) & 0xFFU);
}

tensorboard::Event new_event(int64_t step) {
  tensorboard::Event event;
  event.set_wall_time(
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  event.set_step(step);
  return event;
}

tensorboard::Value* add_value(tensorboard::Event& event, const std::string& tag,
                              const char* plugin) {
  tensorboard::Value* value = event.mutable_summary()->add_value();
  value->set_tag(tag);
  value->mutable_metadata()->mutable_plugin_data()->set_plugin_name(plugin);
  return value;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "localhost";
  std::replace(name.begin(), name.end(), '/', '-');
  return name.data();
}

}  // namespace

EventFile::EventFile(const std::filesystem::path& folder) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(
                           std::chrono::system_clock::now().time_since_epoch())
                           .count();
  path_ = folder / fmt::format("events.out.tfevents.{}.{}.{}", seconds, host_name(), ::getpid());
  file_ = std::fopen(path_.c_str(), "ab");
  if (file_ == nullptr)
    fail(ErrorKind::io, "{}: cannot write: {}", printable(path_), system_error_text(errno));
  tensorboard::Event event = new_event(0);
  event.set_file_version("brain.Event:2");
  write(event.SerializeAsString());
}

EventFile::~EventFile() {
  if (file_ != nullptr) std::fclose(file_);
}

void EventFile::write(const std::string& event) {
  std::string record;
  append(record, static_cast<uint64_t>(event.size()));
  append(record, masked(crc32c(record)));
  record += event;
  append(record, masked(crc32c(event)));
  if (std::fwrite(record.data(), 1, record.size(), file_) != record.size() ||
      std::fflush(file_) != 0)
    fail(ErrorKind::io, "{}: writing failed: {}", printable(path_), system_error_text(errno));
}

void EventFile::add_scalars(int64_t step,
                            const std::vector<std::pair<std::string, double>>& scalars) {
  tensorboard::Event event = new_event(step);
  for (const auto& [tag, number] : scalars)
    add_value(event, tag, "scalars")->set_simple_value(static_cast<float>(number));
  write(event.SerializeAsString());
}

void EventFile::add_image(int64_t step, const std::string& tag, const Image& image) {
  constexpr int kRgb = 3;
  tensorboard::Event event = new_event(step);
  tensorboard::Image* out = add_value(event, tag, "images")->mutable_image();
  const std::vector<std::byte> png = encode_png(image);
  out->set_height(image.height);
  out->set_width(image.width);
  out->set_colorspace(kRgb);
  out->set_encoded_image_string(png.data(), png.size());
  write(event.SerializeAsString());
}

void EventFile::add_restart(int64_t step) {
  constexpr int kStart = 1;
  tensorboard::Event event = new_event(step);
  event.mutable_session_log()->set_status(kStart);
  write(event.SerializeAsString());
}

void TensorBoard::past_epoch(const EpochRecord& record, bool best) {
  (void)best;
  last_ = record.epoch;
  resumed_ = true;
}

void TensorBoard::begin(int epochs) {
  (void)epochs;
  if (resumed_) file_.add_restart(last_ + 1);
  resumed_ = false;
}

void TensorBoard::epoch(const EpochRecord& r, bool best) {
  (void)best;
  last_ = r.epoch;
  file_.add_scalars(r.epoch, {{"loss/train", r.loss},
                              {"loss/validation", r.val_loss},
                              {"accuracy/train", r.accuracy},
                              {"accuracy/validation", r.val_accuracy},
                              {"learning_rate", r.learning_rate}});
}

void TensorBoard::confusion(const std::string& split, const Metrics& metrics) {
  const auto classes = static_cast<int>(metrics.confusion.size());
  if (classes > 0)
    file_.add_image(last_, "confusion_matrix/" + split,
                    confusion_image(metrics, std::clamp(512 / classes, 2, 64)));
}

}  // namespace graft
