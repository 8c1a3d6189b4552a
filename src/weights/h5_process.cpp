#include "weights/h5_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/helper_process.h"
#include "base/limits.h"
#include "weights/keras_model.h"
#include "weights/zip_file.h"

namespace graft {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr HelperProgram kProgram{"graft-read-h5", "reads .h5 files"};
// A program that computes without end is stopped by its limit on processor time (h5/main.cpp).
// This one is for whatever else could keep it, on a machine that is busy or reads from a slow disk.
constexpr seconds kLeastPatience{9};
constexpr uint64_t kBytesPerSecond = uint64_t{1} << 20U;
constexpr milliseconds kLookForSignals{100};

/// Refuses a file that a program is writing, as HDF5 itself does: by its lock, or by the mark that
/// a writer leaves in the newer superblock.
void check_not_being_written(int file, const std::string& name) {
  const char* locking = std::getenv("HDF5_USE_FILE_LOCKING");
  const bool lock = locking == nullptr || std::strcmp(locking, "FALSE") != 0;
  if (lock && ::flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK)
    fail(ErrorKind::input,
         "{}: another program has this file open for writing; wait until it is done or close the "
         "file there, then run again",
         name);
  std::array<unsigned char, 12> start{};
  constexpr size_t kVersion = 8;
  constexpr size_t kFlags = 11;
  if (::pread(file, start.data(), start.size(), 0) == static_cast<ssize_t>(start.size()) &&
      start[0] == 0x89 && start[kVersion] == 3 && (start[kFlags] & 1U) != 0)
    fail(ErrorKind::input,
         "{}: marked as open for writing: a program is still writing it, or was killed while it "
         "did; if none is, clear the mark with 'h5clear -s FILE' or save the file again",
         name);
}

bool is_archive(int file) {
  std::array<char, 4> start{};
  return ::pread(file, start.data(), start.size(), 0) == static_cast<ssize_t>(start.size()) &&
         std::string_view(start.data(), start.size()) == "PK\x03\x04";
}

/// An entry of at most 8 MB as text; empty where there is none.
std::string text_of(const ZipFile& zip, const char* entry) {
  constexpr uint64_t kMost = uint64_t{8} << 20U;
  const ZipEntry* found = zip.find(entry);
  if (found == nullptr) return "";
  const std::vector<std::byte> bytes = zip.read(*found, kMost);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What a .keras archive says of the model.
struct Said {
  std::string description;
  std::string record;
  std::string beside_record;
};

/// The weights in a .keras archive, in memory that no file stands for.
int unpack_weights(const fs::path& path, const std::string& name, Said& said) {
  const MappedFile file(path);
  const ZipFile zip(file.bytes(), name);
  said.description = text_of(zip, "config.json");
  said.record = text_of(zip, "graft.json");
  if (const ZipEntry* record = zip.find("graft.json"))
    said.beside_record = zip.listing_without(*record);
  const ZipEntry* entry = zip.find("model.weights.h5");
  if (entry == nullptr || entry->size == 0)
    fail(ErrorKind::input,
         "{}: a zip archive without model.weights.h5; expected what Keras writes with "
         "model.save('model.keras')",
         name);
  zip.check_size(*entry);
  const int memory = ::memfd_create("graft-keras", MFD_CLOEXEC);
  void* at = MAP_FAILED;
  if (memory >= 0 && ::ftruncate(memory, static_cast<off_t>(entry->size)) == 0)
    at = ::mmap(nullptr, entry->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  const int error = errno;
  try {
    if (at == MAP_FAILED)
      fail(ErrorKind::memory, "{}: {} bytes for its weights cannot be had: {}", name, entry->size,
           system_error_text(error));
    zip.read(*entry, {static_cast<std::byte*>(at), entry->size});
  } catch (...) {
    if (at != MAP_FAILED) ::munmap(at, entry->size);
    if (memory >= 0) ::close(memory);
    throw;
  }
  ::munmap(at, entry->size);
  return memory;
}

}  // namespace

void H5File::Descriptor::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

H5File::H5File(const fs::path& path, std::stop_token until)
    : name_(printable(path)), until_(std::move(until)) {
  try {
    open(path);
    H5Message catalogue = receive();
    weights_ = std::move(catalogue.weights);
    if (description_.empty()) description_ = std::move(catalogue.text);
    if (beside_record_.empty()) record_ = std::move(catalogue.record);
    if (description_ == "{}") description_.clear();  // says nothing
  } catch (...) {
    stop();  // no destructor runs
    throw;
  }
}

void H5File::open(const fs::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0)
    fail(ErrorKind::io, "{}: cannot open: {}", name_, system_error_text(errno));
  if (!S_ISREG(info.st_mode)) fail(ErrorKind::io, "{}: not a regular file; name a file", name_);
  const auto bytes = static_cast<uint64_t>(info.st_size);
  patience_ = kLeastPatience + seconds(static_cast<int64_t>(bytes / kBytesPerSecond));
  deadline_ = std::chrono::steady_clock::now() + patience_;
  if (is_archive(file.get())) {
    Said said;
    const Descriptor member(unpack_weights(path, name_, said));
    description_ = std::move(said.description);
    record_ = std::move(said.record);
    beside_record_ = std::move(said.beside_record);
    start(member.get());
    return;
  }
  check_not_being_written(file.get(), name_);
  start(file.get());
}

void H5File::check_stop() const {
  if (until_.stop_requested()) throw Error(ErrorKind::interrupted, "interrupted");
}

H5File::~H5File() { stop(); }

void H5File::start(int file) {
  std::array<int, 2> ends = {-1, -1};
  const int shared = ::memfd_create("graft-h5", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  shared_.reset(shared);
  if (shared < 0 || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0)
    fail(ErrorKind::io, "{}: cannot be read: {}", name_, system_error_text(errno));
  socket_.reset(ends[0]);
  const Descriptor theirs(ends[1]);
  // In the order of kH5Socket, kH5File, kH5Values. A filter that a file names must not load code.
  process_ =
      start_helper(kProgram, std::array{theirs.get(), file, shared}, {"HDF5_PLUGIN_PRELOAD=::"});
}

void H5File::stop() {
  if (process_ > 0) kill_helper(process_);
  process_ = -1;
}

H5Message H5File::receive() {
  const auto wait = [&] {
    while (true) {
      check_stop();
      pollfd poll{socket_.get(), POLLIN, 0};
      if (::poll(&poll, 1, static_cast<int>(kLookForSignals.count())) > 0) return;
      if (std::chrono::steady_clock::now() > deadline_)
        fail(
            ErrorKind::input,
            "{}: damaged, or on a disk that does not answer: reading it takes longer than its size "
            "explains; download or save it again",
            name_);
    }
  };
  H5Message message;
  if (!receive_message(socket_.get(), message, wait)) {
    check_stop();  // the terminal's Ctrl-C reaches the program too
    fail_dead();
  }
  if (message.tag == H5Tag::refusal)
    fail(ErrorKind::input, "{}: not a usable Keras weights file: {}", name_,
         printable(message.text));
  // Names go into messages, and what a terminal obeys is no part of a name that Graft knows.
  for (H5Weight& weight : message.weights)
    for (std::string* text : {&weight.layer, &weight.name, &weight.problem, &weight.path})
      *text = printable(*text);
  return message;
}

void H5File::fail_dead() {
  const std::string how = end_helper(process_);
  process_ = -1;
  fail(ErrorKind::input,
       "{}: damaged, or not made by Keras: the HDF5 library failed on it ({}); download or save it "
       "again",
       name_, how);
}

void H5File::read(std::span<const size_t> wanted,
                  const std::function<void(size_t, std::span<const float>)>& take) {
  if (wanted.empty()) return;
  // Room for any weight, of which no page is taken before it is written to.
  uint64_t largest = 0;
  for (const H5Weight& weight : weights_) largest = std::max(largest, weight.bytes());
  deadline_ = std::chrono::steady_clock::now() + patience_;
  // Sealed at this size: nothing that the program does can take mapped pages away again.
  if (!sealed_ &&
      (::ftruncate(shared_.get(), static_cast<off_t>(largest)) != 0 ||
       ::fcntl(shared_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0))
    fail(ErrorKind::io, "{}: cannot be read: {}", name_, system_error_text(errno));
  sealed_ = true;
  void* at = ::mmap(nullptr, largest, PROT_READ, MAP_SHARED, shared_.get(), 0);
  if (at == MAP_FAILED)
    fail(ErrorKind::memory, "{}: {} bytes for its largest tensor cannot be had: {}", name_, largest,
         system_error_text(errno));
  const auto unmap = [&](void* map) { ::munmap(map, largest); };
  const std::unique_ptr<void, decltype(unmap)> map(at, unmap);
  for (const size_t index : wanted) {
    if (!send_message(socket_.get(), {H5Tag::read, {}, "", static_cast<uint32_t>(index)}) ||
        receive().tag != H5Tag::values)
      fail_dead();
    take(index, {static_cast<const float*>(at), weights_[index].bytes() / sizeof(float)});
  }
}

namespace {

void add_names(const KerasModel& model, std::vector<std::string>& out) {
  for (const KerasNode& layer : model.layers) {
    out.push_back(printable(layer.name));
    if (layer.model != nullptr) add_names(*layer.model, out);
  }
}

}  // namespace

const std::vector<std::string>& H5File::layer_order() const {
  if (!layer_order_) {
    layer_order_.emplace();
    try {
      if (!description_.empty()) add_names(parse_keras_model(description_, name_), *layer_order_);
    } catch (const Error&) {  // of a class of somebody's
      layer_order_->clear();
    }
  }
  return *layer_order_;
}

}  // namespace graft
