#include "weights/torch_file.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/fail.h"
#include "base/file.h"
#include "base/words.h"
#include "weights/pickle.h"
#include "weights/torch_storages.h"
#include "weights/zip_file.h"

static_assert(std::endian::native == std::endian::little, "storages are copied as they lie");

namespace graft {
namespace {

constexpr size_t kMaxDimensions = 8;
constexpr uint64_t kMaxPickle = uint64_t{8} << 20U;

struct StorageType {
  std::string_view name;
  ElementType type;
  size_t size;
};
constexpr std::array<StorageType, 10> kStorageTypes = {{
    {"torch.FloatStorage", ElementType::f32, 4},
    {"torch.HalfStorage", ElementType::f16, 2},
    {"torch.BFloat16Storage", ElementType::bf16, 2},
    {"torch.DoubleStorage", ElementType::f64, 8},
    {"torch.LongStorage", ElementType::other, 8},
    {"torch.IntStorage", ElementType::other, 4},
    {"torch.ShortStorage", ElementType::other, 2},
    {"torch.CharStorage", ElementType::other, 1},
    {"torch.ByteStorage", ElementType::other, 1},
    {"torch.BoolStorage", ElementType::other, 1},
}};

// What stands beside the tensors in checkpoints: numbers of NumPy, options of the training script.
// They are passed over.
constexpr std::array<std::string_view, 14> kOtherNames = {"collections.OrderedDict",
                                                          "collections.defaultdict",
                                                          "torch.Size",
                                                          "torch._utils._rebuild_tensor_v2",
                                                          "torch._utils._rebuild_parameter",
                                                          "argparse.Namespace",
                                                          "numpy.core.multiarray.scalar",
                                                          "numpy._core.multiarray.scalar",
                                                          "numpy.dtype",
                                                          "_codecs.encode",
                                                          "builtins.set",
                                                          "__builtin__.set",
                                                          "builtins.dict",
                                                          "__builtin__.dict"};

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> starts) {
  return std::any_of(starts.begin(), starts.end(),
                     [&](std::string_view start) { return text.starts_with(start); });
}

/// Refuses every name of Python's that weights do not need.
Pickle::Allow allow_in(const std::string& file) {
  return [file](std::string_view module, std::string_view object) {
    const std::string name = fmt::format("{}.{}", module, object);
    for (const StorageType& type : kStorageTypes)
      if (name == type.name) return;
    if (std::find(kOtherNames.begin(), kOtherNames.end(), name) != kOtherNames.end()) return;
    if (starts_with_any(module, {"__torch__"}))
      fail(ErrorKind::input,
           "{}: a TorchScript model, which holds a program beside its weights; write these alone, "
           "in Python: m = torch.jit.load('{}'); torch.save(m.state_dict(), 'weights.pth')",
           file, file);
    if (starts_with_any(module, {"torch.nn", "torchvision.models", "timm.", "__main__", "torch.fx",
                                 "segmentation_models_pytorch"}))
      fail(ErrorKind::input,
           "{}: a whole model (torch.save(model): it names {}), which only its own Python program "
           "can read; write its weights alone, there: torch.save(model.state_dict(), "
           "'weights.pth')",
           file, clipped(name));
    fail(ErrorKind::input,
         "{}: it names {}, which weights have no need of, and nothing of it was executed; if you "
         "trust the file, write its weights alone, in Python: torch.save(model.state_dict(), "
         "'weights.pth')",
         file, clipped(name));
  };
}

/// What the pickle of a checkpoint says.
class Checkpoint {
 public:
  Checkpoint(const Pickle& pickle, std::string name) : pickle_(pickle), name_(std::move(name)) {}

