// What may stand in the place of a result.
//
// A file that the user names (-o FILE) is replaced, when its successor is complete. A name that
// Graft makes up (the list beside an .npy file, a map for each image, a default) may be that of a
// file that has nothing to do with it: that one stays, unless Graft made it as the same kind of
// result, or --force is given.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace graft::cli {

/// Throws Error(usage) where a file that is not `ours` bears one of the names, without `force`. A
/// folder is none: it is never replaced, and writing says so.
/// `what`: "--explain", in front of the message; `kind`: what Graft writes there, "a map of ...";
/// `otherwise`: what to choose instead, "another folder". To be called before any work begins.
void refuse_foreign(const std::vector<std::filesystem::path>& names, const std::string& what,
                    const std::string& kind, const std::string& otherwise, bool force,
                    const std::function<bool(const std::filesystem::path&)>& ours);

/// Throws Error(usage) where a result would take the place of what it is made from. `inputs`:
/// files, or folders in whose place or below which it must not be.
void refuse_input_as_output(const std::filesystem::path& output, const std::string& what,
                            const std::vector<std::filesystem::path>& inputs);

/// Throws Error(usage) for a file that a run goes by (but its report), and for a review of labels
/// that a person may have worked on; refuse_input_as_output() includes it.
void refuse_kept(const std::filesystem::path& output, const std::string& what);

/// Throws Error(usage) for a name that says weights alone, as Keras writes them: exports are whole
/// models.
void refuse_weights_alone(const std::filesystem::path& output, const std::string& what);

/// Throws Error(usage) where the only name that there is to write is a folder's.
void refuse_folder(const std::filesystem::path& name, const std::string& what,
                   const std::string& otherwise);

}  // namespace graft::cli
