#include "base/group_folder.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/group_times.h"
#include "base/json.h"
#include "base/part_file.h"
#include "base/progress.h"
#include "graft/shard.h"

namespace graft {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds kPoll{50};
// Whoever looks whether a mark is held holds it for microseconds.
constexpr milliseconds kPatience{2000};
// Then it is said what is being waited for.
constexpr std::chrono::seconds kPatientSilence{10};
// A process that does not hang says so.
constexpr std::chrono::seconds kBeat{2};
constexpr int kPartsOfProcess = 64;
// Images that are computed at once, if nothing else is asked for.
constexpr size_t kBatch = 16;

/// Touches the file until it is stopped.
void keep_touching(const std::stop_token& stop, const fs::path& file) {
  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  while (!wake.wait_for(lock, stop, kBeat, [&] { return stop.stop_requested(); })) {
    std::error_code error;
    fs::last_write_time(file, fs::file_time_type::clock::now(), error);
  }
}

void pause(const RunContext& context) {
  context.check_stop();
  std::this_thread::sleep_for(kPoll);
}

}  // namespace

uint32_t group_parts(size_t images, int processes) {
  const size_t most = static_cast<size_t>(processes) * kPartsOfProcess;
  const size_t parts = std::clamp<size_t>(images / kBatch, 1, most);
  return static_cast<uint32_t>(std::min<size_t>(parts, kMostShards));
}

GroupFolder::GroupFolder(std::filesystem::path folder, const GroupPlace& place,
                         const std::string& job, const RunContext& context)
    : folder_(std::move(folder)), place_(place), job_(job), context_(context) {
  try {
    make_folder(folder_);
    join();
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::io) throw;
    fail(ErrorKind::io, "{} (what each process makes goes there; --parts names another folder)",
         error.what());
  }
  try {
    if (place_.rank == 0)
      wait_for_others();
    else
      wait_for_first();
  } catch (const Error&) {
    beat_ = {};
    here_.reset();
    std::error_code error;
    fs::remove(folder_, error);  // where nothing is in it
    throw;
  }
}

fs::path GroupFolder::mark(int rank) const {
  return folder_ / fmt::format("rank-{}-of-{}", rank, place_.size);
}

void GroupFolder::join() {
  const fs::path mine = mark(place_.rank);
  const Clock::time_point begin = Clock::now();
  while (!(here_ = LockFile::acquire(mine))) {
    if (Clock::now() - begin > kPatience) {
      const std::string holder = LockFile::holder(mine);
      fail(ErrorKind::input,
           "{}: rank {} of {} is at work already{}; start the command once, or let it end",
           printable(folder_), place_.rank, place_.size,
           holder.empty() ? "" : fmt::format(" ({})", holder));
    }
    pause(context_);
  }
  if (!here_->effective())
    fail(ErrorKind::io,
         "{}: this file system has no locks, by which processes of a group share out their work",
         printable(folder_));
  beat_ = std::jthread([mine](const std::stop_token& stop) { keep_touching(stop, mine); });
}

void GroupFolder::look_for_hung(size_t parts_left) {
  const Clock::time_point now = Clock::now();
  beats_.resize(static_cast<size_t>(place_.size));
  std::vector<std::string> hung;
  for (int k = 1; k < place_.size; ++k) {
    if (!LockFile::is_held(mark(k))) continue;
    Beat& beat = beats_[static_cast<size_t>(k)];
    std::error_code error;
    const fs::file_time_type touched = fs::last_write_time(mark(k), error);
    if (beat.seen == Clock::time_point{} || touched != beat.touched) beat = {touched, now};
    if (now - beat.seen < group_timeout()) return;
    const std::string holder = LockFile::holder(mark(k));
    hung.push_back(fmt::format("{}{}", k, holder.empty() ? "" : fmt::format(" ({})", holder)));
  }
  if (hung.empty()) return;
  fail(ErrorKind::io,
       "rank{} {} of {} {}: no sign of life for {} s, with {} part{} in hand; end {}, and start "
       "the command again, which goes on with what is there",
       hung.size() == 1 ? "" : "s", fmt::join(hung, ", "), place_.size,
       hung.size() == 1 ? "hangs" : "hang", group_timeout().count() / 1000, parts_left,
       parts_left == 1 ? "" : "s", hung.size() == 1 ? "it" : "them");
}

void GroupFolder::wait_for_others() {
  std::vector<int> missing;
  for (int k = 1; k < place_.size; ++k) missing.push_back(k);
  const Clock::time_point begin = Clock::now();
  while (true) {
    std::erase_if(missing, [&](int rank) { return LockFile::is_held(mark(rank)); });
    if (missing.empty()) break;
    if (Clock::now() - begin > group_join_time())
      fail(ErrorKind::io,
           "rank{} {} of {} {} not come to {} within {} s; start all processes with the same "
           "command, and let this folder be one that all of them have",
           missing.size() > 1 ? "s" : "", fmt::join(missing, ", "), place_.size,
           missing.size() > 1 ? "have" : "has", printable(folder_),
           group_join_time().count() / 1000);
    pause(context_);
  }
  write_file_atomic(folder_ / "job", job_);
  all_ = LockFile::acquire(folder_ / "begun");
  while (!all_) {  // another rank is looking
    pause(context_);
    all_ = LockFile::acquire(folder_ / "begun");
  }
}

