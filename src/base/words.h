// Words that a person typed: echoed within bounds, and taken for the known word next to them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// The first characters of a text that may be long, for messages.
std::string clipped(std::string_view text);

/// A message in which nothing is longer than a path can be, nor the whole than a screen or two,
/// whatever was echoed in it. Others come back as they are.
std::string bounded(const std::string& message);

/// Words between commas or spaces.
std::vector<std::string> split_words(const std::string& text);

/// An argument as a shell would need it typed.
std::string shell_quoted(const std::string& argument);

/// The known word that a misspelt one most probably means: case, '_' and exchanged letters count
/// little, and a beginning that only one known word has is that word. Empty where none is near.
std::string nearest_word(std::string_view typed, const std::vector<std::string>& known);

/// " (did you mean WORD?)", to stand behind the word in a message; empty where none is near.
std::string did_you_mean(std::string_view typed, const std::vector<std::string>& known);

}  // namespace graft
