#include "weights/keras_h5.h"

#include <fmt/format.h>
#include <hdf5.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <utility>

#include "base/file.h"
#include "graft/error.h"

namespace graft {
namespace {

// Keras' own guards (keras/src/saving/saving_lib.py): a dataset over 4 GiB is refused, and one that
// would inflate to over 1000 times what is stored.
constexpr hsize_t kMostBytes = hsize_t{4} << 30U;
constexpr hsize_t kMostInflation = 1000;
constexpr size_t kMostNames = 10'000;

/// An HDF5 handle that closes itself.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle& operator=(Handle&&) = delete;
  [[nodiscard]] hid_t get() const { return id_; }
  [[nodiscard]] bool valid() const { return id_ >= 0; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

class Reader {
 public:
  Reader(const fs::path& path, const Network& full)
      : name_(printable(path)), full_(full), shapes_(output_shapes(full)), file_(open(path)) {}

  TensorMap read() {
    std::string root = "/";
    if (!has_attribute(root, "layer_names")) {
      if (!exists("/model_weights"))
        refuse(exists("/layers") ? "it is in the format of Keras 3's .weights.h5; save the model "
                                   "with model.save('weights.h5') instead"
                                 : "it has no layer_names; expected weights saved by Keras");
      root = "/model_weights/";
    }
    TensorMap tensors;
    for (const std::string& layer : names(root, "layer_names")) {
      const std::string group = root + layer;
      if (!exists(group) || !has_attribute(group, "weight_names"))
        refuse(fmt::format("layer {} has no group with weight_names", layer));
      for (const std::string& weight : names(group, "weight_names"))
        add(layer, group + "/" + weight, weight, tensors);
    }
    return tensors;
  }

 private:
  [[noreturn]] void refuse(const std::string& why) const {
    fail(ErrorKind::input, "{}: not a usable Keras weights file: {}", name_, why);
  }

  Handle open(const fs::path& path) const {
    // HDF5 prints its error stack on stderr unless told not to.
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
    if (!file.valid()) {
      refuse(H5Fis_hdf5(path.c_str()) > 0
                 ? "it is damaged or cut short; download or copy it again"
                 : "it is not HDF5 at all (a web page saved under this name?); download it again");
    }
    return file;
  }

  /// True if every link on the way is a hard link: soft and external ones lead elsewhere.
  bool exists(const std::string& path) const {
    for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
      const std::string part = path.substr(0, at);
      if (part != "/" && part.back() != '/') {
        H5L_info_t info{};
        if (H5Lget_info(file_.get(), part.c_str(), &info, H5P_DEFAULT) < 0) return false;
        if (info.type != H5L_TYPE_HARD) refuse("'" + part + "' is a link to another place");
      }
      if (at == std::string::npos) return true;
    }
  }

  bool has_attribute(const std::string& object, const std::string& attribute) const {
    return H5Aexists_by_name(file_.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT) > 0 ||
           H5Aexists_by_name(file_.get(), object.c_str(), (attribute + "0").c_str(), H5P_DEFAULT) >
               0;
  }

  /// A list of strings kept in an attribute, or in several (layer_names0, layer_names1, …) where it
  /// passed HDF5's 64 KiB for one.
  std::vector<std::string> names(const std::string& object, const std::string& attribute) const {
    std::vector<std::string> out;
    if (H5Aexists_by_name(file_.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT) > 0) {
      append_names(object, attribute, out);
      return out;
    }
    for (int chunk = 0;; ++chunk) {
      const std::string part = attribute + std::to_string(chunk);
      if (H5Aexists_by_name(file_.get(), object.c_str(), part.c_str(), H5P_DEFAULT) <= 0) break;
      append_names(object, part, out);
    }
    return out;
  }

  void append_names(const std::string& object, const std::string& attribute,
                    std::vector<std::string>& out) const {
    const Handle attr(
        H5Aopen_by_name(file_.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT, H5P_DEFAULT),
        H5Aclose);
    if (!attr.valid()) refuse("attribute " + attribute + " cannot be read");
    const Handle space(H5Aget_space(attr.get()), H5Sclose);
    const Handle type(H5Aget_type(attr.get()), H5Tclose);
    const hssize_t count = H5Sget_simple_extent_npoints(space.get());
    if (count == 0) return;
    // Keras writes an empty list as an empty array of doubles.
    if (H5Tget_class(type.get()) != H5T_STRING || count < 0 ||
        static_cast<size_t>(count) + out.size() > kMostNames)
      refuse("attribute " + attribute + " is not a list of names");
    const auto n = static_cast<size_t>(count);
    if (H5Tis_variable_str(type.get()) > 0) {
      std::vector<char*> texts(n, nullptr);
      const Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
      H5Tset_size(memory.get(), H5T_VARIABLE);
      H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
      if (H5Aread(attr.get(), memory.get(), texts.data()) < 0)
        refuse("attribute " + attribute + " cannot be read");
      for (const char* text : texts) out.emplace_back(text == nullptr ? "" : text);
      H5Dvlen_reclaim(memory.get(), space.get(), H5P_DEFAULT, texts.data());
      return;
    }
    const size_t length = H5Tget_size(type.get());
    if (length == 0 || length > 4096) refuse("attribute " + attribute + " is not a list of names");
    std::vector<char> buffer(n * length);
    if (H5Aread(attr.get(), type.get(), buffer.data()) < 0)
      refuse("attribute " + attribute + " cannot be read");
    for (size_t i = 0; i < n; ++i) {
      const char* text = &buffer[i * length];
      out.emplace_back(text, strnlen(text, length));
    }
  }

  Tensor read_dataset(const std::string& path) const {
    if (!exists(path)) refuse("dataset " + path + " is missing");
    const Handle dataset(H5Dopen2(file_.get(), path.c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) refuse("dataset " + path + " cannot be read");
    const Handle space(H5Dget_space(dataset.get()), H5Sclose);
    const Handle type(H5Dget_type(dataset.get()), H5Tclose);
    const Handle plan(H5Dget_create_plist(dataset.get()), H5Pclose);
    if (H5Pget_layout(plan.get()) == H5D_VIRTUAL || H5Pget_external_count(plan.get()) > 0)
      refuse("dataset " + path + " keeps its values in another file");
    if (H5Tget_class(type.get()) != H5T_FLOAT) refuse("dataset " + path + " is not floating-point");
    const int rank = H5Sget_simple_extent_ndims(space.get());
    if (rank < 0 || rank > 8) refuse("dataset " + path + " has an impossible shape");
    std::vector<hsize_t> extents(static_cast<size_t>(rank));
    H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
    hsize_t bytes = sizeof(float);
    std::vector<int64_t> shape;
    for (const hsize_t extent : extents) {
      if (extent == 0 || extent > kMostBytes / bytes) refuse("dataset " + path + " is too large");
      bytes *= extent;
      shape.push_back(static_cast<int64_t>(extent));
    }
    const hsize_t stored = H5Dget_storage_size(dataset.get());
    if (stored == 0 || bytes / kMostInflation > stored)
      refuse("dataset " + path + " stores far fewer bytes than it claims");
    std::vector<float> values(bytes / sizeof(float));
    if (H5Dread(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
      refuse("the values of " + path + " cannot be read; the file is damaged or cut short");
    return {std::move(shape), std::move(values)};
  }

  void add(const std::string& layer, const std::string& path, const std::string& weight,
           TensorMap& tensors) const {
    // Names seen: block1_conv1_W_1:0, block1_conv1/kernel:0, vgg16/block1_conv1/kernel, gamma:0.
    std::string leaf = weight.substr(weight.rfind('/') + 1);
    leaf = leaf.substr(0, leaf.find(':'));
    static constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kRoles = {{
        {"kernel", "weight"},
        {"_W_1", "weight"},
        {"_W", "weight"},
        {"gamma", "weight"},
        {"beta", "bias"},
        {"bias", "bias"},
        {"_b_1", "bias"},
        {"_b", "bias"},
    }};
    std::string role;
    if (leaf == "moving_mean" || leaf == "running_mean") role = "running_mean";
    if (leaf == "moving_variance" || leaf == "running_std") role = "running_var";
    for (const auto& [end, name] : kRoles)
      if (role.empty() && leaf.size() >= end.size() &&
          leaf.compare(leaf.size() - end.size(), end.size(), end) == 0)
        role = name;
    if (role.empty())
      refuse(fmt::format("weight '{}' of layer {} is of no known kind", weight, layer));
    const std::string name = owner(layer, weight) + "." + role;
    if (!tensors.emplace(name, to_canonical(owner(layer, weight), read_dataset(path))).second)
      refuse("layer " + layer + " has two weights of one kind");
  }

  /// The layer that a weight belongs to. Where the backbone was saved as a layer of a larger model
  /// (layer "vgg16", weight "block1_conv1/kernel:0"), the weight's own path names it.
  [[nodiscard]] std::string owner(const std::string& layer, const std::string& weight) const {
    if (find_layer(full_, layer)) return layer;
    const size_t leaf = weight.rfind('/');
    if (leaf == std::string::npos || leaf == 0) return layer;
    const size_t before = weight.rfind('/', leaf - 1);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    std::string parent = weight.substr(begin, leaf - begin);
    return find_layer(full_, parent) ? parent : layer;
  }

  [[nodiscard]] Tensor to_canonical(const std::string& layer, const Tensor& tensor) const {
    const std::vector<int64_t>& shape = tensor.shape();
    const float* in = tensor.data();
    if (shape.size() == 4) {  // H, W, I, O → O, I, H, W
      const int64_t taps = shape[0] * shape[1];
      std::vector<float> out(tensor.values().size());
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < shape[2]; ++i)
          for (int64_t o = 0; o < shape[3]; ++o)
            out[(o * shape[2] + i) * taps + t] = in[(t * shape[2] + i) * shape[3] + o];
      return {{shape[3], shape[2], shape[0], shape[1]}, std::move(out)};
    }
    if (shape.size() == 2) {  // (in, out) → (out, in), rows in C, H, W order
      const Shape map = flattened_map(layer, shape[0]);
      std::vector<float> out(tensor.values().size());
      for (int64_t y = 0; y < map.height; ++y)
        for (int64_t x = 0; x < map.width; ++x)
          for (int64_t c = 0; c < map.channels; ++c) {
            const int64_t from = (y * map.width + x) * map.channels + c;
            const int64_t to = (c * map.height + y) * map.width + x;
            for (int64_t o = 0; o < shape[1]; ++o) out[o * shape[0] + to] = in[from * shape[1] + o];
          }
      return {{shape[1], shape[0]}, std::move(out)};
    }
    return tensor;
  }

  /// The map that a dense layer of `inputs` reads through `flatten`, or a plain vector.
  [[nodiscard]] Shape flattened_map(const std::string& layer, int64_t inputs) const {
    const std::optional<size_t> at = find_layer(full_, layer);
    if (at && *at >= 2 && full_.layers[*at - 1].kind == LayerKind::flatten) {
      const Shape& map = shapes_[*at - 2];
      if (map.elements() == inputs) return map;
    }
    return {inputs, 1, 1, true};
  }

  std::string name_;
  const Network& full_;
  std::vector<Shape> shapes_;
  Handle file_;
};

}  // namespace

bool is_hdf5(const fs::path& path) {
  constexpr std::string_view kSignature("\x89HDF\r\n\x1A\n", 8);
  const MappedFile file(path);
  return file.bytes().size() >= kSignature.size() &&
         std::memcmp(file.bytes().data(), kSignature.data(), kSignature.size()) == 0;
}

TensorMap read_keras_h5(const fs::path& path, const Network& full) {
  return Reader(path, full).read();
}

}  // namespace graft