  /// The tensors of the state_dict, their names in its order, and the key that it stands under.
  std::map<std::string, TorchTensor> state_dict(std::string& under,
                                                std::vector<std::string>& order) const {
    std::map<std::string, TorchTensor> out = tensors_of(pickle_.root(), order);
    // How training scripts and libraries call it: torchvision's references and Lightning, timm,
    // and many tutorials.
    if (!out.empty()) return out;
    for (const char* key : {"state_dict", "model_state_dict", "model", "net", "weights"}) {
      const Pickle::Node* value = find(pickle_.root(), key);
      std::map<std::string, TorchTensor> found;
      std::vector<std::string> names;
      if (value != nullptr) found = tensors_of(*value, names);
      if (found.empty()) continue;
      order = std::move(names);
      out = std::move(found);
      under = key;
      break;
    }
    if (out.empty()) refuse(nothing());
    refuse_second(out, under);
    return out;
  }

  /// The storages that are named anywhere, by key.
  [[nodiscard]] std::map<std::string, TorchStorage> storages(
      const std::vector<const Pickle::Node*>& ids) const {
    std::map<std::string, TorchStorage> out;
    for (const Pickle::Node* id : ids) {
      TorchStorage storage = storage_of(*id);
      out.insert_or_assign(storage.key, std::move(storage));
    }
    return out;
  }

  [[nodiscard]] TorchStorage storage_of(const Pickle::Node& persistent) const {
    const Pickle::Node& id = item(persistent, 0);
    // ('storage', type, key, location, elements), and in streams a view of another storage.
    if (id.kind != Pickle::Kind::tuple || id.items.size() < 5 || item(id, 0).text != "storage")
      refuse("it refers to something that is no storage of numbers");
    if (id.items.size() > 5 && item(id, 5).kind != Pickle::Kind::none)
      refuse(
          "it has views of storages, as PyTorch wrote them before 0.4; open it in PyTorch and "
          "save it again");
    const Pickle::Node& count = item(id, 4);
    for (const StorageType& type : kStorageTypes)
      if (item(id, 1).text == type.name && item(id, 2).kind == Pickle::Kind::text &&
          count.kind == Pickle::Kind::integer && count.number >= 0)
        return {item(id, 2).text, type.type, type.size, static_cast<uint64_t>(count.number)};
    refuse("it refers to a storage of a kind that is not read");
  }

 private:
  /// Averaged weights, the best ones, a teacher's: which are meant is not for a reader to choose.
  void refuse_second(const std::map<std::string, TorchTensor>& taken,
                     const std::string& under) const {
    const Pickle::Node& root = pickle_.root();
    for (size_t i = first_pair(root).value_or(root.items.size()); i + 1 < root.items.size();
         i += 2) {
      const Pickle::Node& key = item(root, i);
      if (key.kind != Pickle::Kind::text || key.text == under) continue;
      std::vector<std::string> names;
      const std::map<std::string, TorchTensor> other = tensors_of(item(root, i + 1), names);
      const auto same = [&](const std::string& name) {
        return taken.contains(name) || taken.contains("module." + name) ||
               (name.starts_with("module.") && taken.contains(name.substr(7)));
      };
      if (std::none_of(names.begin(), names.end(), same)) continue;
      refuse(
          fmt::format("it has two networks, under '{}' and under '{}'; save the one that is "
                      "meant alone, in Python: torch.save(checkpoint['{}'], FILE)",
                      under, clipped(key.text), under));
    }
  }

  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a usable PyTorch file: {}", name_, why);
  }

  [[nodiscard]] const Pickle::Node& item(const Pickle::Node& node, size_t index) const {
    if (index >= node.items.size()) refuse("a tensor in it lacks a part; it is damaged");
    return pickle_.node(node.items[index]);
  }

  [[nodiscard]] bool is_call(const Pickle::Node& node, std::string_view callable) const {
    return node.kind == Pickle::Kind::call && item(node, 0).text == callable;
  }

  /// Where keys and values begin in the items of a dict or an OrderedDict; nothing: it is none.
  [[nodiscard]] std::optional<size_t> first_pair(const Pickle::Node& node) const {
    if (node.kind == Pickle::Kind::dict) return 0;
    if (is_call(node, "collections.OrderedDict") || is_call(node, "collections.defaultdict"))
      return 2;
    return std::nullopt;
  }

