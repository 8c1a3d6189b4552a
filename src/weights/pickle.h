// Pickles as data: a reader that builds what the text says and executes nothing.
//
// A pickle is a program. This reads the opcodes that plain data needs and refuses all others, and
// every name of a Python object that its caller does not allow. What Python would call becomes a
// node that says so: callable, arguments, items; nothing is looked up, made or run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

class Pickle {
 public:
  /// Index of a node.
  using Id = uint32_t;

  enum class Kind : uint8_t {
    none,
    boolean,     ///< number
    integer,     ///< number
    real,        ///< of no use here: its value is not kept
    text,        ///< text: a string, bytes, or an integer of more than 64 bits
    tuple,       ///< items
    list,        ///< items
    dict,        ///< items: key, value, key, value, …
    global,      ///< text: "collections.OrderedDict"
    call,        ///< items: callable, arguments, and what was put in as into a dict
    persistent,  ///< items: the one that stands for an object outside
  };

  struct Node {
    Kind kind = Kind::none;
    int64_t number = 0;
    std::string text;
    std::vector<Id> items;
  };

  /// May a pickle name this object? Called with "module", "name"; throws where it may not.
  using Allow = std::function<void(std::string_view module, std::string_view name)>;

  /// Reads one pickle from the start of `bytes`; `name` begins messages. Throws Error(input).
  /// Memory stays below 64 MB.
  Pickle(std::span<const std::byte> bytes, std::string name, const Allow& allow);

  [[nodiscard]] const Node& root() const { return nodes_[root_]; }
  [[nodiscard]] const Node& node(Id id) const { return nodes_.at(id); }
  /// Nodes are numbered below this, in the order in which they were made.
  [[nodiscard]] Id size() const { return static_cast<Id>(nodes_.size()); }
  /// Where the pickle ends in `bytes`.
  [[nodiscard]] size_t end() const { return end_; }

 private:
  class Machine;
  std::vector<Node> nodes_;
  Id root_ = 0;
  size_t end_ = 0;
};

}  // namespace graft
