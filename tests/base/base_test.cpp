#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <numeric>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/lock.h"
#include "base/memory.h"
#include "base/prefetch.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/threads.h"
#include "engine/team.h"
#include "support.h"

namespace graft {
namespace {

using engine::Team;
using testing::TemporaryFolder;

TEST(AtomicFile, ReplacesOnlyOnCommit) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "file";
  testing::write(path, "old");
  {
    AtomicFile file(path);
    file.write("new");
  }
  EXPECT_EQ(read_text_file(path), "old");
  write_file_atomic(path, "new");
  EXPECT_EQ(read_text_file(path), "new");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1) << "a temporary stayed";
}

TEST(AtomicFile, RewritesItsStart) {
  const TemporaryFolder folder;
  AtomicFile file(folder.path() / "file");
  file.write("aaaa-rest");
  file.rewrite_start("bbbb");
  file.commit();
  EXPECT_EQ(read_text_file(folder.path() / "file"), "bbbb-rest");
}

TEST(AtomicFile, WritesBehindLinks) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path() / "elsewhere");
  const fs::path target = folder.path() / "elsewhere" / "file";
  const fs::path link = folder.path() / "link";
  fs::create_symlink("elsewhere/file", link);
  fs::create_symlink("link", folder.path() / "link to link");
  for (const char* text : {"new", "replaced"}) {  // what is not there yet, and what is
    write_file_atomic(folder.path() / "link to link", text);
    EXPECT_TRUE(fs::is_symlink(link));
    EXPECT_FALSE(fs::is_symlink(target));
    EXPECT_EQ(read_text_file(target), text);
  }
  fs::create_symlink("loop", folder.path() / "loop");
  EXPECT_ERROR(write_file_atomic(folder.path() / "loop", "x"), ErrorKind::io, "loop");
  EXPECT_ERROR(write_file_atomic(folder.path() / "elsewhere", "x"), ErrorKind::io,
               "is a folder; name a file");
}

TEST(AtomicFile, TakesUpWhatKilledProcessesLeft) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "file";
  for (int i = 0; i < 3; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      AtomicFile file(folder.path() / (i == 2 ? "other" : "file"));
      file.write("half");
      ::_exit(0);  // as a kill would
    }
    ::waitpid(child, nullptr, 0);
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1)
      << "each writer removes what it finds";
  testing::write(folder.path() / "notes.123.tmp", "not ours");
  write_file_atomic(path, "whole");
  EXPECT_EQ(read_text_file(path), "whole");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
}

TEST(AtomicFile, LeavesOtherWritersAlone) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "file";
  AtomicFile first(path);
  first.write("first");
  AtomicFile second(path);
  second.write("second");
  remove_leftovers(folder.path());
  second.commit();
  EXPECT_EQ(read_text_file(path), "second");
  first.commit();
  EXPECT_EQ(read_text_file(path), "first");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 1);
}

TEST(AtomicFile, WritesNamesAsLongAsNamesCanBe) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / std::string(255, 'n');
  write_file_atomic(path, "x");
  EXPECT_EQ(read_text_file(path), "x");
}

TEST(AtomicFile, ALeftoverLinkDoesNotLoseTheFileItNames) {
  const TemporaryFolder folder;
  const fs::path source = folder.path() / "source";
  const fs::path target = folder.path() / "target";
  write_file_atomic(source, "content");
  link_atomic(source, target);
  link_atomic(source, target);  // once more: both are one file now
  EXPECT_EQ(read_text_file(target), "content");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
  fs::create_hard_link(source, folder.path() / "graft-0123456789abcdef-1-link.tmp");
  write_file_atomic(target, "new");
  EXPECT_EQ(read_text_file(source), "content");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), {}), 2);
}

TEST(LockFile, IsForOneAtATime) {
  const TemporaryFolder folder;
  const fs::path path = folder.path() / "lock";
  EXPECT_FALSE(LockFile::is_held(path));
  {
    const auto first = LockFile::acquire(path);
    ASSERT_TRUE(first);
    EXPECT_TRUE(first->effective());
    EXPECT_TRUE(LockFile::is_held(path));
    EXPECT_FALSE(LockFile::acquire(path));
    EXPECT_NE(LockFile::holder(path).find(std::to_string(::getpid())), std::string::npos);
  }
  EXPECT_FALSE(fs::exists(path));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto held = LockFile::acquire(path);
    ::_exit(0);  // as a kill would
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(path));
  EXPECT_TRUE(LockFile::acquire(path));
}

