// Folders that may mean two things: what is refused, and what is noted.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "dataset/folders.h"

namespace graft {

using Folders = std::vector<const Folder*>;

/// A name as it is compared.
std::string fold(std::string_view name);
/// The folders in one that hold images, somewhere.
Folders content_of(const Folder& folder);
bool has_direct_images(const Folder& folder);
/// The names of content_of(), folded.
std::set<std::string> class_keys(const Folder& folder);
std::set<std::string> shared(const std::set<std::string>& a, const std::set<std::string>& b);
/// "cat/, dog/ and bird/".
std::string names(const Folders& folders, size_t most = 6);

// Each throws Error(input) that says what was found and what was expected. `at`: the folder that
// `kids` are in.

/// Splits inside several of the classes, under whichever names.
void refuse_splits_inside(const std::filesystem::path& at, const Folders& kids);
/// Images beside what says where things are in them.
void refuse_annotations(const std::filesystem::path& at, const Folders& kids);
/// Folders that all hold the same subfolders and nothing else: rather splits, versions (colour,
/// grey), or images beside masks than classes.
void refuse_shared_subfolders(const std::filesystem::path& at, const Folders& kids);
/// trainA/, trainB/, testA/, testB/: splits and classes in one name.
void refuse_split_letters(const std::filesystem::path& at, const Folders& kids);

/// Where some of the classes, though not all, hold the same subfolders, a line that says so:
/// s1/{cat,dog}, s2/{cat,dog} and s3/*.jpg may be classes with parts, or sessions. Else empty.
std::string shared_subfolders_note(const std::filesystem::path& at, const Folders& kids);

}  // namespace graft
