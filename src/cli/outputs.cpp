#include "cli/outputs.h"

#include <algorithm>
#include <array>

#include "base/fail.h"
#include "base/file.h"
#include "graft/labels.h"
#include "graft/run_files.h"

namespace graft::cli {

void refuse_foreign(const std::vector<fs::path>& names, const std::string& what,
                    const std::string& kind, const std::string& otherwise, bool force,
                    const std::function<bool(const fs::path&)>& ours) {
  const fs::path* first = nullptr;
  size_t count = 0;
  for (const fs::path& name : names) {
    std::error_code error;
    // Links count as what they are: one that leads nowhere is somebody's too.
    const fs::file_status status = fs::symlink_status(name, error);
    if (!fs::exists(status) || fs::is_directory(status)) continue;
    if (force || ours(name)) continue;
    if (first == nullptr) first = &name;
    ++count;
  }
  if (first != nullptr)
    fail(ErrorKind::usage,
         "{}: {}{} exists already and is not {}; choose {}, or --force to replace {}", what,
         printable(*first), count > 1 ? fmt::format(" (one of {})", count) : "", kind, otherwise,
         count > 1 ? "them" : "it");
}

void refuse_input_as_output(const fs::path& output, const std::string& what,
                            const std::vector<fs::path>& inputs) {
  std::error_code error;
  for (const fs::path& input : inputs)
    if (fs::exists(output, error) && fs::equivalent(output, input, error))
      fail(ErrorKind::usage,
           "{}: {} is what the result is made from, and would be replaced; choose "
           "another name",
           what, printable(output));
  refuse_kept(output, what);
}

void refuse_kept(const fs::path& output, const std::string& what) {
  using namespace run_files;
  std::error_code error;
  if (!fs::is_regular_file(output, error)) return;
  const fs::path folder = output.parent_path();
  constexpr std::array kOwn = {kModel, kHistory,       kMetrics,     kTimes,   kConfig,
                               kSplit, kLearnedBefore, kPredictions, kSkipped, kCorrections};
  const bool is_run = fs::exists(folder / kConfig, error) && fs::exists(folder / kSplit, error);
  if (is_run && std::any_of(kOwn.begin(), kOwn.end(),
                            [&](const char* name) { return output.filename() == name; }))
    fail(ErrorKind::usage, "{}: {} belongs to a run, and would be replaced; choose another name",
         what, printable(output));
  if (what != "--review" && file_begins_with(output, kReviewStart))
    fail(ErrorKind::usage,
         "{}: {} is a review of labels, and would be replaced; choose another name", what,
         printable(output));
}

void refuse_weights_alone(const fs::path& output, const std::string& what) {
  if (output.filename().string().ends_with(".weights.h5"))
    fail(ErrorKind::usage,
         "{}: {}: Keras takes files of that name for weights without their model; choose a name in "
         ".keras or .h5, load it with keras.models.load_model, and let Keras save its weights",
         what, printable(output));
}

void refuse_folder(const fs::path& name, const std::string& what, const std::string& otherwise) {
  std::error_code error;
  if (fs::is_directory(fs::symlink_status(name, error)))
    fail(ErrorKind::usage, "{}: {} is a folder; choose {}", what, printable(name), otherwise);
}

}  // namespace graft::cli
