#include "base/option_synonyms.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/words.h"

namespace graft {
namespace {

struct Synonym {
  std::string_view word;
  std::string_view option;
};
constexpr auto kSynonyms = std::to_array<Synonym>({
    {"learning-rate", "lr"},
    {"out", "output"},
    {"out-dir", "output"},
    {"output-dir", "output"},
    {"save-dir", "output"},
    {"image-size", "input-size"},
    {"img-size", "input-size"},
    {"imgsz", "input-size"},
    {"arch", "backbone"},
    {"model", "backbone"},
    {"network", "backbone"},
    {"pretrained", "weights"},
    {"num-epochs", "epochs"},
    {"workers", "threads"},
    {"num-workers", "threads"},
    {"jobs", "threads"},
    {"gpu", "device"},
    {"freeze", "fine-tune"},
    {"unfreeze", "fine-tune"},
    {"early-stopping", "patience"},
    {"scheduler", "schedule"},
    {"num-classes", "classes"},
    {"topk", "top"},
    {"threshold", "unsure"},
    {"gradcam", "explain"},
    {"overwrite", "force"},
    {"silent", "quiet"},
});

/// "learning-rate" of "--Learning_Rate".
std::string bare(std::string_view name) {
  if (name.starts_with("--")) name.remove_prefix(2);
  std::string out(name);
  for (char& c : out)
    c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace

std::string did_you_mean_option(std::string_view typed, const std::vector<std::string>& known) {
  // By the word, the name of the known option as it is spelt there.
  std::vector<std::string> words;
  std::vector<std::string> options;
  for (const Synonym& synonym : kSynonyms)
    for (const std::string& option : known)
      if (bare(option) == synonym.option) {
        words.emplace_back(synonym.word);
        options.push_back(option);
      }
  const std::string word = bare(typed);
  const auto is_synonym = std::find(words.begin(), words.end(), word) != words.end();
  if (std::string meant = is_synonym ? "" : did_you_mean(typed, known); !meant.empty())
    return meant;
  const auto meant = std::find(words.begin(), words.end(), nearest_word(word, words));
  if (meant == words.end()) return {};
  return " (did you mean " + options[static_cast<size_t>(meant - words.begin())] + "?)";
}

}  // namespace graft