  /// The value of a key that is text; of several the last, as in Python.
  [[nodiscard]] const Pickle::Node* find(const Pickle::Node& dict, std::string_view key) const {
    const std::optional<size_t> first = first_pair(dict);
    if (!first) return nullptr;
    const Pickle::Node* found = nullptr;
    for (size_t i = *first; i + 1 < dict.items.size(); i += 2)
      if (item(dict, i).kind == Pickle::Kind::text && item(dict, i).text == key)
        found = &item(dict, i + 1);
    return found;
  }

  [[nodiscard]] std::string nothing() const {
    constexpr size_t kExamples = 6;
    std::string keys;
    size_t count = 0;
    if (const std::optional<size_t> first = first_pair(pickle_.root())) {
      for (size_t i = *first; i + 1 < pickle_.root().items.size(); i += 2)
        if (const Pickle::Node& key = item(pickle_.root(), i); key.kind == Pickle::Kind::text)
          if (++count <= kExamples) keys += (keys.empty() ? "" : ", ") + clipped(key.text);
    }
    return fmt::format(
        "it has no state_dict (tensors by name), alone or under the key state_dict, "
        "model_state_dict or model{}; write one in Python: torch.save(model.state_dict(), "
        "'weights.pth')",
        keys.empty() ? "" : fmt::format(" (its keys: {}{})", keys, count > kExamples ? ", …" : ""));
  }

  [[nodiscard]] std::map<std::string, TorchTensor> tensors_of(
      const Pickle::Node& dict, std::vector<std::string>& order) const {
    std::map<std::string, TorchTensor> out;
    const std::optional<size_t> first = first_pair(dict);
    if (!first) return out;
    for (size_t i = *first; i + 1 < dict.items.size(); i += 2) {
      const Pickle::Node& key = item(dict, i);
      const Pickle::Node* value = &item(dict, i + 1);
      if (is_call(*value, "torch._utils._rebuild_parameter")) value = &item(item(*value, 1), 0);
      if (key.kind != Pickle::Kind::text || !is_call(*value, "torch._utils._rebuild_tensor_v2"))
        continue;
      const bool fresh =
          out.insert_or_assign(key.text, tensor_of(item(*value, 1), clipped(key.text))).second;
      if (fresh) order.push_back(key.text);
    }
    return out;
  }

  /// From the arguments of _rebuild_tensor_v2: storage, offset, size, strides, …
  [[nodiscard]] TorchTensor tensor_of(const Pickle::Node& arguments, const std::string& key) const {
    const Pickle::Node& persistent = item(arguments, 0);
    const Pickle::Node& offset = item(arguments, 1);
    if (persistent.kind != Pickle::Kind::persistent || offset.kind != Pickle::Kind::integer ||
        offset.number < 0)
      refuse("tensor " + key + " is not in the form that torch.save gives it");
    // Since PyTorch 2 a dict of what is still to be done to the values: the bits neg and conj.
    constexpr size_t kBits = 6;
    if (arguments.items.size() > kBits && !item(arguments, kBits).items.empty())
      refuse("tensor " + key +
             " is stored with its sign still to be turned; save it as tensor.resolve_neg()");
    TorchTensor out{storage_of(persistent), static_cast<uint64_t>(offset.number),
                    extents(item(arguments, 2), key), extents(item(arguments, 3), key)};
    if (out.shape.size() != out.strides.size() || out.shape.size() > kMaxDimensions)
      refuse("tensor " + key + " has a shape that is not possible");
    const std::optional<uint64_t> count = element_count(out.shape);
    if (!count || *count > out.storage.elements)
      refuse("tensor " + key + " is larger than what is stored of it");
    if (*count == 0) return out;
    // The last element that it reaches; each product is below 2^40 · 2^63, hence by division.
    uint64_t last = out.offset;
    for (size_t d = 0; d < out.shape.size(); ++d) {
      const auto steps = static_cast<uint64_t>(out.shape[d] - 1);
      const auto stride = static_cast<uint64_t>(out.strides[d]);
      if (last >= out.storage.elements ||
          (steps > 0 && stride > (out.storage.elements - last) / steps))
        refuse("tensor " + key + " reaches beyond what is stored of it");
      last += steps * stride;
    }
    if (last >= out.storage.elements)
      refuse("tensor " + key + " reaches beyond what is stored of it");
    return out;
  }

