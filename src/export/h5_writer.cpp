#include "export/h5_writer.h"

#include <hdf5.h>

#include <utility>

#include "base/fail.h"

namespace graft {
namespace {

/// An identifier of HDF5's, closed by the function for its kind.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  [[nodiscard]] hid_t get() const { return id_; }
  [[nodiscard]] bool valid() const { return id_ >= 0; }
  hid_t release() { return std::exchange(id_, -1); }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

/// IEEE's binary16, which HDF5 1.10 has no name for.
hid_t half_type() {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, 10, 5, 0, 10);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, 15);
  return type;
}

}  // namespace

struct H5Writer::State {
  State() {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // its errors are told here
    // The file grows by so much at a time; the memory is given back in the end.
    constexpr size_t kIncrement = size_t{16} << 20U;
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    require(H5Pset_fapl_core(access.get(), kIncrement, false));
    file = H5Fcreate("graft", H5F_ACC_TRUNC, H5P_DEFAULT, access.get());
    if (file < 0) refuse();
  }
  ~State() {
    if (file >= 0) H5Fclose(file);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  [[noreturn]] static void refuse() {
    fail(ErrorKind::memory,
         "the HDF5 library cannot build the file, most likely for want of memory; end other "
         "programs");
  }
  static void require(herr_t result) {
    if (result < 0) refuse();
  }
  static void require(const Handle& handle) {
    if (!handle.valid()) refuse();
  }

  /// For what is made together with the groups above it.
  [[nodiscard]] static hid_t links() {
    const hid_t plan = H5Pcreate(H5P_LINK_CREATE);
    require(H5Pset_create_intermediate_group(plan, 1));
    return plan;
  }

  hid_t file = -1;
};

H5Writer::H5Writer() : state_(std::make_unique<State>()) {}
H5Writer::~H5Writer() = default;

void H5Writer::group(const std::string& path) {
  if (H5Lexists(state_->file, path.c_str(), H5P_DEFAULT) > 0) return;
  const Handle plan(State::links(), H5Pclose);
  const Handle made(H5Gcreate2(state_->file, path.c_str(), plan.get(), H5P_DEFAULT, H5P_DEFAULT),
                    H5Gclose);
  State::require(made);
}

void H5Writer::attribute(const std::string& group, const std::string& name,
                         const std::string& text) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  State::require(H5Tset_size(type.get(), H5T_VARIABLE));
  State::require(H5Tset_cset(type.get(), H5T_CSET_UTF8));
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle made(H5Acreate_by_name(state_->file, group.c_str(), name.c_str(), type.get(),
                                      space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                    H5Aclose);
  State::require(made);
  const char* value = text.c_str();
  State::require(H5Awrite(made.get(), type.get(), static_cast<const void*>(&value)));
}

void H5Writer::attribute(const std::string& group, const std::string& name,
                         const std::vector<std::string>& texts) {
  // Of variable length: what is in the attribute itself stays below HDF5's 64 KiB.
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  State::require(H5Tset_size(type.get(), H5T_VARIABLE));
  State::require(H5Tset_cset(type.get(), H5T_CSET_UTF8));
  const hsize_t count = texts.size();
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  State::require(space);
  const Handle made(H5Acreate_by_name(state_->file, group.c_str(), name.c_str(), type.get(),
                                      space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                    H5Aclose);
  State::require(made);
  if (texts.empty()) return;
  std::vector<const char*> values;
  values.reserve(texts.size());
  for (const std::string& text : texts) values.push_back(text.c_str());
  State::require(H5Awrite(made.get(), type.get(), static_cast<const void*>(values.data())));
}

void H5Writer::array(const std::string& path, const Tensor& tensor, StoredType type) {
  const Handle stored(type == StoredType::f16 ? half_type() : H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  State::require(stored);
  const std::vector<hsize_t> extents(tensor.shape().begin(), tensor.shape().end());
  const Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                     H5Sclose);
  State::require(space);
  const Handle plan(State::links(), H5Pclose);
  const Handle made(H5Dcreate2(state_->file, path.c_str(), stored.get(), space.get(), plan.get(),
                               H5P_DEFAULT, H5P_DEFAULT),
                    H5Dclose);
  State::require(made);
  if (type == StoredType::f16) {
    const std::vector<uint16_t> halves = as_halves(tensor, path);
    State::require(
        H5Dwrite(made.get(), stored.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, halves.data()));
  } else {
    State::require(
        H5Dwrite(made.get(), stored.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.data()));
  }
}

std::span<const std::byte> H5Writer::finish() {
  State::require(H5Fflush(state_->file, H5F_SCOPE_GLOBAL));
  const ssize_t size = H5Fget_file_image(state_->file, nullptr, 0);
  if (size < 0) State::refuse();
  // Of the driver for files in memory the handle is the place of its buffer's address; a copy by
  // H5Fget_file_image would take as much again.
  void* handle = nullptr;
  State::require(H5Fget_vfd_handle(state_->file, H5P_DEFAULT, &handle));
  return {*static_cast<const std::byte* const*>(handle), static_cast<size_t>(size)};
}

}  // namespace graft
