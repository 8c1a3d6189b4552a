#include "cli/predict_maps.h"

#include <algorithm>
#include <set>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/file_names.h"
#include "cli/outputs.h"
#include "graft/image.h"

namespace graft::cli {
namespace {

constexpr std::string_view kListHeader = "path,overlay,label,probability\n";

}  // namespace

MapWriter::MapWriter(const std::string& folder, bool force, const Explainer& explainer,
                     std::span<const fs::path> paths)
    : folder_(folder),
      explainer_(explainer),
      paths_(paths),
      names_(unique_file_names(paths, ".png")),
      written_(paths.size(), false) {
  refuse_inputs_as_targets();
  std::vector<fs::path> targets;
  for (const std::string& name : names_) targets.push_back(folder_ / name);
  refuse_foreign(targets, "--explain", "a map that 'graft predict --explain' drew",
                 "another folder", force,
                 [](const fs::path& file) { return is_png_of(file, kMapSoftware); });
  refuse_foreign({folder_ / kMapListName}, "--explain",
                 "the list that 'graft predict --explain' writes", "another folder", force,
                 [](const fs::path& file) { return file_begins_with(file, kListHeader); });
  make_folder(folder_);
}

std::string MapWriter::write(size_t index, const ActivationMap& map, const Image& image) {
  try {
    const std::vector<std::byte> png = encode_png(explainer_.sheet(image, map), kMapSoftware);
    write_file_atomic(folder_ / names_[index],
                      {reinterpret_cast<const char*>(png.data()), png.size()});
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::io && error.kind() != ErrorKind::input) throw;
    return fmt::format("--explain: {}", error.what());
  }
  written_[index] = true;
  const Prediction prediction = to_prediction(map.logits);
  rows_ += fmt::format(
      "{},{},{},{:.6f}\n", csv_field(paths_[index].string()), csv_field(names_[index]),
      csv_field(explainer_.info().classes.at(map.output)), prediction.probabilities.at(map.output));
  return "";
}

fs::path MapWriter::finish() {
  fs::path list = folder_ / kMapListName;
  std::string text(kListHeader);
  if (file_begins_with(list, kListHeader)) {
    std::set<std::string> ours;
    for (size_t i = 0; i < names_.size(); ++i)
      if (written_[i]) ours.insert(names_[i]);
    const std::vector<CsvRow> rows = parse_csv(read_text_file(list), printable(list));
    std::error_code error;
    for (size_t i = 1; i < rows.size(); ++i) {
      const std::vector<std::string>& f = rows[i].fields;
      if (f.size() == 4 && !ours.contains(f[1]) && fs::exists(folder_ / f[1], error))
        text += fmt::format("{},{},{},{}\n", csv_field(f[0]), csv_field(f[1]), csv_field(f[2]),
                            csv_field(f[3]));
    }
  }
  write_file_atomic(list, text + rows_);
  return list;
}

void MapWriter::refuse_inputs_as_targets() const {
  std::set<fs::path> inputs;
  std::error_code error;
  for (const fs::path& path : paths_) inputs.insert(fs::weakly_canonical(path, error));
  for (const std::string& name : names_)
    if (inputs.contains(fs::weakly_canonical(folder_ / name, error)))
      fail(ErrorKind::usage,
           "--explain: {} is one of the images and would be replaced; choose another folder",
           printable(folder_ / name));
}

}  // namespace graft::cli
