// The server's paths.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace graft::serving {

enum class RouteKind { file, health, ready, metrics, models, predict, features, v2, infer };

struct Route {
  RouteKind kind;
  std::string_view name;    ///< for metrics and the log: one of few
  std::string_view method;  ///< GET (and HEAD) or POST
  bool open = false;        ///< without the token
};

/// Null: there is no such path.
const Route* find_route(const std::vector<std::string>& path);

/// A file of the page, or the API's description.
struct EmbeddedFile {
  std::string_view path;  ///< "" for /
  std::string_view type;
  std::string_view content;
};
/// Null: there is none.
const EmbeddedFile* find_file(const std::vector<std::string>& path);

}  // namespace graft::serving
