// JSON that anybody may have written: parsed within limits, read with exact types.
//
// Every error is an Error(input) that begins with the document's name. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/words.h"

namespace graft {

struct JsonLimits {
  size_t bytes = size_t{64} << 20;
  size_t values = 1'000'000;  ///< of all kinds together: a value takes some 100 bytes of memory
  size_t depth = 32;          ///< reading, copying and freeing a document recurse so often
};

/// Parses one document. `name` stands for it in messages. Throws where it is not JSON, passes a
/// limit, or has a key twice in one object.
nlohmann::json parse_json(std::string_view text, const std::string& name,
                          const JsonLimits& limits = {});

/// Reads and parses a file, whose path is its name.
nlohmann::json read_json_file(const std::filesystem::path& path, const JsonLimits& limits = {});

/// In which members two objects differ, for messages: "epochs: 3, not 10; seed: 1, not 2", the
/// first three; values that are long, such as hashes, are not shown.
std::string json_difference(const nlohmann::json& mine, const nlohmann::json& theirs);

/// A value within a document, which knows its place for messages ("layers[3].outputs"). The
/// document must outlive it.
class JsonField {
 public:
  /// `document`: the name for messages; `path`: the value's place in it.
  JsonField(const nlohmann::json& value, std::string document, std::string path = "");

  /// The member of an object. at(): must be there.
  [[nodiscard]] JsonField at(const std::string& key) const;
  [[nodiscard]] std::optional<JsonField> find(const std::string& key) const;
  /// The elements of an array; with `count`, of exactly so many.
  [[nodiscard]] std::vector<JsonField> items() const;
  [[nodiscard]] std::vector<JsonField> items(size_t count) const;

  /// A whole number, written as one: 3.0 is none. Also to check alone.
  int64_t integer(int64_t least, int64_t most) const;
  double number(double least, double most) const;
  [[nodiscard]] bool boolean() const;
  /// Text without NUL characters, which would cut it short in file names and elsewhere.
  [[nodiscard]] const std::string& text() const;
  /// An array of such texts.
  [[nodiscard]] std::vector<std::string> texts() const;

  [[nodiscard]] const nlohmann::json& raw() const { return *value_; }
  [[noreturn]] void refuse(const std::string& why) const;

 private:
  [[noreturn]] void expected(const std::string& what) const;
  void need_object() const;

  const nlohmann::json* value_;
  std::string document_;
  std::string path_;
};

}  // namespace graft
