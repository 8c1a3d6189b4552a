// UTF-8, a character at a time.
#pragma once

#include <cstdint>
#include <string_view>

namespace graft {

/// The first code point, which is taken off the text; −1 where its first bytes are no UTF-8
/// (nothing is taken off then), or the text is empty.
int32_t take_code_point(std::string_view& text);

/// Control characters, line and paragraph separators, and those that turn the direction of the text
/// around them: in one line of output they would make more or another one.
bool breaks_a_line(int32_t code_point);

}  // namespace graft
