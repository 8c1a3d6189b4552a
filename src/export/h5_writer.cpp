#include "export/h5_writer.h"

#include <hdf5.h>

#include <cerrno>
#include <utility>

#include "base/fail.h"
#include "base/limits.h"

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
  State(const fs::path& path, std::string shown_name) : shown(std::move(shown_name)) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // its errors are told here
    const Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    // The file is locked already, by whom it belongs to.
    H5Pset_file_locking(access.get(), false, true);
    errno = 0;
    file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get());
    if (file < 0) refuse();
  }
  ~State() {
    if (file >= 0) H5Fclose(file);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  [[noreturn]] void refuse() const {
    fail(ErrorKind::io, "{}: writing failed: {}; nothing was replaced", shown,
         errno == 0 ? "the HDF5 library gives no reason" : system_error_text(errno));
  }
  void require(herr_t result) const {
    if (result < 0) refuse();
  }
  void require(const Handle& handle) const {
    if (!handle.valid()) refuse();
  }

  /// For what is made together with the groups above it.
  [[nodiscard]] hid_t links() const {
    const hid_t plan = H5Pcreate(H5P_LINK_CREATE);
    require(H5Pset_create_intermediate_group(plan, 1));
    return plan;
  }

  std::string shown;
  hid_t file = -1;
};

H5Writer::H5Writer(const fs::path& path, std::string shown)
    : state_(std::make_unique<State>(path, std::move(shown))) {}
H5Writer::~H5Writer() = default;

void H5Writer::group(const std::string& path) {
  if (H5Lexists(state_->file, path.c_str(), H5P_DEFAULT) > 0) return;
  const Handle plan(state_->links(), H5Pclose);
  const Handle made(H5Gcreate2(state_->file, path.c_str(), plan.get(), H5P_DEFAULT, H5P_DEFAULT),
                    H5Gclose);
  state_->require(made);
}

void H5Writer::attribute(const std::string& group, const std::string& name,
                         const std::string& text) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  state_->require(H5Tset_size(type.get(), H5T_VARIABLE));
  state_->require(H5Tset_cset(type.get(), H5T_CSET_UTF8));
  const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Handle made(H5Acreate_by_name(state_->file, group.c_str(), name.c_str(), type.get(),
                                      space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                    H5Aclose);
  state_->require(made);
  const char* value = text.c_str();
  state_->require(H5Awrite(made.get(), type.get(), static_cast<const void*>(&value)));
}

void H5Writer::attribute(const std::string& group, const std::string& name,
                         const std::vector<std::string>& texts) {
  // Of variable length: what is in the attribute itself stays below HDF5's 64 KiB.
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  state_->require(H5Tset_size(type.get(), H5T_VARIABLE));
  state_->require(H5Tset_cset(type.get(), H5T_CSET_UTF8));
  const hsize_t count = texts.size();
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  state_->require(space);
  const Handle made(H5Acreate_by_name(state_->file, group.c_str(), name.c_str(), type.get(),
                                      space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                    H5Aclose);
  state_->require(made);
  if (texts.empty()) return;
  std::vector<const char*> values;
  values.reserve(texts.size());
  for (const std::string& text : texts) values.push_back(text.c_str());
  state_->require(H5Awrite(made.get(), type.get(), static_cast<const void*>(values.data())));
}

void H5Writer::array(const std::string& path, const Tensor& tensor, StoredType type) {
  const Handle stored(type == StoredType::f16 ? half_type() : H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  state_->require(stored);
  const std::vector<hsize_t> extents(tensor.shape().begin(), tensor.shape().end());
  const Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                     H5Sclose);
  state_->require(space);
  const Handle plan(state_->links(), H5Pclose);
  const Handle made(H5Dcreate2(state_->file, path.c_str(), stored.get(), space.get(), plan.get(),
                               H5P_DEFAULT, H5P_DEFAULT),
                    H5Dclose);
  state_->require(made);
  errno = 0;
  if (type == StoredType::f16) {
    const std::vector<uint16_t> halves = as_halves(tensor, path);
    state_->require(
        H5Dwrite(made.get(), stored.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, halves.data()));
  } else {
    state_->require(
        H5Dwrite(made.get(), stored.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, tensor.data()));
  }
}

void H5Writer::finish() {
  errno = 0;
  const hid_t file = std::exchange(state_->file, -1);
  if (H5Fclose(file) < 0) state_->refuse();
}

}  // namespace graft
