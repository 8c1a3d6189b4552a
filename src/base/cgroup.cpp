#include "base/cgroup.h"

#include <fstream>
#include <sstream>
#include <string>

namespace graft {
namespace {

namespace fs = std::filesystem;

bool lists(const std::string& words, std::string_view word) {
  std::istringstream stream(words);
  for (std::string one; std::getline(stream, one, ',');)
    if (one == word) return true;
  return false;
}

/// The path of this process in the hierarchy of version 2 (`controller` empty) or of a controller
/// of version 1.
std::optional<std::string> own_path(const fs::path& root, std::string_view controller) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? controllers.empty() : lists(controllers, controller))
      return line.substr(second + 1);
  }
  return std::nullopt;
}

struct Mount {
  std::string root;  // the part of the hierarchy that is mounted
  std::string point;
};

std::optional<Mount> find_mount(const fs::path& root, std::string_view controller) {
  std::ifstream file(root / "proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string skip;
    Mount mount;
    if (!(words >> skip >> skip >> skip >> mount.root >> mount.point)) continue;
    while (words >> skip && skip != "-") {
    }
    std::string type;
    std::string options;
    words >> type >> skip >> options;
    if (controller.empty() ? type == "cgroup2" : type == "cgroup" && lists(options, controller))
      return mount;
  }
  return std::nullopt;
}

std::vector<Cgroup> groups_of(const fs::path& root, std::string_view controller) {
  const std::optional<Mount> mount = find_mount(root, controller);
  const std::optional<std::string> path = own_path(root, controller);
  if (!mount || !path) return {};
  const fs::path top = root / fs::path(mount->point).relative_path();
  // Without a namespace of its own a container sees the machine's path, and only its part mounted.
  fs::path below = fs::path(*path).lexically_relative(mount->root);
  if (below.empty() || *below.begin() == ".." || path->find("/..") != std::string::npos)
    below = ".";
  std::vector<Cgroup> out;
  std::error_code error;
  for (below = below.lexically_normal(); !below.empty() && below != ".";
       below = below.parent_path())
    if (fs::is_directory(top / below, error)) out.push_back({top / below, controller.empty()});
  out.push_back({top, controller.empty()});
  return out;
}

}  // namespace

std::vector<Cgroup> cgroups(std::string_view controller, const fs::path& root) {
  std::vector<Cgroup> out = groups_of(root, "");
  for (Cgroup& group : groups_of(root, controller)) out.push_back(std::move(group));
  return out;
}

std::optional<uint64_t> read_cgroup_number(const fs::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

}  // namespace graft
