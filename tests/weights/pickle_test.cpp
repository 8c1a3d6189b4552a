#include "weights/pickle.h"

#include <string>
#include <utility>
#include <vector>

#include "support.h"

namespace graft {
namespace {

using namespace std::string_literals;

void allow_all(std::string_view /*module*/, std::string_view /*name*/) {}

Pickle read(const std::string& bytes) { return {std::as_bytes(std::span(bytes)), "f", allow_all}; }

TEST(Pickle, BuildsWhatThePickleSays) {
  // {'a': [1, -2, 300, True, None, ('b',)], 'n': 0.5} of protocol 2, with memo.
  const std::string bytes =
      "\x80\x02}q\0(X\x01\0\0\0aq\x01]q\x02(K\x01J\xfe\xff\xff\xffM\x2c\x01\x88NX\x01\0\0\0bq\x03"
      "\x85q\x04"
      "eX\x01\0\0\0nq\x05G?\xe0\0\0\0\0\0\0uh\x02"
      "0.surplus"s;
  const Pickle pickle = read(bytes);
  EXPECT_EQ(bytes.substr(pickle.end()), "surplus");
  const Pickle::Node& root = pickle.root();
  ASSERT_EQ(root.kind, Pickle::Kind::dict);
  ASSERT_EQ(root.items.size(), 4U);
  EXPECT_EQ(pickle.node(root.items[0]).text, "a");
  const Pickle::Node& list = pickle.node(root.items[1]);
  std::vector<int64_t> numbers;
  for (const Pickle::Id id : list.items) numbers.push_back(pickle.node(id).number);
  EXPECT_EQ(numbers, (std::vector<int64_t>{1, -2, 300, 1, 0, 0}));
  EXPECT_EQ(pickle.node(pickle.node(list.items[5]).items[0]).text, "b");
}

TEST(Pickle, Longs) {
  for (const auto& [bytes, value] :
       std::vector<std::pair<std::string, int64_t>>{{"\x8a\0."s, 0},
                                                    {"\x8a\x01\xff."s, -1},
                                                    {"\x8a\x02\xff\0."s, 255},
                                                    {"\x8b\x02\0\0\0\0\x80."s, -32768},
                                                    {"\x8a\x08\0\0\0\0\0\0\0\x80."s, INT64_MIN}})
    EXPECT_EQ(read(bytes).root().number, value);
  EXPECT_EQ(read("\x8a\x09"
                 "123456789."s)
                .root()
                .text,
            "123456789");
}

TEST(Pickle, CallsAreDataAndNamesAreAsked) {
  const std::string bytes =
      "ccollections\nOrderedDict\n)R(X\x01" + std::string(3, '\0') + "aK\x07u.";
  const Pickle pickle = read(bytes);
  ASSERT_EQ(pickle.root().kind, Pickle::Kind::call);
  EXPECT_EQ(pickle.node(pickle.root().items[0]).text, "collections.OrderedDict");
  EXPECT_EQ(pickle.node(pickle.root().items[3]).number, 7);
  const auto refuse = [](std::string_view module, std::string_view name) {
    throw Error(ErrorKind::input, std::string(module) + "/" + std::string(name));
  };
  EXPECT_ERROR(Pickle(std::as_bytes(std::span(bytes)), "f", refuse), ErrorKind::input,
               "collections/OrderedDict");
  const std::string stacked = "\x8c\x02os\x8c\x06system\x93."s;
  EXPECT_ERROR(Pickle(std::as_bytes(std::span(stacked)), "f", refuse), ErrorKind::input,
               "os/system");
}

TEST(Pickle, RefusesWhatIsNoPlainData) {
  for (const auto& [bytes, text] : std::vector<std::pair<std::string, const char*>>{
           {"", "ends early"},
           {"N", "ends early"},
           {".", "more than one object"},
           {"NN.", "more than one object"},
           {"(N.", "more than one object"},
           {"0.", "where there is none"},
           {"N(0.", "where there is none"},
           {"t.", "a mark that is not there"},
           {"h\x01.", "has not stored"},
           {"NNs.", "where there is none"},
           {"NNNs.", "puts items into what has none"},
           {"}(Nu.", "puts items into what has none"},
           {"NNa.", "no list"},
           {"NNR.", "calls what is no name"},
           {"NN\x93.", "by what is no text"},
           {"cos", "a name without end"},
           {"\x80\x09.", "newer than 5"},
           {"X\xff\xff\xff\xff"
            "a.",
            "ends early"},
           {"\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
            "a.",
            "ends early"},
           // INST, OBJ, EXT1, NEWOBJ_EX, READONLY_BUFFER, and the text forms of protocol 0.
           {"(ios\nsystem\n.", "opcode 0x69"},
           {"(o.", "opcode 0x6f"},
           {"\x82\x01.", "opcode 0x82"},
           {"\x92.", "opcode 0x92"},
           {"\x98.", "opcode 0x98"},
           {"I1\n.", "opcode 0x49"}})
    EXPECT_ERROR(read(bytes), ErrorKind::input, text);
}

/// Each of these would take gigabytes in Python, or as many objects as it has bytes.
TEST(Pickle, IsBounded) {
  constexpr size_t kMany = size_t{7} << 20U;
  for (const std::string& bytes :
       {std::string(kMany, 'N'), std::string(kMany, '('), std::string(kMany, '}'),
        "N" + std::string(kMany, '2'), "N" + std::string(kMany, '\x94')})
    EXPECT_ERROR(read(bytes), ErrorKind::input, "more objects than weights need");
  // A list that is put into itself again and again, with ever more elements each time.
  std::string doubling = "]q" + std::string(1, '\0');
  for (int i = 0; i < 100'000; ++i) doubling += "(h" + std::string(1, '\0') + "2222222222e";
  EXPECT_ERROR(read(doubling), ErrorKind::input, "more objects than weights need");
  EXPECT_ERROR(read(std::string(size_t{9} << 20U, '\x95')), ErrorKind::input, "8 MB");
  // Deep nesting is no recursion.
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += ")\x85";
  EXPECT_ERROR(read(deep + "."), ErrorKind::input, "more than one object");
}

}  // namespace
}  // namespace graft
