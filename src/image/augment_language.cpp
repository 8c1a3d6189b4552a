// The language of --augment.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fail.h"
#include "base/words.h"
#include "image/augment.h"

namespace graft {
namespace {

constexpr const char* kWords =
    "rotate:A shift:A shift-x:A shift-y:A shear:A zoom:A brightness:A-B channel:A hflip vflip "
    "fill:nearest|constant|reflect|wrap crop:A-B jitter:A hue:A erase:P mixup:A cutmix:A, or the "
    "presets none, light";
constexpr std::string_view kLight = "rotate:10 shift:0.05 zoom:0.1 brightness:0.8-1.2 hflip";

/// The word with its value, for messages.
struct Word {
  std::string_view name;
  std::string_view value;
  bool has_value = false;

  [[noreturn]] void refuse(std::string_view expected) const {
    fail(ErrorKind::usage, "`augment`: '{}{}{}' {}", name, has_value ? ":" : "", clipped(value),
         expected);
  }
};

std::optional<double> to_number(std::string_view text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || at != end || !(value >= 0 && value < 1e6)) return std::nullopt;
  return value;
}

double amount(const Word& word, double most) {
  const std::optional<double> value = to_number(word.value);
  if (!value || *value > most)
    word.refuse(fmt::format("needs a number from 0 to {:g}, as in '{}:{:g}'", most, word.name,
                            most >= 90 ? 10 : 0.2));
  return *value;
}

Range range(const Word& word, double least, double most) {
  const size_t dash = word.value.find('-');
  if (dash != std::string_view::npos) {
    const std::optional<double> low = to_number(word.value.substr(0, dash));
    const std::optional<double> high = to_number(word.value.substr(dash + 1));
    if (low && high && *low >= least && *low <= *high && *high <= most) return {*low, *high};
  }
  word.refuse(
      fmt::format("needs a range within {:g} to {:g}, as in '{}:0.5-1'", least, most, word.name));
}

FillMode fill_mode(const Word& word) {
  if (word.value == "nearest") return FillMode::nearest;
  if (word.value == "constant") return FillMode::constant;
  if (word.value == "reflect") return FillMode::reflect;
  if (word.value == "wrap") return FillMode::wrap;
  word.refuse("must be one of fill:nearest, fill:constant, fill:reflect, fill:wrap" +
              did_you_mean(word.value, {"nearest", "constant", "reflect", "wrap"}));
}

void add_words(std::string_view text, Augmentation& a);

/// Words with one amount, and the largest that makes sense.
struct Amount {
  std::string_view name;
  double Augmentation::*member;
  double most;
};
constexpr std::array<Amount, 10> kAmounts = {{{"rotate", &Augmentation::rotate, 180},
                                              {"shift-x", &Augmentation::shift_x, 1000},
                                              {"shift-y", &Augmentation::shift_y, 1000},
                                              {"shear", &Augmentation::shear, 89},
                                              {"channel", &Augmentation::channel, 255},
                                              {"jitter", &Augmentation::jitter, 1},
                                              {"hue", &Augmentation::hue, 0.5},
                                              {"erase", &Augmentation::erase, 1},
                                              {"mixup", &Augmentation::mixup, 100},
                                              {"cutmix", &Augmentation::cutmix, 100}}};

std::vector<std::string> word_names() {
  std::vector<std::string> names = {"shift", "zoom", "brightness", "hflip", "vflip",
                                    "fill",  "crop", "none",       "light"};
  for (const Amount& known : kAmounts) names.emplace_back(known.name);
  return names;
}

void add_word(const Word& word, Augmentation& a) {
  for (const Amount& known : kAmounts) {
    if (word.name != known.name) continue;
    a.*known.member = amount(word, known.most);
    return;
  }
  const auto is = [&](std::string_view name) { return word.name == name; };
  if (is("none") || is("light") || is("hflip") || is("vflip")) {
    if (word.has_value) word.refuse(fmt::format("takes no value; write '{}'", word.name));
    if (is("none")) a = {};
    if (is("light")) add_words(kLight, a);
    if (is("hflip")) a.hflip = true;
    if (is("vflip")) a.vflip = true;
  } else if (is("shift")) {
    a.shift_x = a.shift_y = amount(word, 1000);
  } else if (is("zoom") && word.value.find('-') == std::string_view::npos) {
    const double most = amount(word, 0.99);
    a.zoom = {1 - most, 1 + most};
  } else if (is("zoom")) {
    a.zoom = range(word, 0.01, 100);
  } else if (is("brightness")) {
    a.brightness = range(word, 0, 100);
  } else if (is("crop")) {
    a.crop = range(word, 0.01, 1);
  } else if (is("fill")) {
    a.fill = fill_mode(word);
  } else {
    fail(ErrorKind::usage, "`augment`: unknown word '{}'{}; words are: {}", clipped(word.name),
         did_you_mean(word.name, word_names()), kWords);
  }
}

void add_words(std::string_view text, Augmentation& a) {
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of(" ,\t\n"), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (word.empty()) continue;
    const size_t colon = word.find(':');
    if (colon == std::string_view::npos)
      add_word({word, {}, false}, a);
    else
      add_word({word.substr(0, colon), word.substr(colon + 1), true}, a);
  }
}

}  // namespace

Augmentation parse_augmentation(std::string_view text) {
  Augmentation a;
  add_words(text, a);
  if (a.mixup > 0 && a.cutmix > 0)
    fail(ErrorKind::usage, "`augment`: mixup and cutmix exclude each other; leave one out");
  return a;
}

}  // namespace graft
