// What a long piece of work tells of its progress.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "graft/context.h"

namespace graft {

/// One task's progress, told to the context's reporter. Not thread-safe.
class Progress {
 public:
  Progress(const RunContext& context, std::string task, size_t total, std::string unit);
  /// Tells the end, also where an exception is on its way.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Work done so far out of the total; `extra` is free text such as the running loss.
  void update(size_t done, std::string_view extra = {});
  void finish(std::string_view extra = {});
  /// There is more to do than was known.
  void extend(size_t total) { total_ = total; }

 private:
  void tell(std::string_view extra, bool ended) const;

  Reporter* reporter_;
  std::string task_;
  std::string unit_;
  size_t total_;
  size_t done_ = 0;
  bool ended_ = false;
};

/// "0:07", "12:34", "1:02:03".
std::string format_duration(double seconds);
/// "512 B", "3.2 MB", "1.7 GB" (powers of 1000).
std::string format_bytes(double bytes);
/// "121,877,654".
std::string format_count(unsigned long long value);

}  // namespace graft
