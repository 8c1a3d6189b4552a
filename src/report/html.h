// What Graft's pages share: one self-contained HTML file, light and dark, for phone, screen, paper.
//
// Styles and script stand in report/page and are part of every page. Without the script a page is
// whole; with it tables of `sorts` are sorted, paths copied, photos within "zooms" enlarged.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/image.h"

namespace graft::html {

/// Text for element content and attributes; bytes that are not UTF-8 become U+FFFD.
std::string escape(std::string_view text);

/// At most so many characters of a text, with "…" for what was left out: its end, or its middle,
/// where names that begin alike are told apart. Not escaped.
std::string shortened(std::string_view text, size_t most);
std::string shortened_middle(std::string_view text, size_t most);

std::string base64(std::span<const std::byte> bytes);

/// A whole document. `body` is HTML, what stands in <main>. A content security policy forbids every
/// request, and every script but the page's own.
std::string page(std::string_view title, std::string_view body);

/// The page's styles and script, for a page that is served; and the script as a source of a content
/// security policy ('sha256-…').
std::string_view style();
std::string_view script();
std::string script_source();

/// <img> with the image inside, scaled down so that no side is above `side` pixels.
std::string thumbnail(const Image& image, int side, std::string_view alternative);

/// A path that can be copied: shown is its end, or `shown`; copied is all of it.
std::string copyable_path(const std::filesystem::path& path, std::string_view shown = {});

/// <figure> of one image (HTML; empty: a tile that says there is none) or several side by side,
/// with a caption (HTML) below. `attributes` (HTML) go into the tag.
std::string figure(std::string_view images, std::string_view caption,
                   std::string_view attributes = {});

/// Rows from which on a table or list scrolls by itself, so that the page stays short.
inline constexpr size_t kLong = 25;

/// What may be wider or higher than the screen: scrolls, also by keys. `label` names it. Of
/// `classes` "long" stays lower than the screen.
std::string scroll_area(std::string_view label, std::string_view content,
                        std::string_view classes = {});

struct Column {
  std::string name;            ///< text
  bool numeric = true;         ///< aligned right, sorted as numbers
  bool largest_first = false;  ///< what is worst, and so comes first when sorted
};
struct Row {
  std::vector<std::string> cells;  ///< HTML
  std::string attributes{};        ///< HTML, of the tag
};
struct Table {
  std::string label;  ///< of the scrolling area
  std::vector<Column> columns;
  std::vector<Row> rows;
  std::vector<Row> footer{};  ///< rows that are not sorted
  bool sorts = true;
};
std::string table(const Table& table);

/// A table that is not sorted. Cells are HTML; columns from the second on are aligned right where
/// `numeric`.
std::string table(const std::vector<std::string>& header,
                  const std::vector<std::vector<std::string>>& rows, bool numeric = true);

/// Rows of a name (text) and what there is to say of it (HTML).
std::string facts(const std::vector<std::pair<std::string, std::string>>& rows);

/// A figure and what it is (both text), large.
std::string tile(std::string_view value, std::string_view what);

/// <section> with a heading; `id` for links.
std::string section(std::string_view id, std::string_view heading, std::string_view content);

}  // namespace graft::html
