#include "cli/outputs.h"

#include <fstream>

#include "base/file.h"
#include "graft/error.h"

namespace graft::cli {

bool begins_with(const fs::path& file, std::string_view text) {
  std::error_code error;
  if (!fs::is_regular_file(file, error)) return false;  // a pipe would be waited for
  std::ifstream stream(file, std::ios::binary);
  std::string start(text.size(), '\0');
  return static_cast<bool>(stream.read(start.data(), static_cast<std::streamsize>(start.size()))) &&
         start == text;
}

void refuse_foreign(const std::vector<fs::path>& names, const std::string& what,
                    const std::string& kind, const std::string& otherwise, bool force,
                    const std::function<bool(const fs::path&)>& ours) {
  const fs::path* first = nullptr;
  size_t count = 0;
  for (const fs::path& name : names) {
    std::error_code error;
    // Links count as what they are: one that leads nowhere is somebody's too.
    const fs::file_status status = fs::symlink_status(name, error);
    if (!fs::exists(status) || fs::is_directory(status)) continue;
    if (force || ours(name)) continue;
    if (first == nullptr) first = &name;
    ++count;
  }
  if (first != nullptr)
    fail(ErrorKind::usage,
         "{}: {}{} exists already and is not {}; choose {}, or --force to replace {}", what,
         printable(*first), count > 1 ? fmt::format(" (one of {})", count) : "", kind, otherwise,
         count > 1 ? "them" : "it");
}

void refuse_folder(const fs::path& name, const std::string& what, const std::string& otherwise) {
  std::error_code error;
  if (fs::is_directory(fs::symlink_status(name, error)))
    fail(ErrorKind::usage, "{}: {} is a folder; choose {}", what, printable(name), otherwise);
}

}  // namespace graft::cli
