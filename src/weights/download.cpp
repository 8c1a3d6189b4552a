#include "weights/download.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/progress.h"

namespace graft {
namespace {

/// The partly downloaded file, locked against a second process that wants the same one.
class PartFile {
 public:
  PartFile(fs::path path, const RunContext& context) : path_(std::move(path)) {
    do {
      if (fd_ >= 0) ::close(fd_);  // whoever held it has removed it
      fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
      if (fd_ < 0)
        fail(ErrorKind::io, "{}: cannot write: {}", printable(path_), system_error_text(errno));
      while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) context.check_stop();
    } while (!names_file(path_, fd_));
  }
  /// Of a transfer that brought nothing of use nothing stays.
  ~PartFile() {
    if (size() == 0 && names_file(path_, fd_)) ::unlink(path_.c_str());
    ::close(fd_);
  }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  [[nodiscard]] uint64_t size() const {
    const off_t end = ::lseek(fd_, 0, SEEK_END);
    return end < 0 ? 0 : static_cast<uint64_t>(end);
  }
  void truncate() const {
    if (::ftruncate(fd_, 0) != 0) failed_ = true;
    ::lseek(fd_, 0, SEEK_SET);
  }
  bool append(const char* data, size_t count) const {
    while (count > 0) {
      const ssize_t done = ::write(fd_, data, count);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) {
        failed_ = true;
        error_ = errno;
        return false;
      }
      data += done;
      count -= static_cast<size_t>(done);
    }
    return true;
  }
  void sync() const { ::fsync(fd_); }
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] int error() const { return error_; }
  [[nodiscard]] const fs::path& path() const { return path_; }

 private:
  fs::path path_;
  int fd_ = -1;
  mutable bool failed_ = false;
  mutable int error_ = 0;
};

// A server that sends less than this over a whole window (Download::stall_seconds) is given up: the
// smallest published file would take four hours at this rate.
constexpr uint64_t kLeastBytesPerSecond = 4096;
constexpr size_t kMostHeaderBytes = size_t{256} << 10U;

/// What the server says of the part that it sends.
struct ContentRange {
  uint64_t begin = 0;
  std::optional<uint64_t> total;  // "*": it does not say
};

/// "bytes 100-199/200", or nothing.
std::optional<ContentRange> parse_content_range(std::string_view text) {
  const auto skip = [&](std::string_view word) {
    if (!text.starts_with(word)) return false;
    text.remove_prefix(word.size());
    return true;
  };
  const auto number = [&](uint64_t& value) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return true;
  };
  ContentRange range;
  uint64_t last = 0;
  if (!skip("bytes ") || !number(range.begin) || !skip("-") || !number(last) || !skip("/"))
    return std::nullopt;
  if (uint64_t total = 0; number(total)) range.total = total;
  return range;
}

struct Transfer {
  const PartFile& part;
  const Download& job;
  CURL* curl;
  Progress& progress;
  const std::stop_token& stop;
  uint64_t start = 0;     // bytes that were there before
  uint64_t received = 0;  // bytes of this transfer's body
  size_t header_bytes = 0;
  std::optional<ContentRange> range{};  // of the last response
  bool checked_response = false;
  bool other_part = false;  // the server sends another part than the one asked for
  std::string refusal{};    // why it was broken off
  std::chrono::steady_clock::time_point window = std::chrono::steady_clock::now();
  uint64_t received_before_window = 0;
};

