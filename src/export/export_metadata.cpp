#include "export/export_metadata.h"

#include "weights/file_seal.h"

namespace graft {

std::map<std::string, std::string> export_metadata(
    const ModelMetadata& metadata, const std::map<std::string, std::string>& modules) {
  std::map<std::string, std::string> out = format_metadata(metadata);
  // With it the file would count as a model of Graft's own, whose tensors have other names.
  out.erase("graft_format");
  out["graft_export"] = "1";
  if (!modules.empty()) out["modules"] = nlohmann::json(modules).dump();
  out["test_views"] = std::to_string(metadata.test_views);
  return out;
}

nlohmann::json export_document(const std::map<std::string, std::string>& metadata) {
  nlohmann::json out = nlohmann::json::object();
  for (const auto& [key, text] : metadata) out[key] = nlohmann::json::parse(text);
  out[std::string(kSealKey)] = kSealBlank;
  return out;
}

std::string sealed_record(const std::map<std::string, std::string>& metadata,
                          const std::string& listing) {
  std::string text = export_document(metadata).dump();
  text.replace(text.find(kSealBlank), kSealBlank.size(), record_seal(text, listing));
  return text;
}

}  // namespace graft
