// Text in a terminal's columns: wide characters take two, marks on letters none.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace graft {

/// Columns that a terminal shows the text in. A byte that is no UTF-8 counts as one.
size_t columns_of(std::string_view text);

/// The text in at most so many columns: where it is longer, its middle is "…", since names often
/// differ at their ends.
std::string cut_to_columns(std::string_view text, size_t columns);

/// The text cut like that, and filled up with spaces where it is shorter: behind it, or in front
/// where `right`.
std::string in_columns(std::string_view text, size_t columns, bool right = false);

/// The text with its lines broken between words so that they have at most so many columns, where no
/// word is longer; what goes on stands `hanging` columns in.
std::string wrapped(std::string_view text, size_t columns, size_t hanging = 0);

}  // namespace graft
