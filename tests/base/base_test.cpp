#include <atomic>
#include <fstream>
#include <numeric>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/hash.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/threads.h"
#include "support.h"

namespace graft {
namespace {

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
