// CSV: what is read and written again is read alike; manifests, histories of training, reviews of
// labels.
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/csv.h"
#include "base/file.h"
#include "dataset/dataset.h"
#include "fuzz/fuzz.h"
#include "graft/labels.h"
#include "run/run_folder.h"

namespace {

/// Quoted even where it need not be, so that an empty field is one.
std::string quoted(const std::string& field) {
  std::string out = "\"";
  for (const char c : field) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + '"';
}

/// What a review decides it decides again when its decisions are read as one.
void review(const graft::fs::path& file) {
  using namespace graft;
  Dataset data;
  data.root = "data.csv";
  data.classes = {"ice, old", "sea", "street"};
  for (const char* path : {"sea/1.jpg", "sea/2.jpg", "street/1.jpg", "ice, old/1.jpg"})
    data.samples.push_back({path, path[0] == 'i' ? 0 : path[1] == 'e' ? 1 : 2});
  Dataset again = data;
  apply_corrections(data, file);
  if (data.decisions.empty()) return;
  write_file_atomic(file, data.decisions);
  apply_corrections(again, file);
  fuzz::require(again.decisions == data.decisions);
  fuzz::require(again.samples.size() == data.samples.size());
  for (size_t i = 0; i < data.samples.size(); ++i)
    fuzz::require(again.samples[i].label == data.samples[i].label);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const fs::path file =
      fs::temp_directory_path() / ("graft-fuzz-" + std::to_string(::getpid()) + ".csv");
  const std::string_view text = fuzz::text(data, size);
  fuzz::expect_typed_errors([&] {
    const std::vector<CsvRow> rows = parse_csv(text, "fuzz");
    std::string again;
    for (const CsvRow& row : rows) {
      for (size_t i = 0; i < row.fields.size(); ++i)
        again += (i > 0 ? "," : "") + quoted(row.fields[i]);
      again += '\n';
    }
    const std::vector<CsvRow> second = parse_csv(again, "again");
    fuzz::require(second.size() == rows.size());
    for (size_t i = 0; i < rows.size(); ++i) fuzz::require(second[i].fields == rows[i].fields);
  });
  write_file_atomic(file, text);
  fuzz::expect_typed_errors([] { open_dataset(file); });
  fuzz::expect_typed_errors([] { read_history(file); });
  fuzz::expect_typed_errors([] { review(file); });
  fs::remove(file);
  return 0;
}
