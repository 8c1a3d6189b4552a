#include "dataset/skipped.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/csv.h"
#include "base/fail.h"
#include "base/file.h"
#include "base/progress.h"
#include "base/words.h"
#include "dataset/archive.h"

namespace graft {
namespace {

/// Why there is no file of that name, where it shows.
std::string missing_because(const fs::path& path) {
  std::error_code error;
  if (fs::is_symlink(path, error)) return "a link to a file that is not there";
  if (error == std::errc::filename_too_long) return "longer than paths can be";
  for (fs::path above = path.parent_path(); above.has_relative_path(); above = above.parent_path())
    if (is_archive_name(above) && !fs::exists(above, error))
      return fmt::format("in an archive that is not there, {}", printable(above));
  std::string name = path.string();
  if (name.find('\\') != std::string::npos) {
    std::replace(name.begin(), name.end(), '\\', '/');
    if (fs::exists(name, error)) return "no such file; write / in place of \\";
  }
  return "no such file";
}

std::string clipped_path(const fs::path& path) {
  constexpr size_t kMost = 400;
  std::string text = printable(path);
  if (text.size() <= kMost) return text;
  text.resize(kMost);
  return printable(text) + "…";
}

std::string share_text(size_t skipped, size_t images) {
  const double percent = 100.0 * static_cast<double>(skipped) / static_cast<double>(images);
  return percent >= 10 ? fmt::format("{:.0f} %", percent) : fmt::format("{:.2g} %", percent);
}

}  // namespace

void leave_out_missing(Dataset& dataset) {
  std::vector<Sample> kept;
  kept.reserve(dataset.samples.size());
  for (Sample& sample : dataset.samples) {
    std::error_code error;
    const fs::file_status status = fs::status(sample.path, error);
    const bool too_long = error == std::errc::filename_too_long;
    const bool behind_a_file = error == std::errc::not_a_directory;
    bool there = status.type() != fs::file_type::not_found && !too_long;
    std::string why;
    try {
      if (behind_a_file) there = kind_of_path(sample.path) == PathKind::file;
    } catch (const Error& failure) {  // a damaged archive
      why = failure.what();
    }
    if (there) {
      kept.push_back(std::move(sample));
      continue;
    }
    if (why.empty()) why = missing_because(sample.path);
    dataset.skipped.push_back({sample.path, dataset.classes[sample.label], sample.split, why});
  }
  dataset.samples = std::move(kept);
}

SkippedImage skipped_image(const Sample& sample, const std::string& label,
                           const std::string& message) {
  std::string why = message;
  if (const std::string start = printable(sample.path) + ": "; why.starts_with(start))
    why.erase(0, start.size());
  return {sample.path, label, sample.split, std::move(why)};
}

std::vector<std::string> skipped_summary(std::span<const SkippedImage> skipped, size_t images,
                                         const fs::path& list) {
  constexpr size_t kShown = 5;
  std::vector<std::string> lines = {fmt::format("{} of {} images skipped ({})",
                                                format_count(skipped.size()), format_count(images),
                                                share_text(skipped.size(), images))};
  for (size_t i = 0; i < std::min(skipped.size(), kShown); ++i)
    lines.push_back(
        bounded(fmt::format("skipped: {}: {}", printable(skipped[i].path), skipped[i].why)));
  if (skipped.size() > kShown)
    lines.push_back(fmt::format("skipped: … and {} more{}{}", format_count(skipped.size() - kShown),
                                list.empty() ? "" : ", listed in ", printable(list)));
  return lines;
}

std::string skipped_csv(std::span<const SkippedImage> skipped) {
  std::string text = "path,label,split,why\n";
  for (const SkippedImage& image : skipped)
    text += fmt::format("{},{},{},{}\n", csv_field(fs::absolute(image.path).string()),
                        csv_field(image.label), to_string(image.split), csv_field(image.why));
  return text;
}

void require_few_skipped(std::span<const SkippedImage> skipped, size_t images, double max_share,
                         const std::string& what, const std::string& advice) {
  if (skipped.empty() ||
      static_cast<double>(skipped.size()) <= max_share * static_cast<double>(images))
    return;
  if (skipped.size() == images)
    fail(ErrorKind::input, "{}: none of its {} images can be used, the first: {}: {}; {}", what,
         format_count(images), clipped_path(skipped[0].path), skipped[0].why, advice);
  fail(ErrorKind::input,
       "{}: {} of {} images cannot be used ({}, at most {:g} % may be), the first: {}: {}; {}, or "
       "allow more with `max-skipped {:.2g}`",
       what, format_count(skipped.size()), format_count(images), share_text(skipped.size(), images),
       100 * max_share, clipped_path(skipped[0].path), skipped[0].why, advice,
       std::min(1.0, 0.005 + static_cast<double>(skipped.size()) / static_cast<double>(images)));
}

std::vector<std::string> classes_without(const Dataset& dataset, Split split,
                                         const std::vector<bool>& left_out) {
  std::vector<bool> there(dataset.classes.size());
  for (size_t i = 0; i < dataset.samples.size(); ++i)
    if (dataset.samples[i].split == split && (left_out.empty() || !left_out[i]))
      there[static_cast<size_t>(dataset.samples[i].label)] = true;
  std::vector<std::string> out;
  for (size_t c = 0; c < there.size(); ++c)
    if (!there[c]) out.push_back(dataset.classes[c]);
  return out;
}

}  // namespace graft
