#include "report/run_folder.h"

#include <charconv>

#include "base/file.h"
#include "dataset/csv.h"
#include "graft/error.h"

namespace graft {

std::vector<EpochRecord> read_history(const std::filesystem::path& file) {
  constexpr std::string_view kHeader =
      "epoch,loss,accuracy,val_loss,val_accuracy,learning_rate,seconds\n";
  const std::string name = printable(file);
  const std::string text = read_text_file(file);
  if (!text.starts_with(kHeader))
    fail(ErrorKind::input, "{}: not a history of graft: its first line must be {}", name,
         kHeader.substr(0, kHeader.size() - 1));
  std::vector<EpochRecord> out;
  const std::vector<CsvRow> rows = parse_csv(text, name);
  for (size_t i = 1; i < rows.size(); ++i) {
    std::vector<double> numbers;
    for (const std::string& field : rows[i].fields) {
      double value = 0;
      if (std::from_chars(field.data(), field.data() + field.size(), value).ec != std::errc())
        fail(ErrorKind::input, "{}:{}: '{}' is no number", name, rows[i].line, field);
      numbers.push_back(value);
    }
    if (numbers.size() != 7)
      fail(ErrorKind::input, "{}:{}: {} numbers where 7 belong", name, rows[i].line,
           numbers.size());
    out.push_back({static_cast<int>(numbers[0]), numbers[1], numbers[2], numbers[3], numbers[4],
                   numbers[5], numbers[6]});
  }
  return out;
}

int RunFolder::best_epoch() const {
  return metrics.is_object() ? metrics.value("best_epoch", 0) : 0;
}

RunFolder read_run_folder(const std::filesystem::path& model) {
  std::error_code error;
  RunFolder run;
  run.folder = fs::is_directory(model, error) ? model : model.parent_path();
  if (run.folder.empty()) run.folder = ".";
  if (fs::exists(run.folder / "history.csv", error))
    run.history = read_history(run.folder / "history.csv");
  if (fs::exists(run.folder / "config.toml", error))
    run.config = read_text_file(run.folder / "config.toml");
  if (fs::exists(run.folder / "metrics.json", error)) {
    run.metrics =
        nlohmann::json::parse(read_text_file(run.folder / "metrics.json"), nullptr, false);
    if (run.metrics.is_discarded())
      fail(ErrorKind::input, "{}: not JSON; train again, or remove it",
           printable(run.folder / "metrics.json"));
  }
  return run;
}

}  // namespace graft
