// Images sorted into folders by what they were classified as.
//
//   graft::ImageSorter sorter("sorted", classifier.classes(), {.unsure = 0.6});
//   sorter.place("photos/IMG_1.jpg", prediction);  // a copy: sorted/sea/IMG_1.jpg
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "graft/classifier.h"

#pragma GCC visibility push(default)
namespace graft {

/// How an image gets into its folder. The original is never moved, and stays as it is.
enum class Placing {
  copy,           ///< sharing blocks on disk where the file system can
  hard_link,      ///< a further name of the same file, on the same file system
  symbolic_link,  ///< to the original's absolute path
};

struct SortOptions {
  Placing placing = Placing::copy;
  /// Images below this probability go to a folder "unsure"; 0: none do.
  double unsure = 0;
};

/// Not thread-safe. A folder that was sorted into may be sorted into again: nothing is replaced,
/// and an image that lies in its place already stays there.
class ImageSorter {
 public:
  /// Makes the folder. sorted.csv in it (path,file,label,probability) says where each image came
  /// from; lines are added to one that is there. Throws Error(usage) where a file of that name is
  /// something else, Error(io).
  ImageSorter(const std::filesystem::path& folder, const std::vector<std::string>& classes,
              const SortOptions& options = {});
  ~ImageSorter();
  ImageSorter(ImageSorter&&) noexcept;
  ImageSorter& operator=(ImageSorter&&) noexcept;

  /// Copies or links the image to folder/<class>/<its name>, numbered ("name-2.jpg") where another
  /// image bears that name. Returns that path. The name is whole from its first moment on. Throws
  /// Error(io).
  std::filesystem::path place(const std::filesystem::path& image, const Prediction& prediction);

  /// A folder's name is its class', where that is a good name: else without what file systems do
  /// not take ("/", a dot in front), shortened, or numbered where two differ in case alone. A line
  /// for each that is not as the class.
  [[nodiscard]] std::vector<std::string> notes() const;
  /// "36 images into DIR: sea 12, street 20, unsure 4".
  [[nodiscard]] std::string summary() const;
  /// Images that earlier calls of other objects placed, for another prediction, in another of the
  /// folders, where they still lie.
  [[nodiscard]] const std::vector<std::filesystem::path>& stale() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
#pragma GCC visibility pop