TEST(AtomicFile, FullDiskIsAnError) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  // The temporary file's name is not ours to choose, so a folder that cannot be written stands in.
  EXPECT_ERROR(write_file_atomic("/proc/none/file", "x"), ErrorKind::io, "/proc/none/file");
}

TEST(ReadFile, NamesWhatIsWrong) {
  EXPECT_ERROR(read_file("/nonexistent/x"), ErrorKind::io, "/nonexistent/x");
  EXPECT_ERROR(read_file("/tmp"), ErrorKind::io, "not a regular file");
  EXPECT_ERROR(MappedFile("/dev/null"), ErrorKind::io, "not a regular file");
}

TEST(Printable, KeepsUtf8AndHidesTheRest) {
  EXPECT_EQ(printable("Übung/写真.jpg"), "Übung/写真.jpg");
  EXPECT_EQ(printable("a\nb\x1b[31m\xff.jpg"), "a?b?[31m?.jpg");
  EXPECT_EQ(printable("a\xC2\x9B"
                      "31m \xE2\x80\xAE \xE2\x80\xA8 \xED\xA0\x80"),
            "a?31m ? ? ???")
      << "C1 controls, turned text, a line separator, half of a pair";
}

TEST(Hash, KnownValues) {
  const TemporaryFolder folder;
  testing::write(folder.path() / "empty", "");
  testing::write(folder.path() / "abc", "abc");
  EXPECT_EQ(md5_of_file(folder.path() / "empty"), "d41d8cd98f00b204e9800998ecf8427e");
  EXPECT_EQ(md5_of_file(folder.path() / "abc"), "900150983cd24fb0d6963f7d28e17f72");
  // xxhsum -H2 of nothing.
  EXPECT_EQ(content_hash({}), "99aa06d3014798d86001c324468d497f");
}

TEST(ThreadPool, RunsEachIndexOnce) {
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const size_t count : {size_t{0}, size_t{1}, size_t{5}, size_t{1000}}) {
      std::vector<std::atomic<int>> seen(count);
      pool.parallel_for(count, [&](size_t i) { ++seen[i]; });
      for (const auto& times : seen) EXPECT_EQ(times.load(), 1);
    }
  }
}

TEST(ThreadPool, PassesExceptionsOn) {
  ThreadPool pool(3);
  EXPECT_THROW(pool.parallel_for(100,
                                 [](size_t i) {
                                   if (i == 42) throw std::runtime_error("x");
                                 }),
               std::runtime_error);
  std::atomic<int> sum = 0;
  pool.parallel_for(10, [&](size_t i) { sum += static_cast<int>(i); });
  EXPECT_EQ(sum.load(), 45) << "usable after an exception";
}

TEST(ThreadPool, ServesSeveralCallers) {
  ThreadPool pool(2);
  std::atomic<int> total = 0;
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int k = 0; k < 50; ++k) pool.parallel_for(20, [&](size_t) { ++total; });
    });
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(total.load(), 4 * 50 * 20);
}

/// A tree of /proc and /sys for a process in some control group.
class Cgroups : public ::testing::Test {
 protected:
  static constexpr uint64_t kGiga = 1'000'000'000;

