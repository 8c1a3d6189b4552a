// What Graft's pages share: one self-contained HTML file, light and dark, for phone, screen, paper.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/image.h"

namespace graft::html {

/// Text for element content and attributes; bytes that are not UTF-8 become U+FFFD.
std::string escape(std::string_view text);

std::string base64(std::span<const std::byte> bytes);

/// A whole document. `body` is HTML. A content security policy forbids every request.
std::string page(std::string_view title, std::string_view body);

/// <img> with the image inside, scaled down so that no side is above `side` pixels.
std::string thumbnail(const Image& image, int side, std::string_view alternative);

/// <img> with the image inside as it is, as PNG.
std::string image(const Image& image, std::string_view alternative);

/// A table in a box that scrolls sideways on narrow screens. Cells are HTML; columns from the
/// second on are aligned right where `numeric`.
std::string table(const std::vector<std::string>& header,
                  const std::vector<std::vector<std::string>>& rows, bool numeric = true);

/// <section> with a heading; `id` for links.
std::string section(std::string_view id, std::string_view heading, std::string_view content);

}  // namespace graft::html
