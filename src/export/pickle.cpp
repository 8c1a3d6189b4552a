// Opcodes: CPython's Lib/pickletools.py; what they build: torch/_utils.py, _rebuild_tensor_v2.
#include "export/pickle.h"

#include <limits>

namespace graft {
namespace {

class Pickle {
 public:
  Pickle() { out_ = "\x80\x02"; }  // PROTO 2

  void mark() { out_ += '('; }
  void tuple() { out_ += 't'; }  // of all since the mark
  void empty_tuple() { out_ += ')'; }
  void reduce() { out_ += 'R'; }      // calls what is below the tuple on top
  void persistent() { out_ += 'Q'; }  // BINPERSID: torch makes a storage of the tuple on top
  void set_items() { out_ += 'u'; }   // pairs since the mark, into the dict below it
  void no() { out_ += '\x89'; }       // NEWFALSE
  void global(const std::string& module, const std::string& name) {
    out_ += 'c' + module + '\n' + name + '\n';
  }
  void text(const std::string& value) {
    out_ += 'X';
    append(value.size(), 4);
    out_ += value;
  }
  void integer(int64_t value) {
    if (value >= 0 && value <= std::numeric_limits<int32_t>::max()) {
      out_ += 'J';
      append(static_cast<uint64_t>(value), 4);
      return;
    }
    out_ += '\x8a';  // LONG1
    out_ += '\x08';
    append(static_cast<uint64_t>(value), 8);
  }
  void integers(const std::vector<int64_t>& values) {
    mark();
    for (const int64_t value : values) integer(value);
    tuple();
  }
  void empty_ordered_dict() {
    global("collections", "OrderedDict");
    empty_tuple();
    reduce();
  }
  std::string stop() { return out_ + '.'; }

 private:
  void append(uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out_ += static_cast<char>(value >> (8 * i) & 0xFFU);
  }
  std::string out_;
};

}  // namespace

std::string state_dict_pickle(
    const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors,
    const std::string& storage) {
  Pickle p;
  p.empty_ordered_dict();
  p.mark();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto& [name, shape] = tensors[i];
    std::vector<int64_t> strides(shape.size());
    int64_t elements = 1;
    for (size_t d = shape.size(); d-- > 0;) {
      strides[d] = elements;
      elements *= shape[d];
    }
    p.text(name);
    p.global("torch._utils", "_rebuild_tensor_v2");
    p.mark();
    p.mark();
    p.text("storage");
    p.global("torch", storage);
    p.text(std::to_string(i));
    p.text("cpu");
    p.integer(elements);
    p.tuple();
    p.persistent();
    p.integer(0);  // where the tensor begins in its storage
    p.integers(shape);
    p.integers(strides);
    p.no();                  // requires no gradient
    p.empty_ordered_dict();  // and has no hooks
    p.tuple();
    p.reduce();
  }
  p.set_items();
  return p.stop();
}

}  // namespace graft
