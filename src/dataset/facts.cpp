#include "dataset/facts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/helper_process.h"
#include "base/json.h"
#include "image/formats.h"

namespace graft {
namespace {

bool is_colourless(const Image& image) {
  for (size_t i = 0; i < image.pixels.size(); i += 3)
    if (image.pixels[i] != image.pixels[i + 1] || image.pixels[i] != image.pixels[i + 2])
      return false;
  return true;
}

/// Of 16 bits, by the upper 8 that were read.
int largest_sample(const Image& image) {
  return 256 * *std::max_element(image.pixels.begin(), image.pixels.end()) + 255;
}

}  // namespace

Facts examine(const Sample& sample, InspectionDepth depth, bool alone) {
  Facts facts;
  if (!alone) facts.hash = sample.content;
  if (depth == InspectionDepth::copies && (alone || !facts.hash.empty())) return facts;
  const fs::path& path = sample.path;
  const std::string name = printable(path);
  try {
    const std::vector<std::byte> bytes = read_file(path);
    if (!alone && facts.hash.empty()) facts.hash = content_hash(bytes);
    if (depth == InspectionDepth::copies) return facts;
    facts.image = probe_image(bytes, name);
    facts.known = true;
    if (depth == InspectionDepth::files) return facts;
    const Image image = decode_image(bytes, name);
    facts.colourless = is_colourless(image);
    facts.look = perceptual_hash(image);
    if (facts.image.deep)
      facts.largest = facts.image.format == ImageFormat::png ? largest_png_sample({bytes, name, {}})
                                                             : largest_sample(image);
  } catch (const HelperUnavailable&) {
    throw;
  } catch (const Error& error) {
    // The path stands beside it already.
    facts.error = error.what();
    if (facts.error.starts_with(name + ": ")) facts.error.erase(0, name.size() + 2);
    facts.unsupported = dynamic_cast<const UnsupportedImage*>(&error) != nullptr;
  }
  return facts;
}

std::string facts_bytes(const Facts& facts) {
  const ImageFacts& image = facts.image;
  const nlohmann::json record = {{"hash", facts.hash},
                                 {"error", facts.error},
                                 {"known", facts.known},
                                 {"unsupported", facts.unsupported},
                                 {"largest", facts.largest},
                                 {"colourless", facts.colourless},
                                 {"format", static_cast<int>(image.format)},
                                 {"width", image.width},
                                 {"height", image.height},
                                 {"grey", image.grey},
                                 {"cmyk", image.cmyk},
                                 {"animated", image.animated},
                                 {"deep", image.deep},
                                 {"signs", facts.look.hash},
                                 {"look", nlohmann::json::binary(facts.look.grey)}};
  std::string out;
  nlohmann::json::to_cbor(record, out);
  return out;
}

Facts facts_of(std::string_view bytes, const std::string& name) {
  const nlohmann::json record = nlohmann::json::from_cbor(bytes, true, false);
  const JsonField field(record, name);
  constexpr int64_t kMostSide = int64_t{1} << 40U;
  Facts facts;
  facts.hash = field.at("hash").text();
  facts.error = field.at("error").text();
  facts.known = field.at("known").boolean();
  facts.unsupported = field.at("unsupported").boolean();
  facts.largest = static_cast<int>(field.at("largest").integer(0, 65'535));
  facts.colourless = field.at("colourless").boolean();
  facts.image.format = static_cast<ImageFormat>(
      field.at("format").integer(0, static_cast<int64_t>(ImageFormat::bmp)));
  facts.image.width = field.at("width").integer(0, kMostSide);
  facts.image.height = field.at("height").integer(0, kMostSide);
  facts.image.grey = field.at("grey").boolean();
  facts.image.cmyk = field.at("cmyk").boolean();
  facts.image.animated = field.at("animated").boolean();
  facts.image.deep = field.at("deep").boolean();
  const JsonField signs = field.at("signs");
  const JsonField look = field.at("look");
  if (!signs.raw().is_number_unsigned() || !look.raw().is_binary() ||
      (!look.raw().get_binary().empty() && look.raw().get_binary().size() != kLookBytes))
    look.refuse("not the look of an image");
  facts.look.hash = signs.raw().get<uint64_t>();
  facts.look.grey = look.raw().get_binary();
  return facts;
}
}  // namespace graft
