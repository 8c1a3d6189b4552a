#include "image/image_process.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <limits>
#include <memory>
#include <mutex>
#include <utility>

#include "base/descriptor.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/helper_process.h"
#include "base/limits.h"
#include "base/socket_bytes.h"
#include "image/formats.h"
#include "image/image_message.h"

namespace graft {
namespace {

constexpr HelperProgram kProgram{"graft-read-image", "reads HEIC, AVIF, GIF, TIFF and BMP images"};
// A program that computes without end is stopped by its limit on processor time
// (image/confined/main.cpp); this one is for a machine that does much else.
constexpr time_t kPatienceSeconds = 300;

/// One running program. It belongs to the process that started it.
class ImageProgram {
 public:
  ImageProgram() {
    std::array<int, 2> ends = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
      throw HelperUnavailable(
          fmt::format("cannot start {}: {}", kProgram.name, system_error_text(errno)));
    socket_ = Descriptor(ends[0]);
    const Descriptor theirs(ends[1]);
    const timeval patience{kPatienceSeconds, 0};
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    process_ = start_helper(kProgram, std::array{theirs.get()});
  }
  ~ImageProgram() {
    if (process_ > 0 && owner_ == ::getpid()) kill_helper(process_);
  }
  ImageProgram(const ImageProgram&) = delete;
  ImageProgram& operator=(const ImageProgram&) = delete;

  [[nodiscard]] bool is_ours() const { return owner_ == ::getpid(); }

  bool send(const ImageRequest& request, const EncodedImage& encoded) {
    return send_bytes(socket_.get(), std::as_bytes(std::span(&request, 1))) &&
           send_bytes(socket_.get(), std::as_bytes(std::span(encoded.name))) &&
           send_bytes(socket_.get(), encoded.bytes);
  }
  bool receive(std::span<std::byte> bytes) { return receive_bytes(socket_.get(), bytes); }

  /// How it ended, in words.
  std::string end() {
    socket_.close();
    return end_helper(std::exchange(process_, -1));
  }

 private:
  pid_t owner_ = ::getpid();
  pid_t process_ = -1;
  Descriptor socket_;
};

/// Programs that wait for work.
class IdlePrograms {
 public:
  std::unique_ptr<ImageProgram> take() {
    const std::lock_guard lock(mutex_);
    while (!idle_.empty()) {
      std::unique_ptr<ImageProgram> program = std::move(idle_.back());
      idle_.pop_back();
      // After fork() the parent's programs are its own.
      if (program->is_ours()) return program;
    }
    return nullptr;
  }
  void give_back(std::unique_ptr<ImageProgram> program) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(program));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<ImageProgram>> idle_;
};

IdlePrograms& idle_programs() {
  static IdlePrograms programs;
  return programs;
}

struct Answer {
  ImageReply reply;
  std::vector<uint8_t> pixels;
};

/// What the program answers, or how it failed.
bool exchange(ImageProgram& program, const ImageRequest& request, const EncodedImage& encoded,
              Answer& answer, std::string& text) {
  ImageReply& reply = answer.reply;
  if (!program.send(request, encoded) ||
      !program.receive(std::as_writable_bytes(std::span(&reply, 1))) ||
      reply.text_bytes > kMostImageText || reply.width < 0 || reply.height < 0 ||
      reply.width > request.max_side || reply.height > request.max_side ||
      reply.width * reply.height > request.max_pixels)
    return false;
  text.resize(reply.text_bytes);
  if (!program.receive(std::as_writable_bytes(std::span(text)))) return false;
  if (reply.outcome != ImageOutcome::pixels) return true;
  answer.pixels.resize(static_cast<size_t>(3 * reply.width * reply.height));
  return !answer.pixels.empty() &&
         program.receive(std::as_writable_bytes(std::span(answer.pixels)));
}

Answer ask(const EncodedImage& encoded, ImageFormat format, bool pixels) {
  const ImageRequest request{.bytes = encoded.bytes.size(),
                             .max_pixels = encoded.limits.max_pixels,
                             .max_side = encoded.limits.max_side,
                             .name_bytes = static_cast<uint32_t>(encoded.name.size()),
                             .format = static_cast<uint8_t>(format),
                             .pixels = static_cast<uint8_t>(pixels ? 1 : 0)};
  std::unique_ptr<ImageProgram> program = idle_programs().take();
  if (program == nullptr) program = std::make_unique<ImageProgram>();
  Answer answer;
  std::string text;
  if (!exchange(*program, request, encoded, answer, text))
    fail_damaged(encoded, format_name(format),
                 fmt::format("the library that reads it failed ({})", program->end()));
  switch (answer.reply.outcome) {
    case ImageOutcome::facts:
    case ImageOutcome::pixels:
      break;
    case ImageOutcome::damaged:
      idle_programs().give_back(std::move(program));
      fail(ErrorKind::input, "{}", printable(text));
    case ImageOutcome::unsupported:
      idle_programs().give_back(std::move(program));
      throw UnsupportedImage(printable(text));
    case ImageOutcome::no_memory:
      fail(ErrorKind::input,
           "{}: its {} data take more memory than an image of this size may, or than there is; "
           "remove or replace it",
           encoded.name, format_name(format));
    default:
      fail_damaged(encoded, format_name(format), "the program that reads it gave no answer");
  }
  if (pixels != (answer.reply.outcome == ImageOutcome::pixels))
    fail_damaged(encoded, format_name(format), "the program that reads it gave another answer");
  idle_programs().give_back(std::move(program));
  return answer;
}

}  // namespace

Decoded decode_in_process(const EncodedImage& encoded, ImageFormat format) {
  Answer answer = ask(encoded, format, true);
  Decoded decoded;
  decoded.image.width = static_cast<int>(answer.reply.width);
  decoded.image.height = static_cast<int>(answer.reply.height);
  decoded.image.pixels = std::move(answer.pixels);
  decoded.orientation = answer.reply.orientation;
  return decoded;
}

ImageFacts probe_in_process(const EncodedImage& encoded, ImageFormat format) {
  constexpr int64_t kAny = std::numeric_limits<int32_t>::max();
  const ImageReply reply =
      ask({encoded.bytes, encoded.name, {kAny * kAny, kAny}}, format, false).reply;
  return {.format = format,
          .width = reply.width,
          .height = reply.height,
          .grey = reply.grey != 0,
          .cmyk = reply.cmyk != 0,
          .animated = reply.animated != 0,
          .deep = reply.deep != 0};
}

}  // namespace graft
