// A page of classified images: thumbnails by class, the surest first.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/file.h"
#include "graft/results.h"

namespace graft {

/// Pixels of the longer side.
inline constexpr int kGalleryThumbnail = 176;
/// Thumbnails of a page, so that it opens (some 15 MB). Beyond that the most crowded classes leave
/// out the middle: the surest and the least sure images stay.
inline constexpr size_t kMostThumbnails = 2000;

class Gallery {
 public:
  explicit Gallery(ResultOptions options, size_t most = kMostThumbnails);

  void add(const fs::path& path, const Prediction& prediction, const Image& image);
  void add_error(const std::string& path, const std::string& why);
  [[nodiscard]] std::string page() const;

 private:
  struct Shown {
    float probability = 0;
    size_t number = 0;  // of equals the earlier one first
    size_t label = 0;
    size_t second = 0;
    float second_probability = 0;
    fs::path path;
    std::string jpeg;  // as base64
    int width = 0;
    int height = 0;
  };
  struct SurestFirst {
    bool operator()(const std::unique_ptr<Shown>& a, const std::unique_ptr<Shown>& b) const {
      return a->probability != b->probability ? a->probability > b->probability
                                              : a->number < b->number;
    }
  };
  using Group = std::set<std::unique_ptr<Shown>, SurestFirst>;

  void leave_one_out();
  [[nodiscard]] bool is_unsure(float probability) const { return probability < options_.unsure; }
  [[nodiscard]] std::string figure(const Shown& shown, const fs::path& above, bool labelled) const;
  [[nodiscard]] std::string group(size_t index, const std::string& heading, const fs::path& above,
                                  std::string& links) const;

  ResultOptions options_;
  size_t most_;
  std::vector<Group> groups_;   // of each class, then the unsure ones
  std::vector<size_t> counts_;  // images of each group, shown or not
  size_t images_ = 0;
  size_t shown_ = 0;
  std::vector<std::pair<std::string, std::string>> errors_;
};

}  // namespace graft
