#include "confine/confine.h"

#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <memory>

namespace graft {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

/// Lowers a limit; what the caller's own limit forbids stays forbidden.
void limit(__rlimit_resource resource, rlim_t value) {
  rlimit old{};
  if (::getrlimit(resource, &old) != 0) return;
  const rlimit lower{std::min(value, old.rlim_max), old.rlim_max};
  ::setrlimit(resource, &lower);
}

void allow_only_what_reading_needs(const Confinement& kept) {
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
  if (filter == nullptr) return;
  bool good = true;
  for (const int call : {SCMP_SYS(brk),          SCMP_SYS(munmap),       SCMP_SYS(mremap),
                         SCMP_SYS(madvise),      SCMP_SYS(futex),        SCMP_SYS(exit),
                         SCMP_SYS(exit_group),   SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask),
                         SCMP_SYS(getpid),       SCMP_SYS(gettid),       SCMP_SYS(tgkill),
                         SCMP_SYS(getrandom),    SCMP_SYS(lseek),        SCMP_SYS(clock_gettime),
                         SCMP_SYS(gettimeofday), SCMP_SYS(fstat),        SCMP_SYS(getrlimit),
                         SCMP_SYS(setrlimit),    SCMP_SYS(prlimit64),    SCMP_SYS(getrusage)})
    good = good && seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0;
  for (const int call : {SCMP_SYS(mmap), SCMP_SYS(mprotect)})
    good = good && seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                                    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)) == 0;
  for (const int call : {SCMP_SYS(read), SCMP_SYS(sendto)})
    good =
        good && seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 1,
                                 SCMP_A0(SCMP_CMP_EQ, static_cast<scmp_datum_t>(kept.socket))) == 0;
  if (kept.threads) {
    // A filter cannot look into clone3's arguments; without it glibc takes clone.
    good = good && seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0 &&
           seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                            SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)) == 0;
    for (const int call : {SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield)})
      good = good && seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0) == 0;
  }
  // Fails on kernels without seccomp; the limits above hold there.
  if (good) seccomp_load(filter);
  seccomp_release(filter);
}

}  // namespace

void confine(const Confinement& kept) {
  if (kept.ends_with_parent) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // A terminal's Ctrl-C reaches both programs; Graft decides, and ends this one.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) std::signal(signal, SIG_IGN);
  ::prctl(PR_SET_DUMPABLE, 0);
  limit(RLIMIT_CORE, 0);
  if (kSanitized) return;
  limit(RLIMIT_NOFILE, 0);
  if (!kept.threads) limit(RLIMIT_NPROC, 0);
  limit(RLIMIT_FSIZE, 0);
  allow_only_what_reading_needs(kept);
}

void limit_seconds(uint64_t seconds) {
  rusage used{};
  if (::getrusage(RUSAGE_SELF, &used) != 0) return;
  limit(RLIMIT_CPU, static_cast<rlim_t>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + 1 + seconds);
}

uint64_t address_space() {
  const std::unique_ptr<std::FILE, decltype(&std::fclose)> file(
      std::fopen("/proc/self/statm", "re"), std::fclose);
  uint64_t pages = 0;
  if (!file || std::fscanf(file.get(), "%" SCNu64, &pages) != 1) return 0;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

void limit_memory(uint64_t bytes) {
  if (!kSanitized) limit(RLIMIT_AS, bytes);
}

}  // namespace graft