size_t on_header(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  std::string line(data, size * count);
  transfer.header_bytes += line.size();
  if (transfer.header_bytes > kMostHeaderBytes) {
    transfer.refusal = "the server's headers do not end";
    return 0;
  }
  std::transform(line.begin(), line.end(), line.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  constexpr std::string_view kName = "content-range:";
  if (line.starts_with("http/")) transfer.range.reset();  // after a redirect
  if (line.starts_with(kName)) {
    const size_t value = std::min(line.find_first_not_of(' ', kName.size()), line.size());
    transfer.range = parse_content_range(std::string_view(line).substr(value));
  }
  return size * count;
}

bool has_size(const Download& job, uint64_t bytes) {
  return bytes + job.tolerance >= job.bytes && bytes <= job.bytes + job.tolerance;
}

/// Before the first byte of a body: is it what was asked for? Sets what is to be done if not.
bool accept_response(Transfer& transfer) {
  const Download& job = transfer.job;
  long status = 0;
  curl_off_t length = -1;
  curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(transfer.curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
  if (status == 206) {
    const bool right = transfer.range && transfer.range->begin == transfer.start &&
                       has_size(job, transfer.range->total.value_or(job.bytes));
    if (!right) {
      transfer.other_part = true;
      transfer.refusal = "the server sends another part of the file than the one asked for";
    }
    return right;
  }
  if (length >= 0 && static_cast<uint64_t>(length) + job.tolerance < job.bytes) {
    transfer.refusal = fmt::format(
        "what the server sends has {} bytes instead of {} (a page of an "
        "error or a login?)",
        length, job.bytes);
    return false;
  }
  // A server that ignores the range sends everything again, from the first byte.
  if (transfer.start > 0) {
    transfer.part.truncate();
    transfer.start = 0;
  }
  return true;
}

size_t on_body(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t bytes = size * count;
  if (!transfer.checked_response) {
    transfer.checked_response = true;
    if (!accept_response(transfer)) return 0;
  }
  transfer.received += bytes;
  if (transfer.start + transfer.received > transfer.job.bytes + transfer.job.tolerance) {
    transfer.refusal = fmt::format("the server sends more than the {} bytes that the file has",
                                   transfer.job.bytes);
    transfer.part.truncate();
    return 0;
  }
  if (!transfer.part.append(data, bytes)) return 0;
  transfer.progress.update(transfer.start + transfer.received);
  return bytes;
}

/// Called about once a second, whatever the server does.
int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  const auto now = std::chrono::steady_clock::now();
  const std::chrono::seconds window(transfer.job.stall_seconds);
  if (now - transfer.window >= window) {
    const uint64_t least = kLeastBytesPerSecond * static_cast<uint64_t>(window.count());
    if (transfer.received - transfer.received_before_window < least) {
      transfer.refusal = fmt::format(
          "the server sent less than {} bytes in {} s (what came is kept, and the next try goes on "
          "from there)",
          least, window.count());
      return 1;
    }
    transfer.window = now;
    transfer.received_before_window = transfer.received;
  }
  return transfer.stop.stop_requested() ? 1 : 0;
}

[[noreturn]] void fail_download(const Download& job, const std::string& why) {
  fail(ErrorKind::io,
       "cannot download {}: {}; download it elsewhere ({}) and give it to 'graft weights import "
       "FILE', which puts it at {}, or name weights that you have with `weights` FILE",
       job.url, why, job.hash, printable(job.target));
}

/// One request; false if the part that is here is of no use and the whole file has to be asked for.
bool run_transfer(const Download& job, const PartFile& part, const RunContext& context) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (!curl) fail_download(job, "libcurl cannot start");
  Progress progress(context, "downloading " + job.target.filename().string(), job.bytes, "B");
  Transfer transfer{part, job, curl.get(), progress, context.stop};
  transfer.start = part.size();
  const bool resumes = transfer.start > 0;
  std::array<char, CURL_ERROR_SIZE> message{};
  curl_easy_setopt(curl.get(), CURLOPT_URL, job.url.c_str());
  curl_easy_setopt(curl.get(), CURLOPT_ERRORBUFFER, message.data());
  curl_easy_setopt(curl.get(), CURLOPT_FOLLOWLOCATION, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_MAXREDIRS, 5L);
  curl_easy_setopt(curl.get(), CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl.get(), CURLOPT_FAILONERROR, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_USERAGENT, "graft");
  curl_easy_setopt(curl.get(), CURLOPT_CONNECTTIMEOUT, static_cast<long>(job.connect_seconds));
  curl_easy_setopt(curl.get(), CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl.get(), CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFODATA, &transfer);
  // Not CURLOPT_RESUME_FROM, which makes an error of a server that sends the whole file instead.
  const std::string range = fmt::format("{}-", transfer.start);
  if (resumes) curl_easy_setopt(curl.get(), CURLOPT_RANGE, range.c_str());
  const CURLcode code = curl_easy_perform(curl.get());
  context.check_stop();
  if (part.failed())
    fail(ErrorKind::io, "{}: writing failed: {}", printable(part.path()),
         std::strerror(part.error()));
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  // 416: what is here cannot be a beginning of the server's file.
  if (resumes && (transfer.other_part || status == 416)) {
    part.truncate();
    return false;
  }
  if (!transfer.refusal.empty()) fail_download(job, transfer.refusal);
  if (code != CURLE_OK)
    fail_download(job, message[0] != '\0' ? message.data() : curl_easy_strerror(code));
  progress.finish();
  return true;
}

}  // namespace

void download(const Download& job, const RunContext& context) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
  make_folder(job.target.parent_path());
  fs::path part_path = job.target;
  part_path += ".part";
  const PartFile part(part_path, context);
  std::error_code error;
  if (fs::exists(job.target, error)) return;  // another process fetched it while we waited
  // A part that may be whole is not: a whole file gets its name at once, unless a kill is quicker.
  const auto is_whole = [&] {
    return part.size() > 0 && has_size(job, part.size()) && job.is_right(part_path);
  };
  if (part.size() > job.bytes + job.tolerance) part.truncate();
  if (!is_whole() && !run_transfer(job, part, context)) run_transfer(job, part, context);
  if (!has_size(job, part.size()))
    fail_download(job,
                  fmt::format("the transfer ended after {} of {} bytes (what came is kept, and "
                              "the next try goes on from there)",
                              part.size(), job.bytes));
  if (!job.is_right(part_path)) {
    part.truncate();
    fail_download(job, "what came has another hash and is not the file");
  }
  part.sync();
  fs::rename(part_path, job.target, error);
  if (error)
    fail(ErrorKind::io, "{}: cannot give the download its name: {}", printable(job.target),
         error.message());
}

}  // namespace graft
