#include "base/utf8.h"

#include <utf8proc.h>

#include <algorithm>

namespace graft {

int32_t take_code_point(std::string_view& text) {
  utf8proc_int32_t c = -1;
  const auto length =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(std::min<size_t>(text.size(), 4)), &c);
  if (length <= 0) return -1;
  text.remove_prefix(static_cast<size_t>(length));
  return c;
}

bool breaks_a_line(int32_t code_point) {
  const auto category = utf8proc_category(code_point);
  return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_ZL ||
         category == UTF8PROC_CATEGORY_ZP || (code_point >= 0x202A && code_point <= 0x202E) ||
         (code_point >= 0x2066 && code_point <= 0x2069);
}

}  // namespace graft
