#include "cli/numbers.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <string>

#include "base/words.h"

namespace graft::cli {
namespace {

/// The whole text as a number; false for anything else.
template <typename T>
bool parse(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

CLI::Validator whole_number(uint64_t least, uint64_t most) {
  return {[=](std::string& text) {
            uint64_t value = 0;
            // CLI11 reads a leading zero as octal.
            const bool octal = text.size() > 1 && text[0] == '0';
            if (!octal && parse(text, value) && value >= least && value <= most)
              return std::string();
            return fmt::format("'{}' is not a whole number from {} to {}, in decimal digits",
                               clipped(text), least, most);
          },
          ""};
}

CLI::Validator seed_number() { return whole_number(0, std::numeric_limits<uint64_t>::max()); }

CLI::Validator number(double least, double most) {
  return {[=](std::string& text) {
            double value = 0;
            // Written so that "nan" is refused.
            if (parse(text, value) && value >= least && value <= most) return std::string();
            return fmt::format("'{}' is not a number from {:g} to {:g}", clipped(text), least,
                               most);
          },
          ""};
}

}  // namespace graft::cli
