// multipart/form-data (RFC 7578), as browsers and curl send files.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace graft::serving {

struct FormPart {
  std::string name;
  std::optional<std::string> file_name;  ///< of a file; none: a plain field
  std::string_view content;              ///< of the body that was parsed
};

/// The boundary of a Content-Type; none where it is not multipart/form-data with one.
std::optional<std::string> form_boundary(std::string_view content_type);

/// The parts of a body, which must outlive them. Throws Error(input) that says what is wrong: no
/// parts, one that does not end, more than `most`, headers of more than 8 KiB.
std::vector<FormPart> parse_form(std::string_view body, std::string_view boundary, size_t most);

}  // namespace graft::serving
