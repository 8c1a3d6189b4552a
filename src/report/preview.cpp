#include <algorithm>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/random.h"
#include "dataset/dataset.h"
#include "graft/preview.h"
#include "image/augment.h"

namespace graft {
namespace {

constexpr int kGap = 4;        // pixels between images
constexpr int kFirstGap = 16;  // behind the column of images as they are
constexpr uint8_t kBackground = 245;
constexpr int64_t kMaxMegapixels = 200;

/// Training images in random order, one class after the other in turn.
std::vector<fs::path> pick(const Dataset& dataset, uint64_t seed) {
  std::vector<std::vector<fs::path>> by_class(dataset.classes.size());
  for (const Sample& sample : dataset.samples)
    if (sample.split != Split::test && sample.split != Split::validation)
      by_class[static_cast<size_t>(sample.label)].push_back(sample.path);
  Random random(seed);
  size_t most = 0;
  for (auto& paths : by_class) {
    random.shuffle(paths);
    most = std::max(most, paths.size());
  }
  std::vector<fs::path> out;
  for (size_t i = 0; i < most; ++i)
    for (const auto& paths : by_class)
      if (i < paths.size()) out.push_back(paths[i]);
  return out;
}

class Sheet {
 public:
  Sheet(int rows, int columns, int height, int width) : cell_height_(height), cell_width_(width) {
    image_.width = columns * (width + kGap) + kFirstGap;
    image_.height = rows * (height + kGap) + kGap;
    image_.pixels.assign(size_t{3} * image_.width * image_.height, kBackground);
  }
  void put(int row, int column, const Image& image) {
    const int left = kGap + column * (cell_width_ + kGap) + (column > 0 ? kFirstGap - kGap : 0);
    const int top = kGap + row * (cell_height_ + kGap);
    for (int y = 0; y < image.height; ++y)
      std::copy_n(&image.pixels[size_t{3} * image.width * y], size_t{3} * image.width,
                  &image_.pixels[(static_cast<size_t>(top + y) * image_.width + left) * 3]);
  }
  [[nodiscard]] const Image& image() const { return image_; }

 private:
  int cell_height_;
  int cell_width_;
  Image image_;
};

}  // namespace

Preview preview(const Dataset& dataset, const PreviewOptions& o, const RunContext& context) {
  check_dataset(dataset);
  constexpr int kMaxCells = 1000;
  constexpr int kMaxSide = 1 << 16;
  if (o.images < 1 || o.images > kMaxCells || o.views < 0 || o.views > kMaxCells ||
      o.input.height < 1 || o.input.height > kMaxSide || o.input.width < 1 ||
      o.input.width > kMaxSide)
    fail(ErrorKind::usage,
         "a sheet of {} `images` with {} `views` of {}x{} pixels; expected at most {} of them, and "
         "{} pixels a side",
         o.images, o.views, o.input.height, o.input.width, kMaxCells, kMaxSide);
  const Augmentation augmentation = parse_augmentation(o.augment);
  const auto [height, width] = o.input;
  const std::vector<fs::path> paths = pick(dataset, o.seed);
  const int rows = static_cast<int>(std::min<size_t>(paths.size(), static_cast<size_t>(o.images)));
  const int64_t megapixels =
      int64_t{rows} * (height + kGap) * (o.views + 1) * (width + kGap) / 1'000'000;
  if (megapixels > kMaxMegapixels)
    fail(ErrorKind::usage,
         "the sheet would have {} megapixels, and {} are the limit; use fewer `images` or `views`, "
         "or a smaller `input-size`",
         megapixels, kMaxMegapixels);
  Sheet sheet(rows, o.views + 1, height, width);
  const Preprocessing preprocessing = keras_preprocessing();
  int row = 0;
  for (const fs::path& path : paths) {
    if (row == rows) break;
    context.check_stop();
    try {
      const std::vector<std::byte> bytes = read_file(path);
      const Image image = decode_image(bytes, printable(path));
      const std::string hash = content_hash(bytes);
      const Image fitted = fit_image(image, width, height, preprocessing);
      sheet.put(row, 0, fitted);
      for (int number = 0; number < o.views; ++number) {
        const View view = draw_view(augmentation, o.seed, hash, static_cast<uint64_t>(number));
        sheet.put(row, number + 1,
                  augmentation.crops() ? make_view(image, width, height, preprocessing, view)
                                       : apply_view(fitted, view));
      }
      ++row;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input && error.kind() != ErrorKind::io) throw;
      context.tell(Severity::warning, fmt::format("skipped: {}", error.what()));
    }
  }
  if (row == 0)
    fail(ErrorKind::input, "{}: none of the images could be read", printable(dataset.root));
  if (augmentation.mixup > 0 || augmentation.cutmix > 0)
    context.tell(Severity::warning,
                 "mixup and cutmix mix samples while training; the sheet shows the views before "
                 "that");
  return {sheet.image(), row};
}

}  // namespace graft
