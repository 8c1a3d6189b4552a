#include "weights/h5/numbered.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "weights/h5/handle.h"

namespace graft {
namespace {

constexpr size_t kMaxDepth = 24;
constexpr size_t kMaxName = 1000;

/// A name's number at its end orders layers of one class: conv2d, conv2d_1, …, conv2d_10.
std::pair<std::string, size_t> stem_and_number(const std::string& name) {
  constexpr size_t kMaxDigits = 9;
  if (name.size() < kMaxDigits && name.find_first_not_of("0123456789") == std::string::npos)
    return {"", std::stoul(name)};
  const size_t line = name.rfind('_');
  if (line == std::string::npos || line + 1 == name.size() || name.size() - line > kMaxDigits ||
      name.find_first_not_of("0123456789", line + 1) != std::string::npos)
    return {name, 0};
  return {name.substr(0, line), std::stoul(name.substr(line + 1))};
}

struct Child {
  std::string name;
  bool dataset = false;
};

class Walk {
 public:
  Walk(hid_t file, size_t most) : file_(file), most_(most) {}

  std::vector<NumberedWeight> run() {
    visit("", "", "", 0);
    return std::move(out_);
  }

 private:
  /// The children of a group, in order. Links to other places are passed over.
  std::vector<Child> children(const std::string& path) {
    const Handle group(H5Gopen2(file_, path.empty() ? "/" : path.c_str(), H5P_DEFAULT), H5Gclose);
    H5G_info_t info{};
    if (!group.valid() || H5Gget_info(group.get(), &info) < 0) refuse("'{}' cannot be read", path);
    count(info.nlinks);
    std::vector<Child> out;
    for (hsize_t i = 0; i < info.nlinks; ++i) {
      std::array<char, kMaxName + 1> name{};
      const auto index = [&](auto&& get, auto&&... more) {
        return get(group.get(), ".", H5_INDEX_NAME, H5_ITER_INC, i, more..., H5P_DEFAULT);
      };
      H5L_info_t link{};
      if (index(H5Lget_info_by_idx, &link) < 0 || link.type != H5L_TYPE_HARD) continue;
      const ssize_t length = index(H5Lget_name_by_idx, name.data(), name.size());
      if (length <= 0 || static_cast<size_t>(length) > kMaxName) continue;
      H5O_info_t object{};
      if (H5Oget_info_by_name(group.get(), name.data(), &object, H5P_DEFAULT) < 0) continue;
      if (object.type == H5O_TYPE_GROUP || object.type == H5O_TYPE_DATASET)
        out.push_back({name.data(), object.type == H5O_TYPE_DATASET});
    }
    std::sort(out.begin(), out.end(), [](const Child& a, const Child& b) {
      return stem_and_number(a.name) < stem_and_number(b.name);
    });
    return out;
  }

  /// Hard links may make a graph of which the paths are endless.
  void count(size_t more) {
    seen_ += more;
    if (seen_ > 4 * most_) refuse("it has more groups than a model's weights need");
  }

  /// `layer`, `inner`: the names so far, of the whole model's layer and below it.
  void visit(const std::string& path, const std::string& layer, const std::string& inner,
             size_t depth) {
    if (depth > kMaxDepth) refuse("its groups are nested too deep");
    for (const Child& child : children(path)) {
      if (child.dataset) continue;
      const std::string below = path + "/" + child.name;
      if (child.name == "vars") {
        add(below, layer, inner);
      } else if (child.name == "layers") {
        visit(below, layer, inner, depth + 1);
      } else if (depth > 0 || child.name != "optimizer") {
        const std::string name = name_of(below, child.name);
        if (layer.empty())
          visit(below, name, "", depth + 1);
        else
          visit(below, layer, inner.empty() ? name : inner + "/" + name, depth + 1);
      }
    }
  }

  /// The layer's own name, which Keras keeps at the group of its variables.
  std::string name_of(const std::string& group, const std::string& otherwise) {
    const std::string vars = group + "/vars";
    if (H5Lexists(file_, vars.c_str(), H5P_DEFAULT) <= 0 ||
        H5Aexists_by_name(file_, vars.c_str(), "name", H5P_DEFAULT) <= 0)
      return otherwise;
    const Handle attribute(H5Aopen_by_name(file_, vars.c_str(), "name", H5P_DEFAULT, H5P_DEFAULT),
                           H5Aclose);
    const Handle type(H5Aget_type(attribute.get()), H5Tclose);
    const Handle space(H5Aget_space(attribute.get()), H5Sclose);
    if (!attribute.valid() || H5Tget_class(type.get()) != H5T_STRING ||
        H5Tis_variable_str(type.get()) <= 0 || H5Sget_simple_extent_npoints(space.get()) != 1)
      return otherwise;
    const Handle memory(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(memory.get(), H5T_VARIABLE);
    H5Tset_cset(memory.get(), H5Tget_cset(type.get()));
    char* text = nullptr;
    if (H5Aread(attribute.get(), memory.get(), static_cast<void*>(&text)) < 0 || text == nullptr)
      return otherwise;
    std::string name(text, strnlen(text, kMaxName));
    H5Dvlen_reclaim(memory.get(), space.get(), H5P_DEFAULT, static_cast<void*>(&text));
    std::replace(name.begin(), name.end(), '/', '_');
    return name.empty() ? otherwise : name;
  }

  void add(const std::string& vars, const std::string& layer, const std::string& inner) {
    if (layer.empty()) return;  // the model's own, if any
    std::vector<std::string> names;
    bool is_kernel = false;
    for (const Child& child : children(vars))
      if (child.dataset) names.push_back(child.name);
    if (!names.empty()) is_kernel = rank(vars + "/" + names.front()) >= 2;
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string role = role_of(i, names.size(), is_kernel, names[i]);
      const std::string own = inner.empty() ? layer : inner;
      out_.push_back({layer, own + "/" + role, vars + "/" + names[i]});
      if (out_.size() > most_) refuse("it has more weights than {}", most_);
    }
  }

  int rank(const std::string& path) {
    const Handle dataset(H5Dopen2(file_, path.c_str(), H5P_DEFAULT), H5Dclose);
    if (!dataset.valid()) return -1;
    const Handle space(H5Dget_space(dataset.get()), H5Sclose);
    return H5Sget_simple_extent_ndims(space.get());
  }

  /// Keras numbers a layer's variables in the order in which it makes them.
  static std::string role_of(size_t index, size_t count, bool is_kernel,
                             const std::string& number) {
    static constexpr std::array<const char*, 2> kKernel = {"kernel", "bias"};
    static constexpr std::array<const char*, 4> kBatchNorm = {"gamma", "beta", "moving_mean",
                                                              "moving_variance"};
    if (is_kernel && index < kKernel.size()) return kKernel.at(index);
    if (!is_kernel && count == kBatchNorm.size()) return kBatchNorm.at(index);
    return number;
  }

  hid_t file_;
  size_t most_;
  size_t seen_ = 0;
  std::vector<NumberedWeight> out_;
};

}  // namespace

std::vector<NumberedWeight> numbered_weights(hid_t file, size_t most) {
  return Walk(file, most).run();
}

}  // namespace graft