  Cgroups() {
    put("proc/meminfo", "MemTotal: 99 kB\nMemAvailable:   7812500 kB\nBuffers: 1 kB\n");  // 8e9
    put("proc/self/statm", "0 0 0 0 0 0 0");
  }
  void put(const std::string& path, std::string_view text) {
    testing::write(root_.path() / path, text);
  }
  void version_2(std::string_view own = "/a/b") {
    put("proc/self/cgroup", fmt::format("0::{}\n", own));
    put("proc/self/mountinfo",
        "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
  }
  [[nodiscard]] uint64_t memory() const { return available_memory(root_.path()); }
  [[nodiscard]] int processors() const { return available_processors(root_.path()); }

  TemporaryFolder root_;
};

TEST_F(Cgroups, NoneLeaveWhatTheMachineHas) {
  EXPECT_EQ(memory(), 8 * kGiga);
  version_2("/");
  EXPECT_EQ(memory(), 8 * kGiga);
}

TEST_F(Cgroups, UnknownIsNought) {
  fs::remove_all(root_.path() / "proc");
  EXPECT_EQ(memory(), 0);
}

TEST_F(Cgroups, FilesThatNothingUsesAreNotCounted) {
  version_2();
  put("sys/fs/cgroup/a/b/memory.max", "4000000000\n");
  put("sys/fs/cgroup/a/b/memory.current", "3900000000\n");
  put("sys/fs/cgroup/a/b/memory.stat",
      "anon 900000000\nfile 3000000000\ninactive_file 2900000000\n");
  EXPECT_EQ(memory(), 3 * kGiga);
}

TEST_F(Cgroups, EachAncestorsLimitCounts) {
  version_2();
  put("sys/fs/cgroup/a/b/memory.max", "max\n");
  put("sys/fs/cgroup/a/b/memory.current", "1000000000\n");
  put("sys/fs/cgroup/a/memory.max", "3000000000\n");
  put("sys/fs/cgroup/a/memory.current", "1000000000\n");
  put("sys/fs/cgroup/memory.max", "6000000000\n");
  put("sys/fs/cgroup/memory.current", "5000000000\n");
  EXPECT_EQ(memory(), kGiga);
}

TEST_F(Cgroups, MoreThanTheLimitIsNothingLeft) {
  version_2();
  put("sys/fs/cgroup/a/b/memory.max", "1000\n");
  put("sys/fs/cgroup/a/b/memory.current", "2000\n");
  EXPECT_EQ(memory(), 1);
}

TEST_F(Cgroups, AContainerSeesOnlyItsPart) {
  // Without a namespace: the machine's path, of which the container's part is mounted.
  put("proc/self/cgroup", "9:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc/job\n0::/\n");
  put("proc/self/mountinfo",
      "31 25 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
      "32 25 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n");
  put("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000000000\n");
  put("sys/fs/cgroup/memory/memory.usage_in_bytes", "4500000000\n");
  put("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1500000000\n");
  EXPECT_EQ(memory(), 2 * kGiga);
  put("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "50000\n");
  put("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(processors(), 1);
}

TEST_F(Cgroups, APathOutsideTheNamespaceLeavesTheMount) {
  version_2("/../../else");
  put("sys/fs/cgroup/memory.max", "2000000000\n");
  put("sys/fs/cgroup/memory.current", "0\n");
  EXPECT_EQ(memory(), 2 * kGiga);
}

TEST_F(Cgroups, TheSmallestQuotaOfProcessors) {
  version_2();
  const int all = processors();
  put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(processors(), all);
  put("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
  EXPECT_EQ(processors(), 1);
}

/// Runs `body` in a process of its own under a limit on processes, as another user, for whom it
/// holds, and returns its exit code; -1 where this process may not become one.
int as_other_user(rlim_t processes, const std::function<int()>& body) {
  if (::getuid() != 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    const rlimit limit{processes, processes};
    if (::setrlimit(RLIMIT_NPROC, &limit) != 0 || ::setuid(kNobody) != 0) ::_exit(99);
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

TEST(Threads, FewerWhereProcessesAreLimited) {
  const int code = as_other_user(3, [] {
    if (startable_threads(10) != 2) return 1;
    ThreadPool pool(8);
    if (pool.threads() != 3) return 2;
    std::atomic<int> sum = 0;
    pool.parallel_for(100, [&](size_t) { ++sum; });
    if (sum != 100) return 3;
    Team team(8);  // nothing is left for it
    if (team.size() != 1) return 4;
    int runs = 0;
    team.run([&](Team::Member& member) {
      member.next_region();
      runs += 1 + member.take();
    });
    if (runs != 1) return 5;
    Prefetch<int> numbers([n = 0]() mutable -> std::optional<int> {
      return n < 3 ? std::optional(n++) : std::nullopt;
    });
    for (int i = 0; i < 3; ++i)
      if (numbers.next() != i) return 6;
    return numbers.next() ? 7 : 0;
  });
  if (code == -1) GTEST_SKIP() << "only root can become another user";
  EXPECT_EQ(code, 0);
}

TEST(Random, IsTheSameEverywhere) {
  Random random(1, 2);
  const uint64_t first = random.next();
  EXPECT_EQ(first, Random(1, 2).next());
  EXPECT_NE(first, Random(1, 3).next());
  EXPECT_NE(first, Random(2, 2).next());
  std::set<uint64_t> below;
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < 20000; ++i) {
    below.insert(random.below(7));
    const double x = random.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_EQ(below.size(), 7U);
  EXPECT_EQ(*below.rbegin(), 6U);
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
}

TEST(Format, DurationsBytesCounts) {
  EXPECT_EQ(format_duration(7.4), "0:07");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(58'889'256), "58.9 MB");
  EXPECT_EQ(format_count(121877654), "121,877,654");
  EXPECT_EQ(format_count(999), "999");
}

TEST(Processors, AtLeastOne) { EXPECT_GE(available_processors(), 1); }

}  // namespace
}  // namespace graft