void GroupFolder::wait_for_first() {
  const fs::path first = mark(0);
  const Clock::time_point begin = Clock::now();
  bool came = false;
  while (!LockFile::is_held(folder_ / "begun")) {
    if (LockFile::is_held(first))
      came = true;
    else if (came && !LockFile::is_held(folder_ / "begun"))
      fail(ErrorKind::io, "rank {} of {}: rank 0 has ended", place_.rank, place_.size);
    if (!came && Clock::now() - begin > group_join_time())
      fail(ErrorKind::io,
           "rank {} of {}: rank 0 is not at {}; start all processes with the same command, and let "
           "this folder be one that all of them have",
           place_.rank, place_.size, printable(folder_));
    pause(context_);
  }
  if (const std::string wanted = read_text_file(folder_ / "job"); wanted != job_)
    fail(ErrorKind::input,
         "rank {} of {}: its images or options differ from those of rank 0 ({}); start all "
         "processes with the same command on the same data",
         place_.rank, place_.size,
         json_difference(parse_json(job_, "job"), parse_json(wanted, printable(folder_ / "job"))));
}

std::vector<fs::path> GroupFolder::share_out(uint32_t parts,
                                             const std::function<fs::path(uint32_t part)>& file_of,
                                             const std::function<void(uint32_t part)>& work) {
  const bool first = place_.rank == 0;
  std::vector<fs::path> files;
  for (uint32_t part = 0; part < parts; ++part) files.push_back(file_of(part));
  const auto is_there = [&](uint32_t part) {
    std::error_code error;
    return fs::exists(files[part], error);
  };
  std::vector<bool> done(parts);
  std::vector<bool> earlier(parts);
  if (first)
    for (uint32_t part = 0; part < parts; ++part) earlier[part] = is_there(part);
  const auto begin = static_cast<uint32_t>(uint64_t{parts} * static_cast<uint64_t>(place_.rank) /
                                           static_cast<uint64_t>(place_.size));
  Progress progress(context_, fmt::format("{} processes", place_.size), parts, "parts");
  Clock::time_point worked = Clock::now();
  bool said = false;
  while (true) {
    bool any = false;
    std::vector<uint32_t> taken;
    for (uint32_t k = 0; k < parts; ++k) {
      const uint32_t part = (begin + k) % parts;
      if (done[part]) continue;
      done[part] = !earlier[part] && is_there(part);
      if (!done[part]) {
        context_.check_stop();
        try {
          work(part);
          done[part] = true;
        } catch (const PartTaken&) {
        } catch (const Error& error) {
          // Rank 0 is done, and has cleared up.
          std::error_code none;
          if (!first && error.kind() == ErrorKind::io && !fs::exists(folder_ / "job", none))
            return files;
          throw;
        }
        any |= done[part];
      }
      if (!done[part]) taken.push_back(part);
      progress.update(static_cast<size_t>(std::count(done.begin(), done.end(), true)));
    }
    if (taken.empty()) break;
    if (any) {
      worked = Clock::now();
      continue;
    }
    // Whoever is at these finishes them; where it dies rank 0 does.
    if (!first) break;
    if (!said && Clock::now() - worked > kPatientSilence) {
      said = true;
      context_.tell(Severity::info, fmt::format("waiting for other processes, at {} part{} still",
                                                taken.size(), taken.size() == 1 ? "" : "s"));
    }
    look_for_hung(taken.size());
    pause(context_);
  }
  progress.finish();
  // Rank 0 clears up before it goes.
  std::error_code error;
  if (!first && !LockFile::is_held(mark(0)) && fs::exists(folder_ / "job", error))
    fail(ErrorKind::io,
         "rank {} of {}: rank 0 has ended before all was done; start the command again, which goes "
         "on with what is in {}",
         place_.rank, place_.size, printable(folder_));
  return files;
}

void GroupFolder::remove(const std::string& kind) {
  const Clock::time_point begin = Clock::now();
  for (int k = 1; k < place_.size; ++k)
    while (LockFile::is_held(mark(k)) && Clock::now() - begin < kPatience)
      std::this_thread::sleep_for(kPoll);
  beat_ = {};
  std::error_code error;
  std::vector<fs::path> files;
  for (fs::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if ((name.starts_with(kind + "-") && name.find(".part") != std::string::npos) ||
        name == "job" || name.starts_with("rank-"))
      files.push_back(at->path());
  }
  for (const fs::path& file : files) fs::remove(file, error);
  all_.reset();
  here_.reset();
  fs::remove(folder_, error);  // where nothing else is in it
}

}  // namespace graft
