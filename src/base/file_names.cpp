#include "base/file_names.h"

#include <fmt/format.h>

#include <map>
#include <set>

#include "base/hash.h"

namespace graft {
namespace {

// File systems take names of up to 255 bytes; a number, an extension and the suffix of a temporary
// file are added to this.
constexpr size_t kMaxStem = 180;

}  // namespace

std::string short_name(const std::string& name) {
  if (name.size() <= kMaxStem) return name;
  const std::string hash = content_hash(std::as_bytes(std::span(name))).substr(0, 8);
  size_t size = kMaxStem - hash.size() - 1;
  // Not within a UTF-8 character.
  while (size > 0 && (static_cast<unsigned char>(name[size]) & 0xC0U) == 0x80U) --size;
  return name.substr(0, size) + "-" + hash;
}

std::vector<std::string> unique_file_names(std::span<const fs::path> paths,
                                           std::string_view extension) {
  std::vector<std::string> names;
  names.reserve(paths.size());
  std::set<std::string> taken;
  for (const fs::path& path : paths) {
    names.push_back(short_name(path.stem().string()));
    taken.insert(names.back());
  }
  std::map<std::string, int> number;  // the last one given; of a name's first path 1
  for (std::string& name : names) {
    const std::string stem = name;
    int& last = number[stem];
    if (last++ > 0) {
      while (taken.contains(name = fmt::format("{}-{}", stem, last))) ++last;
      taken.insert(name);
    }
    name += extension;
  }
  return names;
}

}  // namespace graft
