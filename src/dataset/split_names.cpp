#include "dataset/split_names.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "dataset/labels.h"

namespace graft {
namespace {

std::vector<std::string> tokens(std::string_view name) {
  std::vector<std::string> out(1);
  for (const char c : folded_label(name)) {
    if (c == '_' || c == '-' || c == ' ' || c == '.')
      out.emplace_back();
    else
      out.back() += c;
  }
  std::erase_if(out, [](const std::string& token) { return token.empty(); });
  return out;
}

}  // namespace

std::optional<Split> split_of_name(std::string_view name) {
  constexpr std::array<std::string_view, 2> kTrain = {"train", "training"};
  constexpr std::array<std::string_view, 7> kValidation = {"val", "valid", "validation", "validate",
                                                           "dev", "eval",  "evaluation"};
  constexpr std::array<std::string_view, 2> kTest = {"test", "testing"};
  constexpr std::array<std::string_view, 11> kAdditions = {
      "seg", "set", "split", "data", "dataset", "images", "image", "imgs", "img", "photos", "jpg"};
  const auto in = [](const auto& list, std::string_view word) {
    return std::find(list.begin(), list.end(), word) != list.end();
  };
  std::optional<Split> split;
  for (std::string word : tokens(name)) {
    // "test1", "trainset", "testdata"
    word.resize(word.find_last_not_of("0123456789") + 1);
    for (const std::string_view end : {"set", "data"})
      if (word.size() > end.size() && word.ends_with(end) && !in(kAdditions, word))
        word.resize(word.size() - end.size());
    if (word.empty()) continue;
    std::optional<Split> here;
    if (in(kTrain, word)) here = Split::train;
    if (in(kValidation, word)) here = Split::validation;
    if (in(kTest, word)) here = Split::test;
    if (!here && in(kAdditions, word)) continue;
    if (!here || split) return std::nullopt;
    split = here;
  }
  return split;
}

bool is_for_prediction(std::string_view name) {
  constexpr std::array<std::string_view, 8> kWords = {
      "pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "unsup", "infer"};
  const std::vector<std::string> words = tokens(name);
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) {
    return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
  });
}

}  // namespace graft
