#include "base/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/fail.h"
#include "base/file.h"

namespace graft {
namespace {

using nlohmann::json;

/// Builds the document from the parser's events: the library's own builder has no limits.
class Builder final : public nlohmann::json_sax<json> {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(nullptr) != nullptr; }
  bool boolean(bool value) override { return add(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(value) != nullptr; }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    return add(value) != nullptr;
  }
  bool string(string_t& value) override { return add(std::move(value)) != nullptr; }
  bool binary(binary_t& /*value*/) override { return false; }  // not in JSON text
  bool start_object(std::size_t /*size*/) override { return open(json::object()); }
  bool start_array(std::size_t /*size*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [at, fresh] = open_.back()->get_ref<json::object_t&>().try_emplace(name);
    if (!fresh) return stop(fmt::format("the key '{}' stands twice", clipped(name)));
    member_ = &at->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return stop(fmt::format("not JSON (byte {})", position));
  }

  [[nodiscard]] const std::string& problem() const { return problem_; }
  json take() { return std::move(root_); }

 private:
  bool stop(std::string why) {
    if (problem_.empty()) problem_ = std::move(why);
    return false;
  }

  json* add(json value) {
    if (++values_ > limits_.values) {
      stop(fmt::format("more than {} values", limits_.values));
      return nullptr;
    }
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_object()) return &(*member_ = std::move(value));
    auto& list = open_.back()->get_ref<json::array_t&>();
    list.push_back(std::move(value));
    return &list.back();
  }

  bool open(json value) {
    if (open_.size() == limits_.depth)
      return stop(fmt::format("nested deeper than {} levels", limits_.depth));
    json* at = add(std::move(value));
    if (at == nullptr) return false;
    open_.push_back(at);  // stays where it is until it is closed
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  json root_;
  std::vector<json*> open_;
  json* member_ = nullptr;  // the value of the key read last
  size_t values_ = 0;
  std::string problem_;
};

std::string found(const json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return fmt::format("a list of {}", value.size());
  if (value.is_string()) return "'" + clipped(value.get_ref<const std::string&>()) + "'";
  return value.dump();
}

}  // namespace

json parse_json(std::string_view text, const std::string& name, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    fail(ErrorKind::input, "{}: {} bytes of JSON; at most {} are read", name, text.size(),
         limits.bytes);
  // The parser would take a NUL byte for the end.
  if (text.find('\0') != std::string_view::npos)
    fail(ErrorKind::input, "{}: not JSON: it holds a NUL byte", name);
  Builder builder(limits);
  if (!json::sax_parse(text.begin(), text.end(), &builder))
    fail(ErrorKind::input, "{}: {}", name,
         builder.problem().empty() ? "not JSON" : builder.problem());
  return builder.take();
}

json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  const MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  return parse_json(text, printable(path), limits);
}

std::string json_difference(const nlohmann::json& mine, const nlohmann::json& theirs) {
  constexpr size_t kMost = 3;
  constexpr size_t kLongest = 24;
  std::vector<std::string> out;
  for (const nlohmann::json& change : nlohmann::json::diff(mine, theirs)) {
    if (out.size() == kMost) {
      out.emplace_back("…");
      break;
    }
    const nlohmann::json::json_pointer at(change.at("path").get<std::string>());
    const std::string here = mine.contains(at) ? mine.at(at).dump() : "none";
    const std::string there = change.contains("value") ? change.at("value").dump() : "none";
    std::string name = at.to_string().substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    std::replace(name.begin(), name.end(), '_', '-');
    const bool shown = std::max(here.size(), there.size()) <= kLongest;
    out.push_back(shown ? fmt::format("{}: {}, not {}", name, here, there) : name);
  }
  return fmt::format("{}", fmt::join(out, "; "));
}

JsonField::JsonField(const json& value, std::string document, std::string path)
    : value_(&value), document_(std::move(document)), path_(std::move(path)) {}

void JsonField::refuse(const std::string& why) const {
  if (path_.empty()) fail(ErrorKind::input, "{}: {}", document_, why);
  fail(ErrorKind::input, "{}: field '{}': {}", document_, path_, why);
}

void JsonField::expected(const std::string& what) const {
  refuse(fmt::format("expected {}, found {}", what, found(*value_)));
}

void JsonField::need_object() const {
  if (!value_->is_object()) expected("an object");
}

std::optional<JsonField> JsonField::find(const std::string& key) const {
  need_object();
  const auto at = value_->find(key);
  if (at == value_->end()) return std::nullopt;
  return JsonField(*at, document_, path_.empty() ? key : path_ + "." + key);
}

JsonField JsonField::at(const std::string& key) const {
  std::optional<JsonField> field = find(key);
  if (!field) refuse(fmt::format("'{}' is missing", key));
  return *std::move(field);
}

std::vector<JsonField> JsonField::items() const {
  if (!value_->is_array()) expected("a list");
  std::vector<JsonField> out;
  out.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i)
    out.emplace_back((*value_)[i], document_, fmt::format("{}[{}]", path_, i));
  return out;
}

std::vector<JsonField> JsonField::items(size_t count) const {
  if (!value_->is_array() || value_->size() != count) expected(fmt::format("a list of {}", count));
  return items();
}

int64_t JsonField::integer(int64_t least, int64_t most) const {
  if (value_->is_number_unsigned()) {
    const auto value = value_->get<uint64_t>();
    if (most >= 0 && value <= static_cast<uint64_t>(most) &&
        (least < 0 || value >= static_cast<uint64_t>(least)))
      return static_cast<int64_t>(value);
  } else if (value_->is_number_integer()) {
    const auto value = value_->get<int64_t>();
    if (value >= least && value <= most) return value;
  }
  expected(fmt::format("a whole number from {} to {}", least, most));
}

double JsonField::number(double least, double most) const {
  if (value_->is_number()) {
    const auto value = value_->get<double>();
    if (value >= least && value <= most) return value;
  }
  expected(fmt::format("a number from {:g} to {:g}", least, most));
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) expected("true or false");
  return value_->get<bool>();
}

const std::string& JsonField::text() const {
  if (!value_->is_string()) expected("text");
  const auto& text = value_->get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos) refuse("text that holds a NUL character");
  return text;
}

std::vector<std::string> JsonField::texts() const {
  if (!value_->is_array()) expected("a list");
  std::vector<std::string> out;
  out.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i)
    out.push_back(JsonField((*value_)[i], document_, fmt::format("{}[{}]", path_, i)).text());
  return out;
}

}  // namespace graft
