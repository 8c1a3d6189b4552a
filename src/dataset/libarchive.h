// What the parts share that read by libarchive.
#pragma once

#include <archive.h>

#include <filesystem>
#include <memory>
#include <new>

#include "base/fail.h"
#include "base/file.h"

namespace graft {

using ArchiveReader = std::unique_ptr<archive, decltype(&archive_read_free)>;

inline ArchiveReader new_archive_reader() {
  ArchiveReader reader(archive_read_new(), archive_read_free);
  if (!reader) throw std::bad_alloc();
  return reader;
}

[[noreturn]] inline void fail_damaged_tar(const std::filesystem::path& path, archive* reader) {
  const char* why = archive_error_string(reader);
  fail(ErrorKind::input, "{}: not a usable tar archive: {}; download or copy it again",
       printable(path), printable(why != nullptr ? why : "it cannot be read"));
}

}  // namespace graft
