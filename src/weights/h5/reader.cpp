#include "weights/h5/reader.h"

#include <fmt/format.h>
#include <hdf5.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/fail.h"
#include "weights/h5/handle.h"
#include "weights/h5/lzf.h"
#include "weights/h5/numbered.h"

namespace graft {
namespace {

// Keras' own guard (keras/src/saving/saving_lib.py): a dataset that would inflate to over 1000
// times what is stored is refused.
constexpr hsize_t kMaxInflation = 1000;
// A chunk is inflated as a whole. Writers that choose for themselves stay below a megabyte (h5py);
// a larger one must be there in bytes that bear some proportion to it.
constexpr hsize_t kMaxFreeChunk = hsize_t{8} << 20U;
constexpr hsize_t kMaxChunkInflation = 16;
constexpr size_t kMaxNames = 10'000;
constexpr size_t kMaxNameLength = 4096;
constexpr size_t kMaxAttributeBytes = size_t{4} << 20U;  // HDF5 itself allows 64 KiB, mostly
constexpr const char* kDescription = "model_config";
constexpr const char* kRecord = "graft";

// The core driver would copy the file into memory of its own; these callbacks give it the file's
// map instead, as H5LTopen_file_image does with H5LT_FILE_IMAGE_DONT_COPY.
void* image_malloc(size_t size, H5FD_file_image_op_t /*op*/, void* user) {
  const auto& image = *static_cast<const std::span<const std::byte>*>(user);
  // The library takes no pointer to const; the map itself is read-only.
  return size == image.size() ? const_cast<std::byte*>(image.data()) : nullptr;
}
void* image_memcpy(void* to, const void* /*from*/, size_t, H5FD_file_image_op_t, void* /*user*/) {
  return to;  // both are the map
}
void* image_realloc(void*, size_t, H5FD_file_image_op_t, void* /*user*/) { return nullptr; }
herr_t image_free(void*, H5FD_file_image_op_t, void* /*user*/) { return 0; }
void* image_user_copy(void* user) { return user; }
herr_t image_user_free(void* /*user*/) { return 0; }

Handle open(std::span<const std::byte>& image) {
  // HDF5 prints its error stack on stderr unless told not to.
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  register_lzf();
  const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5FD_file_image_callbacks_t callbacks = {image_malloc, image_memcpy,    image_realloc,
                                           image_free,   image_user_copy, image_user_free,
                                           &image};
  H5Pset_fapl_core(access.get(), 1, /*backing_store=*/0);
  H5Pset_file_image_callbacks(access.get(), &callbacks);
  H5Pset_file_image(access.get(), const_cast<std::byte*>(image.data()), image.size());
  Handle file(H5Fopen("image", H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (!file.valid()) refuse("it is damaged or cut short; download or copy it again");
  return file;
}

std::string filter_name(H5Z_filter_t filter) {
  static constexpr std::array<std::pair<H5Z_filter_t, const char*>, 9> kNames = {{
      {H5Z_FILTER_SZIP, "SZIP"},
      {307, "bzip2"},
      {32001, "Blosc"},
      {32004, "LZ4"},
      {32008, "Bitshuffle"},
      {32013, "ZFP"},
      {32015, "Zstandard"},
      {32017, "SZ"},
      {32026, "Blosc2"},
  }};
  for (const auto& [number, name] : kNames)
    if (number == filter) return fmt::format("{} (filter {})", name, filter);
  return fmt::format("filter {}", filter);
}

/// What can be said of a dataset before its values are read.
struct Dataset {
  std::string path;
  size_t chunk_bytes = 0;
  bool bfloat16 = false;
  uint8_t bits = 0;
};

/// HDF5 has no such type: Keras leaves it to h5py, which writes two bytes of unknown meaning.
bool is_bfloat16(hid_t type) {
  return H5Tget_class(type) == H5T_OPAQUE && H5Tget_size(type) == sizeof(uint16_t);
}

}  // namespace

struct H5Reader::State {
  explicit State(std::span<const std::byte> bytes) : image(bytes), file(open(image)) {
    description = text(kDescription);
    record = text(kRecord);
    std::string root = "/";
    if (!has_attribute(root, "layer_names")) {
      if (exists("/model_weights")) {
        root = "/model_weights/";
      } else {
        for (const NumberedWeight& weight : numbered_weights(file.get(), kMaxNames))
          add_numbered(weight);
        if (weights.empty())
          refuse(
              "it has neither layer_names nor the groups of Keras 3; expected weights saved by "
              "Keras with model.save('model.keras') or model.save('model.h5')");
        return;
      }
    }
    for (const std::string& layer : names(root, "layer_names")) add_layer(root + layer, layer);
  }

  /// True if every link on the way is a hard link: soft and external ones lead elsewhere.
  [[nodiscard]] bool exists(const std::string& path) const {
    for (size_t at = path.find('/', 1);; at = path.find('/', at + 1)) {
      const std::string part = path.substr(0, at);
      if (part != "/" && part.back() != '/') {
        H5L_info_t info{};
        if (H5Lget_info(file.get(), part.c_str(), &info, H5P_DEFAULT) < 0) return false;
        if (info.type != H5L_TYPE_HARD) refuse("'{}' is a link to another place", part);
      }
      if (at == std::string::npos) return true;
    }
  }

  [[nodiscard]] bool has(const std::string& object, const std::string& attribute) const {
    return H5Aexists_by_name(file.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT) > 0;
  }
  [[nodiscard]] bool has_attribute(const std::string& object, const std::string& attribute) const {
    return has(object, attribute) || has(object, attribute + "0");
  }

  /// A list of strings kept in an attribute, or in several (layer_names0, layer_names1, …) where it
  /// passed HDF5's 64 KiB for one.
  [[nodiscard]] std::vector<std::string> names(const std::string& object,
                                               const std::string& attribute) const {
    std::vector<std::string> out;
    if (has(object, attribute)) {
      append_names(object, attribute, out);
      return out;
    }
    for (int chunk = 0; has(object, attribute + std::to_string(chunk)); ++chunk)
      append_names(object, attribute + std::to_string(chunk), out);
    return out;
  }

  void append_names(const std::string& object, const std::string& attribute,
                    std::vector<std::string>& out) const {
    const Handle attr(
        H5Aopen_by_name(file.get(), object.c_str(), attribute.c_str(), H5P_DEFAULT, H5P_DEFAULT),
        H5Aclose);
    if (!attr.valid()) refuse("attribute {} cannot be read", attribute);
    const Handle space(H5Aget_space(attr.get()), H5Sclose);
    const Handle type(H5Aget_type(attr.get()), H5Tclose);
    const hssize_t count = H5Sget_simple_extent_npoints(space.get());
    if (count == 0) return;
    // Keras writes an empty list as an empty array of doubles.
    if (H5Tget_class(type.get()) != H5T_STRING || count < 0 ||
        static_cast<size_t>(count) + out.size() > kMaxNames)
      refuse("attribute {} is not a list of names", attribute);
    const auto n = static_cast<size_t>(count);
    if (H5Tis_variable_str(type.get()) > 0) {
      append_variable(attr, space, type, attribute, n, kMaxNameLength, out);
      return;
    }
    const size_t length = H5Tget_size(type.get());
    if (length == 0 || length > kMaxNameLength || n * length > kMaxAttributeBytes)
      refuse("attribute {} is not a list of names", attribute);
    std::vector<char> buffer(n * length);
    if (H5Aread(attr.get(), type.get(), buffer.data()) < 0)
      refuse("attribute {} cannot be read", attribute);
    for (size_t i = 0; i < n; ++i) {
      const char* text = &buffer[i * length];
      out.emplace_back(text, strnlen(text, length));
    }
  }

  static void append_variable(const Handle& attr, const Handle& space, const Handle& type,
                              const std::string& attribute, size_t count, size_t longest,
                              std::vector<std::string>& out) {
    std::vector<char*> texts(count, nullptr);
    const Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(memory.get(), H5T_VARIABLE);
    H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
    if (H5Aread(attr.get(), memory.get(), texts.data()) < 0)
      refuse("attribute {} cannot be read", attribute);
    for (const char* text : texts) {
      out.emplace_back(text == nullptr ? "" : text,
                       text == nullptr ? 0 : strnlen(text, longest + 1));
      if (out.back().size() > longest) refuse("attribute {} is not a list of names", attribute);
    }
    H5Dvlen_reclaim(memory.get(), space.get(), H5P_DEFAULT, texts.data());
  }

  /// An attribute of the file that is a text; empty where there is none.
  [[nodiscard]] std::string text(const char* attribute) const {
    if (!has("/", attribute)) return "";
    const Handle attr(H5Aopen_by_name(file.get(), "/", attribute, H5P_DEFAULT, H5P_DEFAULT),
                      H5Aclose);
    const Handle type(H5Aget_type(attr.get()), H5Tclose);
    const Handle space(H5Aget_space(attr.get()), H5Sclose);
    if (!attr.valid() || H5Tget_class(type.get()) != H5T_STRING ||
        H5Sget_simple_extent_npoints(space.get()) != 1)
      refuse("attribute {} is not a text", attribute);
    if (H5Tis_variable_str(type.get()) > 0) {
      std::vector<std::string> texts;
      append_variable(attr, space, type, attribute, 1, kMaxAttributeBytes, texts);
      return std::move(texts.front());
    }
    const size_t length = H5Tget_size(type.get());
    if (length > kMaxAttributeBytes) refuse("attribute {} is too long", attribute);
    std::string out(length, '\0');
    if (H5Aread(attr.get(), type.get(), out.data()) < 0)
      refuse("attribute {} cannot be read", attribute);
    out.resize(strnlen(out.data(), length));
    return out;
  }

  void add_layer(const std::string& group, const std::string& layer) {
    if (layer.empty() || !exists(group) || !has_attribute(group, "weight_names")) {
      add({layer, "", {}, fmt::format("layer {} has no group with weight_names", layer)}, {});
      return;
    }
    for (const std::string& name : names(group, "weight_names")) {
      H5Weight weight{layer, name, {}, ""};
      Dataset dataset{group + "/" + name, 0};
      try {
        weight.shape = examine(dataset);
      } catch (const Error& error) {
        weight.problem = error.what();
      }
      add(std::move(weight), std::move(dataset));
    }
  }

  void add_numbered(const NumberedWeight& numbered) {
    H5Weight weight{numbered.layer, numbered.name, {}, ""};
    Dataset dataset{numbered.path, 0};
    try {
      weight.shape = examine(dataset);
    } catch (const Error& error) {
      weight.problem = error.what();
    }
    add(std::move(weight), std::move(dataset));
  }

  void add(H5Weight weight, Dataset dataset) {
    weight.path = dataset.path;
    weight.bits = dataset.bits;
    weight.bfloat16 = dataset.bfloat16;
    text_bytes +=
        weight.layer.size() + weight.name.size() + weight.problem.size() + weight.path.size() + 128;
    if (weights.size() >= kMaxNames || text_bytes > kH5MaxMessageBytes - 2 * kMaxAttributeBytes)
      refuse("it lists more than {} weights, or names of megabytes", kMaxNames);
    weights.push_back(std::move(weight));
    datasets.push_back(std::move(dataset));
  }

  [[nodiscard]] Handle open_dataset(const std::string& path) const {
    Handle dataset(H5Dopen2(file.get(), path.c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) refuse("dataset {} cannot be read", path);
    return dataset;
  }

  /// Checks everything that decides whether the values may be read; gives their shape.
  std::vector<int64_t> examine(Dataset& out) const {
    const std::string& path = out.path;
    if (!exists(path)) refuse("dataset {} is missing", path);
    const Handle dataset = open_dataset(path);
    const Handle space(H5Dget_space(dataset.get()), H5Sclose);
    const Handle type(H5Dget_type(dataset.get()), H5Tclose);
    const Handle plan(H5Dget_create_plist(dataset.get()), H5Pclose);
    if (H5Pget_layout(plan.get()) == H5D_VIRTUAL || H5Pget_external_count(plan.get()) > 0)
      refuse("dataset {} keeps its values in another file", path);
    out.bfloat16 = is_bfloat16(type.get());
    if (H5Tget_class(type.get()) != H5T_FLOAT && !out.bfloat16)
      refuse("dataset {} is not floating-point", path);
    out.bits = static_cast<uint8_t>(std::min<size_t>(8 * H5Tget_size(type.get()), UINT8_MAX));
    const int rank = H5Sget_simple_extent_ndims(space.get());
    if (rank < 0 || static_cast<size_t>(rank) > kH5MaxDimensions)
      refuse("dataset {} has an impossible shape", path);
    std::vector<hsize_t> extents(static_cast<size_t>(rank));
    H5Sget_simple_extent_dims(space.get(), extents.data(), nullptr);
    hsize_t bytes = sizeof(float);
    std::vector<int64_t> shape;
    for (const hsize_t extent : extents) {
      if (extent == 0 || extent > kH5MaxTensorBytes / bytes)
        refuse("dataset {} is too large", path);
      bytes *= extent;
      shape.push_back(static_cast<int64_t>(extent));
    }
    check_filters(plan.get(), path);
    const hsize_t stored = H5Dget_storage_size(dataset.get());
    if (stored == 0 || bytes / kMaxInflation > stored)
      refuse("dataset {} stores far fewer bytes than it claims", path);
    if (stored > image.size())
      refuse("dataset {} claims more bytes than the file has; the file is damaged or cut short",
             path);
    out.chunk_bytes = chunk_bytes(plan.get(), type.get(), path, stored);
    return shape;
  }

  static void check_filters(hid_t plan, const std::string& path) {
    const int count = H5Pget_nfilters(plan);
    for (int i = 0; i < count; ++i) {
      unsigned flags = 0;
      unsigned config = 0;
      size_t values = 0;
      const H5Z_filter_t filter = H5Pget_filter2(plan, static_cast<unsigned>(i), &flags, &values,
                                                 nullptr, 0, nullptr, &config);
      if (filter < 0 || H5Zfilter_avail(filter) <= 0)
        refuse(
            "dataset {} is compressed with {}, which is not read here; open the model in Keras "
            "and save it again, or write it without compression",
            path, filter_name(filter));
    }
  }

  /// The size of a chunk of a chunked dataset, else 0.
  static size_t chunk_bytes(hid_t plan, hid_t type, const std::string& path, hsize_t stored) {
    if (H5Pget_layout(plan) != H5D_CHUNKED) return 0;
    std::array<hsize_t, H5S_MAX_RANK> extents{};
    const int rank = H5Pget_chunk(plan, static_cast<int>(extents.size()), extents.data());
    hsize_t bytes = H5Tget_size(type);
    for (int d = 0; d < rank; ++d) {
      const hsize_t extent = extents.at(static_cast<size_t>(d));
      if (extent == 0 || bytes == 0 || extent > kH5MaxTensorBytes / bytes)
        refuse("dataset {} has impossible chunks", path);
      bytes *= extent;
    }
    if (bytes > kMaxFreeChunk && bytes / kMaxChunkInflation > stored)
      refuse("dataset {} stores far fewer bytes than a chunk of it claims", path);
    return bytes;
  }

  std::span<const std::byte> image;
  Handle file;
  size_t text_bytes = 0;
  std::string description;
  std::string record;
  std::vector<H5Weight> weights;
  std::vector<Dataset> datasets;
};

H5Reader::H5Reader(std::span<const std::byte> image) : state_(std::make_unique<State>(image)) {}
H5Reader::~H5Reader() = default;

const std::vector<H5Weight>& H5Reader::weights() const { return state_->weights; }

const std::string& H5Reader::description() const { return state_->description; }
const std::string& H5Reader::record() const { return state_->record; }

size_t H5Reader::working_bytes(size_t index) const {
  // The chunk as stored, as inflated, and one step of the filters between.
  return 3 * state_->datasets.at(index).chunk_bytes;
}

void H5Reader::read(size_t index, std::span<float> out) const {
  const Dataset& about = state_->datasets.at(index);
  const std::string& path = about.path;
  const Handle dataset = state_->open_dataset(path);
  const Handle type(H5Dget_type(dataset.get()), H5Tclose);
  const hid_t memory = about.bfloat16 ? type.get() : H5T_NATIVE_FLOAT;
  if (H5Dread(dataset.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, out.data()) < 0)
    refuse("the values of {} cannot be read; the file is damaged or cut short", path);
  if (!about.bfloat16) return;
  // The halves fill the first half of the place for floats; each is the upper half of one. From the
  // last to the first, so that none is overwritten before it is read.
  const auto* halves = reinterpret_cast<const std::byte*>(out.data());
  for (size_t i = out.size(); i-- > 0;) {
    uint16_t upper = 0;
    std::memcpy(&upper, halves + i * sizeof(upper), sizeof(upper));
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(upper) << 16U);
  }
}

}  // namespace graft
