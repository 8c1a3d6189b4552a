#include "weights/pickle.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

#include "base/fail.h"

namespace graft {
namespace {

// Checkpoints of thousands of tensors take some 100 bytes and 10 nodes for each. A node takes some
// 80 bytes, so that all of this together stays below 64 MB.
constexpr size_t kMaxBytes = size_t{8} << 20U;
constexpr size_t kMaxNodes = 200'000;
constexpr size_t kMaxItems = 1'000'000;  // on the stack, and in all nodes together
constexpr size_t kMaxName = 1000;
constexpr int kMaxProtocol = 5;

/// Python's pickletools.py, by these names.
enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kPop = '0',
  kPopMark = '1',
  kDup = '2',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kDict = 'd',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kList = 'l',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kBinFloat = 'G',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes8 = 0x8e,
  kEmptySet = 0x8f,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
};

}  // namespace

class Pickle::Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::string name, const Allow& allow,
          std::vector<Node>& nodes)
      : bytes_(bytes.first(std::min(bytes.size(), kMaxBytes))),
        cut_(bytes.size() > kMaxBytes),
        name_(std::move(name)),
        allow_(allow),
        nodes_(nodes) {}

  Id run() {
    while (true) {
      const auto opcode = static_cast<uint8_t>(take(1)[0]);
      if (opcode == kStop) {
        if (stack_.size() != 1 || !marks_.empty()) refuse("it ends with more than one object");
        return stack_.back();
      }
      step(opcode);
    }
  }

  [[nodiscard]] size_t end() const { return at_; }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a usable pickle: {} (at byte {})", name_, why, at_);
  }

  std::span<const std::byte> take(uint64_t count) {
    if (count > bytes_.size() - at_)
      refuse(cut_ ? "it has more than 8 MB of names, or is damaged"
                  : "it ends early; download or copy it again");
    const auto out = bytes_.subspan(at_, count);
    at_ += count;
    return out;
  }

  /// A little-endian unsigned number.
  uint64_t number(size_t size) {
    uint64_t value = 0;
    const auto bytes = take(size);
    std::memcpy(&value, bytes.data(), size);
    return value;
  }

  std::string text(uint64_t size) {
    const auto bytes = take(size);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /// Up to the end of the line, without it.
  std::string line() {
    const auto rest = bytes_.subspan(at_);
    const auto* end = static_cast<const std::byte*>(
        std::memchr(rest.data(), '\n', std::min(rest.size(), kMaxName)));
    if (end == nullptr) refuse("it has a name without end");
    std::string out = text(static_cast<uint64_t>(end - rest.data()));
    take(1);
    return out;
  }

  Id make(Node node) {
    if (nodes_.size() >= kMaxNodes) refuse("it has more objects than weights need");
    count_items(node.items.size());
    nodes_.push_back(std::move(node));
    return static_cast<Id>(nodes_.size() - 1);
  }

  void count_items(size_t more) {
    items_ += more;
    if (items_ > kMaxItems) refuse("it has more objects than weights need");
  }

  void push(Id id) {
    if (stack_.size() >= kMaxItems) refuse("it has more objects than weights need");
    stack_.push_back(id);
  }
  void push(Node node) { push(make(std::move(node))); }
  void push_number(Kind kind, int64_t value) { push(Node{kind, value, "", {}}); }
  void push_text(std::string value) { push(Node{Kind::text, 0, std::move(value), {}}); }

  /// The lowest entry of the stack that may be taken: marks are no objects.
  [[nodiscard]] size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  Id pop() {
    if (stack_.size() <= floor()) refuse("it takes an object where there is none");
    const Id id = stack_.back();
    stack_.pop_back();
    return id;
  }

  Id top() {
    if (stack_.size() <= floor()) refuse("it takes an object where there is none");
    return stack_.back();
  }

  std::vector<Id> pop_to_mark() {
    if (marks_.empty()) refuse("it goes back to a mark that is not there");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Id> out(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return out;
  }

  void push_tuple(size_t count) {
    std::vector<Id> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push(Node{Kind::tuple, 0, "", std::move(items)});
  }

  void remember(uint64_t slot, Id id) {
    if (memo_.size() >= kMaxNodes) refuse("it has more objects than weights need");
    memo_.insert_or_assign(slot, id);
  }

  void recall(uint64_t slot) {
    const auto at = memo_.find(slot);
    if (at == memo_.end()) refuse("it recalls an object that it has not stored");
    push(at->second);
  }

  void push_global(const std::string& module, const std::string& object) {
    if (module.size() > kMaxName || object.size() > kMaxName) refuse("it has a name without end");
    allow_(module, object);
    push(Node{Kind::global, 0, module + "." + object, {}});
  }

  void push_call(Id callable, Id arguments) {
    if (nodes_[callable].kind != Kind::global) refuse("it calls what is no name");
    push(Node{Kind::call, 0, "", {callable, arguments}});
  }

  /// Keys and values into a dict, or what Python would have made one of.
  void put(const std::vector<Id>& pairs) {
    Node& target = nodes_[top()];
    if ((target.kind != Kind::dict && target.kind != Kind::call) || pairs.size() % 2 != 0)
      refuse("it puts items into what has none");
    count_items(pairs.size());
    target.items.insert(target.items.end(), pairs.begin(), pairs.end());
  }

  /// Elements into a list. Those of a list's or set's subclass are of no use, and dropped.
  void append(const std::vector<Id>& items) {
    Node& target = nodes_[top()];
    if (target.kind == Kind::call) return;
    if (target.kind != Kind::list) refuse("it appends to what is no list");
    count_items(items.size());
    target.items.insert(target.items.end(), items.begin(), items.end());
  }

  void push_long(uint64_t size) {
    if (size > sizeof(int64_t)) {
      push_text(text(size));
      return;
    }
    const bool negative =
        size > 0 && at_ + size <= bytes_.size() && static_cast<int8_t>(bytes_[at_ + size - 1]) < 0;
    uint64_t value = number(size);
    if (negative && size < sizeof(int64_t)) value |= ~uint64_t{0} << (8 * size);
    push_number(Kind::integer, static_cast<int64_t>(value));
  }

  void step(uint8_t opcode) {
    switch (opcode) {
      case kProto:
        if (number(1) > kMaxProtocol) refuse("its protocol is newer than 5");
        return;
      case kFrame:
        take(8);
        return;
      case kMark:
        if (marks_.size() >= kMaxItems) refuse("it has more objects than weights need");
        marks_.push_back(stack_.size());
        return;
      case kPop:
        pop();
        return;
      case kPopMark:
        pop_to_mark();
        return;
      case kDup:
        push(top());
        return;
      case kNone:
        push(Node{});
        return;
      case kNewTrue:
      case kNewFalse:
        push_number(Kind::boolean, opcode == kNewTrue ? 1 : 0);
        return;
      case kBinInt:
        push_number(Kind::integer, static_cast<int32_t>(number(4)));
        return;
      case kBinInt1:
        push_number(Kind::integer, static_cast<int64_t>(number(1)));
        return;
      case kBinInt2:
        push_number(Kind::integer, static_cast<int64_t>(number(2)));
        return;
      case kLong1:
        push_long(number(1));
        return;
      case kLong4:
        push_long(number(4));
        return;
      case kBinFloat:
        take(8);
        push(Node{Kind::real, 0, "", {}});
        return;
      default:
        step_text(opcode);
    }
  }

  void step_text(uint8_t opcode) {
    switch (opcode) {
      case kShortBinString:
      case kShortBinBytes:
      case kShortBinUnicode:
        push_text(text(number(1)));
        return;
      case kBinString:
      case kBinBytes:
      case kBinUnicode:
        push_text(text(number(4)));
        return;
      case kBinUnicode8:
      case kBinBytes8:
        push_text(text(number(8)));
        return;
      case kGlobal: {
        const std::string module = line();
        push_global(module, line());
        return;
      }
      case kStackGlobal: {
        const Id object = pop();
        const Id module = pop();
        if (nodes_[object].kind != Kind::text || nodes_[module].kind != Kind::text)
          refuse("it names an object by what is no text");
        push_global(nodes_[module].text, nodes_[object].text);
        return;
      }
      case kBinPut:
      case kLongBinPut:
        remember(number(opcode == kBinPut ? 1 : 4), top());
        return;
      case kMemoize:
        remember(memo_.size(), top());
        return;
      case kBinGet:
      case kLongBinGet:
        recall(number(opcode == kBinGet ? 1 : 4));
        return;
      default:
        step_container(opcode);
    }
  }

  void step_container(uint8_t opcode) {
    switch (opcode) {
      case kEmptyTuple:
        push(Node{Kind::tuple, 0, "", {}});
        return;
      case kTuple1:
      case kTuple2:
      case kTuple3:
        push_tuple(opcode - kTuple1 + 1);
        return;
      case kTuple:
      case kList:
      case kFrozenSet:
        push(Node{opcode == kTuple ? Kind::tuple : Kind::list, 0, "", pop_to_mark()});
        return;
      case kEmptyList:
      case kEmptySet:
        push(Node{Kind::list, 0, "", {}});
        return;
      case kEmptyDict:
        push(Node{Kind::dict, 0, "", {}});
        return;
      case kDict: {
        const std::vector<Id> pairs = pop_to_mark();
        push(Node{Kind::dict, 0, "", {}});
        put(pairs);
        return;
      }
      case kAppend:
        append({pop()});
        return;
      case kAppends:
      case kAddItems:
        append(pop_to_mark());
        return;
      case kSetItem: {
        const Id value = pop();
        const Id key = pop();
        put({key, value});
        return;
      }
      case kSetItems:
        put(pop_to_mark());
        return;
      case kReduce:
      case kNewObj: {
        const Id arguments = pop();
        push_call(pop(), arguments);
        return;
      }
      case kBuild:  // the state of an object that is not made
        pop();
        top();
        return;
      case kBinPersId:
        push(Node{Kind::persistent, 0, "", {pop()}});
        return;
      default:
        refuse(
            fmt::format("opcode 0x{:02x} is not one that weights need, or it is damaged", opcode));
    }
  }

  std::span<const std::byte> bytes_;
  bool cut_;
  std::string name_;
  const Allow& allow_;
  std::vector<Node>& nodes_;
  size_t at_ = 0;
  size_t items_ = 0;
  std::vector<Id> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Id> memo_;
};

Pickle::Pickle(std::span<const std::byte> bytes, std::string name, const Allow& allow) {
  Machine machine(bytes, std::move(name), allow, nodes_);
  root_ = machine.run();
  end_ = machine.end();
}

}  // namespace graft