  [[nodiscard]] std::vector<int64_t> extents(const Pickle::Node& node,
                                             const std::string& key) const {
    // torch.Size((…)) where a program put its shape into the file itself.
    const Pickle::Node& tuple = is_call(node, "torch.Size") ? item(item(node, 1), 0) : node;
    std::vector<int64_t> out;
    for (size_t i = 0; i < tuple.items.size(); ++i) {
      const Pickle::Node& extent = item(tuple, i);
      if (tuple.kind != Pickle::Kind::tuple || extent.kind != Pickle::Kind::integer ||
          extent.number < 0)
        refuse("tensor " + key + " has a shape that is not possible");
      out.push_back(extent.number);
    }
    return out;
  }

  const Pickle& pickle_;
  std::string name_;
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, std::string name, std::shared_ptr<const void> owner)
      : bytes_(bytes), name_(std::move(name)), owner_(std::move(owner)), allow_(allow_in(name_)) {}

  TorchFile read() {
    constexpr std::array<unsigned char, 4> kZip = {'P', 'K', 3, 4};
    if (bytes_.size() > kZip.size() && std::memcmp(bytes_.data(), kZip.data(), kZip.size()) == 0)
      return read_zip();
    return read_stream();
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a usable PyTorch file: {}", name_, why);
  }

  TorchFile read_zip() {
    const auto zip = std::make_shared<const ZipFile>(bytes_, name_);
    constexpr std::string_view kPickle = "data.pkl";
    const ZipEntry* pickled = nullptr;
    for (const ZipEntry& entry : zip->entries()) {
      if (entry.name != kPickle && !entry.name.ends_with("/data.pkl")) continue;
      if (pickled != nullptr) refuse("it has data.pkl more than once");
      pickled = &entry;
    }
    if (pickled == nullptr &&
        std::any_of(zip->entries().begin(), zip->entries().end(), [](const ZipEntry& entry) {
          return entry.name.ends_with("/models/model.json") ||
                 entry.name.find("serialized_exported_program") != std::string::npos;
        }))
      fail(ErrorKind::input,
           "{}: a program of torch.export (.pt2), which only PyTorch reads; write its weights "
           "alone, in Python: torch.save(torch.export.load('{}').state_dict, 'weights.pth')",
           name_, name_);
    if (pickled == nullptr) refuse("it has no data.pkl");
    const std::string folder = pickled->name.substr(0, pickled->name.size() - kPickle.size());
    if (const ZipEntry* order = zip->find(folder + "byteorder")) {
      const std::vector<std::byte> text = zip->read(*order, 16);
      if (std::string_view(reinterpret_cast<const char*>(text.data()), text.size()) != "little")
        refuse_big_endian();
    }
    const Pickle pickle(zip->read(*pickled, kMaxPickle), name_, allow_);
    TorchFile out = tensors(pickle, std::make_unique<ZipTorchStorages>(zip, folder + "data/"));
    if (const ZipEntry* record = zip->find(folder + "extra/graft.json")) {
      const std::vector<std::byte> text = zip->read(*record, kMaxPickle);
      out.record.assign(reinterpret_cast<const char*>(text.data()), text.size());
      out.beside_record = zip->listing_without(*record);
    }
    return out;
  }

  [[noreturn]] void refuse_big_endian() const {
    refuse(
        "its numbers are big-endian; open it in PyTorch on an ordinary machine and save it "
        "again");
  }

  /// The stream of before PyTorch 1.6: pickles (a magic number, the protocol, facts of the machine,
  /// the object, the keys of its storages), then for each key the number of elements and their
  /// bytes.
  TorchFile read_stream() {
    size_t at = 0;
    const auto next = [&] {
      Pickle pickle(bytes_.subspan(at), name_, allow_);
      at += pickle.end();
      return pickle;
    };
    constexpr std::string_view kMagic("\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19", 10);
    if (next().root().text != kMagic) refuse("it is a pickle, but not one that torch.save wrote");
    constexpr int64_t kProtocol = 1001;
    if (next().root().number != kProtocol) refuse("its protocol is not 1001");
    check_machine(next());
    const Pickle object = next();
    const Pickle keys = next();
    const Checkpoint checkpoint(object, name_);
    const std::map<std::string, TorchStorage> known = checkpoint.storages(persistent_ids(object));
    std::map<std::string, std::span<const std::byte>> values;
    for (const Pickle::Id id : keys.root().items) {
      const std::string& key = keys.node(id).text;
      const auto storage = known.find(key);
      if (storage == known.end()) refuse("it has values of a storage that nothing refers to");
      uint64_t elements = 0;
      if (bytes_.size() - at < sizeof(elements)) refuse_short();
      std::memcpy(&elements, bytes_.data() + at, sizeof(elements));
      at += sizeof(elements);
      if (elements != storage->second.elements) refuse("a storage is not as long as it should be");
      if (elements > (bytes_.size() - at) / storage->second.element_bytes) refuse_short();
      const uint64_t size = elements * storage->second.element_bytes;
      values.insert_or_assign(key, bytes_.subspan(at, size));
      at += size;
    }
    return tensors(object, std::make_unique<StreamTorchStorages>(std::move(values)));
  }

  [[noreturn]] void refuse_short() const {
    refuse("it ends inside its values; download or copy it again");
  }

  static std::vector<const Pickle::Node*> persistent_ids(const Pickle& pickle) {
    std::vector<const Pickle::Node*> out;
    for (Pickle::Id id = 0; id < pickle.size(); ++id)
      if (pickle.node(id).kind == Pickle::Kind::persistent) out.push_back(&pickle.node(id));
    return out;
  }

  void check_machine(const Pickle& facts) const {
    const Pickle::Node& dict = facts.root();
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2)
      if (facts.node(dict.items[i]).text == "little_endian" &&
          facts.node(dict.items[i + 1]).number == 0)
        refuse_big_endian();
  }

  TorchFile tensors(const Pickle& pickle, std::unique_ptr<const TorchStorages> storages) {
    TorchFile out;
    const auto reader = std::make_shared<TorchTensorReader>(std::move(storages), owner_);
    for (auto& [key, record] : Checkpoint(pickle, name_).state_dict(out.under, out.order)) {
      const std::optional<uint64_t> size = reader->storages().size(record.storage.key);
      if (!size || record.storage.elements > *size / record.storage.element_bytes)
        refuse("the values of tensor " + clipped(key) +
               " are not all in it; download or copy it "
               "again");
      StoredTensor stored{record.shape, record.storage.type, {}};
      stored.read = [reader, record = record, name = name_, key = key] {
        if (record.storage.type == ElementType::other)
          fail(ErrorKind::input, "{}: tensor {} is not floating-point", name, clipped(key));
        return reader->read(record);
      };
      out.tensors.emplace(key, std::move(stored));
    }
    return out;
  }

  std::span<const std::byte> bytes_;
  std::string name_;
  std::shared_ptr<const void> owner_;
  Pickle::Allow allow_;
};

}  // namespace

TorchFile read_torch(const fs::path& path) {
  auto file = std::make_shared<MappedFile>(path);
  const std::span<const std::byte> bytes = file->bytes();
  return Reader(bytes, printable(path), std::move(file)).read();
}

TorchFile read_torch(std::span<const std::byte> bytes, const std::string& name) {
  return Reader(bytes, name, nullptr).read();
}

}  // namespace graft
