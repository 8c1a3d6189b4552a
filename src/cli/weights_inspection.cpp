#include "cli/weights_inspection.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/file.h"
#include "base/words.h"
#include "cli/common.h"
#include "cli/option_flags.h"
#include "recipe/option_values.h"

namespace graft::cli {
namespace {

/// What an inspection says of pixels, in one line.
std::string pixels_line(const Preprocessing& p, bool crop_unknown) {
  const std::string order = p.bgr ? "BGR" : "RGB";
  std::string out =
      fmt::format("{}, x = pixel · ({:.6g}, {:.6g}, {:.6g}) − ({:.6g}, {:.6g}, {:.6g})", order,
                  p.scale[0], p.scale[1], p.scale[2], p.shift[0], p.shift[1], p.shift[2]);
  if (crop_unknown)
    return out +
           "; not said whether cropped or stretched to the input: --preprocessing torch or "
           "torch-stretched says it";
  out += p.crop_ratio > 0
             ? fmt::format("; shorter side to {:.3f} of the input, centre cut out", p.crop_ratio)
             : "; stretched to the input";
  return fmt::format("{}, {}", out, options::word(p.resampling));
}

/// The family whose preprocessing it is, as --preprocessing names it.
std::string pixels_family(Preprocessing p) {
  // How images are resized is said apart.
  const auto is = [&](Preprocessing family) {
    family.resampling = p.resampling;
    return p == family;
  };
  if (is(keras_preprocessing())) return "keras";
  if (is(unit_preprocessing())) return "unit";
  if (is(raw_preprocessing())) return "raw";
  if (is(symmetric_preprocessing())) return "symmetric";
  if (is(scratch_preprocessing())) return "torch-stretched";
  p.crop_ratio = 0;
  return is(scratch_preprocessing()) ? "torch" : "its own";
}

}  // namespace

nlohmann::json inspection_json(const std::string& name, const WeightsInspection& about) {
  nlohmann::json fits = nlohmann::json::array();
  for (const WeightsInspection::Fit& fit : about.fits)
    fits.push_back({{"backbone", fit.backbone}, {"until", fit.until}, {"whole", fit.whole}});
  const Preprocessing& p = about.preprocessing;
  nlohmann::json out = {{"path", name},
                        {"format", about.format},
                        {"family", about.family},
                        {"types", about.types},
                        {"bytes", about.bytes},
                        {"md5", about.md5},
                        {"source", about.source},
                        {"licence", about.licence},
                        {"fits", fits},
                        {"by_order", about.by_order},
                        {"convertible", about.convertible},
                        {"classes", nullptr},
                        {"labels", about.labels},
                        {"left_out", about.left_out},
                        {"input_size", nullptr},
                        {"nearest", about.nearest},
                        {"differences", about.differences},
                        {"damage", about.damage},
                        {"note", with_flags(about.note)},
                        {"preprocessing",
                         {{"family", pixels_family(p)},
                          {"channel_order", p.bgr ? "bgr" : "rgb"},
                          {"scale", p.scale},
                          {"shift", p.shift},
                          {"resampling", options::word(p.resampling)},
                          {"crop_ratio", p.crop_ratio}}}};
  if (about.classes) out["classes"] = *about.classes;
  if (about.input_height > 0)
    out["input_size"] = nlohmann::json{about.input_height, about.input_width};
  if (about.crop_unknown) out["preprocessing"]["crop_ratio"] = nullptr;
  if (about.preprocessing_unknown) out["preprocessing"] = nullptr;
  return out;
}

void print_inspection(const std::string& name, const WeightsInspection& about) {
  constexpr size_t kMostRows = 20;
  const bool asked = about.preprocessing_unknown || about.crop_unknown;
  print_result("{}: {}, {}{}\n", printable(name), about.format,
               format_bytes(static_cast<double>(about.bytes)),
               about.types.empty() ? "" : ", " + about.types);
  print_result("  from        {}\n", about.source);
  print_result("  MD5         {} (this file's)\n", about.md5);
  print_result("  licence     {}\n", about.licence);
  for (const WeightsInspection::Fit& fit : about.fits)
    print_result("  network     {}{}\n", fit.backbone,
                 fit.whole ? ", whole" : ", up to " + fit.until + " (what follows is missing)");
  if (about.by_order)
    print_result("              by order and shapes: its layers bear other names\n");
  if (about.fits.empty())
    print_result("  network     none; the nearest is {}, from which it differs in {}:\n",
                 about.nearest, about.differences.size());
  for (size_t i = 0; i < std::min(about.differences.size(), kMostRows); ++i)
    print_result("            {}\n", about.differences[i]);
  if (about.differences.size() > kMostRows)
    print_result("              … and {} more\n", about.differences.size() - kMostRows);
  if (about.classes)
    print_result("  classifier  {} classes{}\n", *about.classes,
                 about.labels.empty()
                     ? ""
                     : ": " + clipped(fmt::format("{}", fmt::join(about.labels, ", "))));
  if (!about.left_out.empty() && !about.convertible)
    print_result("  left out    {}\n", clipped(fmt::format("{}", fmt::join(about.left_out, ", "))));
  if (about.input_height > 0)
    print_result("  input       {}x{} pixels\n", about.input_height, about.input_width);
  if (!about.note.empty()) print_result("  note        {}\n", printable(with_flags(about.note)));
  for (const std::string& line : about.damage) print_result("  damaged     {}\n", line);
  if (about.preprocessing_unknown)
    print_result(
        "  pixels      not said: --preprocessing keras, torch, torch-stretched, unit, symmetric or "
        "raw says it\n");
  else
    print_result("  pixels      {}: {}\n", pixels_family(about.preprocessing),
                 pixels_line(about.preprocessing, about.crop_unknown));
  if (!about.fits.empty() && about.damage.empty()) {
    const WeightsInspection::Fit& fit = about.fits.front();
    const bool own = about.family == "graft" && !about.labels.empty();
    if (own)
      print_result(
          "  use         whole: graft predict {} PHOTOS\n"
          "              or: graft train PHOTOS --weights {} --head keep\n",
          shell_quoted(name), shell_quoted(name));
    else if (about.convertible)
      print_result(
          "  use         whole: graft weights convert {} MODEL.safetensors{}{}\n"
          "              or: graft train PHOTOS --weights {} --head keep{}\n",
          shell_quoted(name), about.labels.empty() ? " --classes A,B,…" : "",
          asked ? " --preprocessing …" : "", shell_quoted(name), asked ? " --preprocessing …" : "");
    print_result("  {}graft train PHOTOS --backbone {}{} --weights {}{}\n",
                 own || about.convertible ? "            its backbone alone: " : "use         ",
                 fit.backbone, fit.whole ? "" : " --until " + fit.until, shell_quoted(name),
                 asked ? " --preprocessing FAMILY" : "");
  }
}

}  // namespace graft::cli
