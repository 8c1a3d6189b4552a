// Apart from the rest of the export: programs ask it without loading ONNX's and HDF5's libraries.
#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <utility>

#include "graft/export.h"

namespace graft {

std::optional<ExportFormat> export_format(const std::filesystem::path& file) {
  std::string suffix = file.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  static constexpr std::array<std::pair<std::string_view, ExportFormat>, 7> kSuffixes = {{
      {".onnx", ExportFormat::onnx},
      {".keras", ExportFormat::keras},
      {".h5", ExportFormat::keras_h5},
      {".hdf5", ExportFormat::keras_h5},
      {".pth", ExportFormat::torch},
      {".pt", ExportFormat::torch},
      {".safetensors", ExportFormat::safetensors},
  }};
  for (const auto& [known, format] : kSuffixes)
    if (suffix == known) return format;
  return std::nullopt;
}

}  // namespace graft
