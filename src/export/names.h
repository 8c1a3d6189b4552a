// Names in other formats that must be unlike each other.
#pragma once

#include <set>
#include <string>

namespace graft {

/// Hands out names, none twice.
class UniqueNames {
 public:
  /// The name itself, or where it is taken the name with "_2", "_3", …
  std::string take(const std::string& wanted) {
    std::string name = wanted;
    for (int i = 2; !taken_.insert(name).second; ++i) name = wanted + "_" + std::to_string(i);
    return name;
  }

 private:
  std::set<std::string> taken_;
};

}  // namespace graft
