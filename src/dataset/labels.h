// When two labels are one: class names as people and file systems write them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace graft {

/// The longest label in bytes; file systems allow 255.
inline constexpr size_t kMaxLabelBytes = 1000;

/// Throws Error(input) that begins with `where` (a folder, or a manifest's line) unless the label
/// is UTF-8 text of one line: control characters would reach terminals, and bytes that are no text
/// could be written to no JSON.
void require_label(std::string_view label, std::string_view where);

/// The label as it is stored and compared: Unicode NFC, without spaces at its ends. Labels with the
/// same canonical form are one class: a folder copied from a Mac comes decomposed.
std::string canonical_label(std::string_view label);

/// Canonical and without what is easily overlooked: letter case, invisible characters, repeated
/// spaces. Different labels that fold to the same text are almost surely meant as one.
std::string folded_label(std::string_view label);

/// What remains of a label to the eye: compatibility forms, accents, letter case, spaces, hyphens
/// and most punctuation left out, Cyrillic and Greek letters that look like Latin ones made those.
/// Digits stay apart as they are. Empty where nothing remains, or the label is not UTF-8.
std::string label_skeleton(std::string_view label);

/// A line for each pair of labels with the same skeleton; of several alike each is paired with the
/// first. Labels of a single letter are left out.
std::vector<std::string> look_alike_notes(const std::vector<std::string>& labels);

/// Throws Error(input) if two of the labels fold to the same text. Labels of a single letter may
/// differ in case: data of handwriting has a class "a" and a class "A".
void require_distinct(const std::vector<std::string>& labels, std::string_view where);

/// Index of the label in `classes`: the very same, else the one with the same canonical form; −1
/// where there is none.
int find_label(const std::vector<std::string>& classes, std::string_view label);

/// "; 'cat' differs from it only in letter case …" where a class folds to the same text as the
/// label, or "; 'cat' looks like it …" where it has the same skeleton, else empty. To be appended
/// to a message about an unknown label.
std::string near_label_hint(const std::vector<std::string>& classes, std::string_view label);

/// The first few of the labels for a message: "cat, dog, … (12 in all)".
std::string label_list(const std::vector<std::string>& labels);

}  // namespace graft
