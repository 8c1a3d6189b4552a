#include "weights/download.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "base/file.h"
#include "base/hash.h"
#include "base/signals.h"
#include "graft/error.h"

namespace graft {
namespace {

/// The partly downloaded file, locked against a second process that wants the same one.
class PartFile {
 public:
  explicit PartFile(fs::path path) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd_ < 0)
      fail(ErrorKind::io, "{}: cannot write: {}", printable(path_), std::strerror(errno));
    while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) check_interrupted();
  }
  ~PartFile() { ::close(fd_); }
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
  int fd_;
  mutable bool failed_ = false;
  mutable int error_ = 0;
};

struct Transfer {
  const PartFile& part;
  const Download& job;
  CURL* curl;
  Progress& progress;
  uint64_t start = 0;     // bytes that were there before
  uint64_t received = 0;  // bytes of this transfer's body
  bool checked_status = false;
  bool too_long = false;
};

size_t on_body(char* data, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const size_t bytes = size * count;
  if (!transfer.checked_status) {
    transfer.checked_status = true;
    long status = 0;
    curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &status);
    // A server that ignores the range sends everything again, from the first byte.
    if (transfer.start > 0 && status != 206) {
      transfer.part.truncate();
      transfer.start = 0;
    }
  }
  transfer.received += bytes;
  if (transfer.start + transfer.received > transfer.job.bytes) {
    transfer.too_long = true;
    return 0;
  }
  if (!transfer.part.append(data, bytes)) return 0;
  transfer.progress.update(transfer.start + transfer.received);
  return bytes;
}

int on_progress(void* /*user*/, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  return interrupting_signal() != 0 ? 1 : 0;
}

[[noreturn]] void fail_download(const Download& job, const std::string& why) {
  fail(ErrorKind::io, "cannot download {}: {}; download it elsewhere (MD5 {}) and put it at {}",
       job.url, why, job.md5, printable(job.target));
}

void run_transfer(const Download& job, const PartFile& part, Verbosity verbosity) {
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(),
                                                                 curl_easy_cleanup);
  if (!curl) fail_download(job, "libcurl cannot start");
  Progress progress("downloading " + job.target.filename().string(), job.bytes, "B", verbosity);
  Transfer transfer{part, job, curl.get(), progress};
  transfer.start = part.size();
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
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl.get(), CURLOPT_LOW_SPEED_TIME, static_cast<long>(job.stall_seconds));
  curl_easy_setopt(curl.get(), CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl.get(), CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl.get(), CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl.get(), CURLOPT_XFERINFOFUNCTION, on_progress);
  // Not CURLOPT_RESUME_FROM, which makes an error of a server that sends the whole file instead.
  const std::string range = fmt::format("{}-", transfer.start);
  if (transfer.start > 0) curl_easy_setopt(curl.get(), CURLOPT_RANGE, range.c_str());
  const CURLcode code = curl_easy_perform(curl.get());
  check_interrupted();
  if (transfer.too_long) {
    part.truncate();
    fail_download(
        job, fmt::format("the server sends more than the {} bytes that the file has", job.bytes));
  }
  if (part.failed())
    fail(ErrorKind::io, "{}: writing failed: {}", printable(part.path()),
         std::strerror(part.error()));
  if (code != CURLE_OK) {
    long status = 0;
    curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status == 416) part.truncate();  // what is here cannot be a beginning of the file
    fail_download(job, message[0] != '\0' ? message.data() : curl_easy_strerror(code));
  }
  progress.finish();
}

}  // namespace

void download(const Download& job, Verbosity verbosity) {
  curl_global_init(CURL_GLOBAL_DEFAULT);
  make_folder(job.target.parent_path());
  fs::path part_path = job.target;
  part_path += ".part";
  const PartFile part(part_path);
  std::error_code error;
  if (fs::exists(job.target, error)) return;  // another process fetched it while we waited
  if (part.size() > job.bytes) part.truncate();
  if (part.size() < job.bytes) run_transfer(job, part, verbosity);
  if (part.size() != job.bytes)
    fail_download(job,
                  fmt::format("the transfer ended after {} of {} bytes (what came is kept, and "
                              "the next try goes on from there)",
                              part.size(), job.bytes));
  const std::string md5 = md5_of_file(part_path);
  if (md5 != job.md5) {
    part.truncate();
    fail_download(job, fmt::format("what came has MD5 {} and is not the file", md5));
  }
  part.sync();
  fs::rename(part_path, job.target, error);
  if (error)
    fail(ErrorKind::io, "{}: cannot give the download its name: {}", printable(job.target),
         error.message());
}

}  // namespace graft
