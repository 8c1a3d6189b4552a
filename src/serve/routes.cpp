#include "serve/routes.h"

#include "serve/embedded_files.h"

namespace graft::serving {

const EmbeddedFile* find_file(const std::vector<std::string>& path) {
  if (path.size() > 1) return nullptr;
  for (const EmbeddedFile& file : kEmbeddedFiles)
    if (file.path == (path.empty() ? std::string_view() : std::string_view(path[0]))) return &file;
  return nullptr;
}

const Route* find_route(const std::vector<std::string>& path) {
  static constexpr Route kFile{RouteKind::file, "page", "GET", true};
  static constexpr Route kV2{RouteKind::v2, "v2", "GET"};
  static constexpr Route kV2Health{RouteKind::v2, "v2", "GET", true};
  static constexpr Route kInfer{RouteKind::infer, "infer", "POST"};
  if (find_file(path) != nullptr) return &kFile;
  if (path.size() == 1) {
    static constexpr std::pair<std::string_view, Route> kRoutes[] = {
        {"healthz", {RouteKind::health, "healthz", "GET", true}},
        {"readyz", {RouteKind::ready, "readyz", "GET", true}},
        {"metrics", {RouteKind::metrics, "metrics", "GET"}},
        {"models", {RouteKind::models, "models", "GET"}},
        {"predict", {RouteKind::predict, "predict", "POST"}},
        {"features", {RouteKind::features, "features", "POST"}}};
    for (const auto& [name, route] : kRoutes)
      if (path[0] == name) return &route;
  }
  // v2, v2/health/live, v2/health/ready, v2/models/M[/versions/V][/ready | /infer]
  if (path.empty() || path[0] != "v2") return nullptr;
  if (path.size() == 1) return &kV2;
  if (path[1] == "health")
    return path.size() == 3 && (path[2] == "live" || path[2] == "ready") ? &kV2Health : nullptr;
  if (path[1] != "models" || path.size() < 3) return nullptr;
  size_t at = 3;
  if (path.size() > 4 && path[3] == "versions") at = 5;
  if (path.size() == at) return &kV2;
  if (path.size() != at + 1) return nullptr;
  if (path[at] == "ready") return &kV2;
  return path[at] == "infer" ? &kInfer : nullptr;
}

}  // namespace graft::serving
