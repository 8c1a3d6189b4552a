#include "cli/numbers.h"

#include <limits>
#include <string>

#include "graft/error.h"
#include "recipe/option_values.h"

namespace graft::cli {
namespace {

/// What the text is refused with by an option's reader; empty: it is taken.
template <typename Read>
CLI::Validator checked_by(Read read) {
  return {[read](std::string& text) {
            try {
              read(text);
              return std::string();
            } catch (const Error& error) {
              return std::string(error.what());
            }
          },
          ""};
}

}  // namespace

CLI::Validator whole_number(uint64_t least, uint64_t most) {
  return checked_by([=](const std::string& text) {
    options::read_whole_number(text, {least, most});
  });
}

CLI::Validator seed_number() { return whole_number(0, std::numeric_limits<uint64_t>::max()); }

CLI::Validator number(double least, double most) {
  return checked_by([=](const std::string& text) { options::read_number(text, {least, most}); });
}

}  // namespace graft::cli
