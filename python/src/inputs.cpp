#include "inputs.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <new>
#include <thread>

#include "graft/error.h"

namespace graft::python {
namespace {

std::filesystem::path path_of(const py::handle& text) {
  // As Python's own functions take file names, surrogates of undecodable bytes included.
  const auto bytes = py::reinterpret_steal<py::bytes>(PyUnicode_EncodeFSDefault(text.ptr()));
  if (!bytes) throw py::error_already_set();
  return std::string(bytes);
}

std::string name_of(size_t i) { return "images[" + std::to_string(i) + "]"; }

Image copied(const py::buffer_info& info) {
  Image image;
  image.height = static_cast<int>(info.shape[0]);
  image.width = static_cast<int>(info.shape[1]);
  image.pixels.resize(static_cast<size_t>(info.size));
  const auto* from = static_cast<const std::byte*>(info.ptr);
  uint8_t* to = image.pixels.data();
  const auto [down, right, next] =
      std::array<py::ssize_t, 3>{info.strides[0], info.strides[1], info.strides[2]};
  const py::ssize_t row = 3 * info.shape[1];
  for (py::ssize_t y = 0; y < info.shape[0]; ++y) {
    const std::byte* line = from + y * down;
    if (next == 1 && right == 3) {
      std::copy_n(reinterpret_cast<const uint8_t*>(line), row, to);
      to += row;
      continue;
    }
    for (py::ssize_t x = 0; x < info.shape[1]; ++x)
      for (py::ssize_t c = 0; c < 3; ++c) *to++ = static_cast<uint8_t>(line[x * right + c * next]);
  }
  return image;
}

/// Of one byte each, and of a shape that an image or a file may have.
bool is_taken(const py::buffer_info& info) {
  constexpr py::ssize_t kMostSide = 65'535;
  if (info.itemsize != 1) return false;
  if (info.ndim == 1) return info.strides[0] == 1;
  return info.ndim == 3 && info.format == "B" && info.shape[2] == 3 && info.shape[0] > 0 &&
         info.shape[1] > 0 && info.shape[0] <= kMostSide && info.shape[1] <= kMostSide;
}

}  // namespace

Inputs::Inputs(const py::sequence& items) {
  items_.reserve(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const py::object item = items[i];
    if (py::isinstance<py::str>(item)) {
      items_.push_back({path_of(item), nullptr});
      continue;
    }
    if (PyObject_CheckBuffer(item.ptr()) == 0)
      throw Error(ErrorKind::usage, name_of(i) + ": no image: neither path nor bytes nor array");
    auto info =
        std::make_unique<py::buffer_info>(py::reinterpret_borrow<py::buffer>(item).request());
    if (!is_taken(*info))
      throw Error(ErrorKind::usage,
                  name_of(i) +
                      ": expected uint8 pixels (H, W, 3), from 1 to 65535 each way, or "
                      "the bytes of a file");
    items_.push_back({{}, std::move(info)});
  }
}

bool Inputs::are_all_paths() const {
  return std::all_of(items_.begin(), items_.end(), [](const Item& item) { return !item.buffer; });
}

std::vector<std::filesystem::path> Inputs::paths() const {
  std::vector<std::filesystem::path> out;
  for (const Item& item : items_) out.push_back(item.path);
  return out;
}

Image Inputs::load(size_t i) const {
  const Item& item = items_[i];
  if (!item.buffer) return load_image(item.path);
  if (item.buffer->ndim == 3) return copied(*item.buffer);
  return decode_image(
      {static_cast<const std::byte*>(item.buffer->ptr), static_cast<size_t>(item.buffer->size)},
      name_of(i));
}

std::vector<Failure> Inputs::load(size_t first, size_t last, int threads,
                                  const std::function<void(size_t, Image)>& take) const {
  std::vector<Failure> failures;
  std::atomic<size_t> next = first;
  std::mutex mutex;
  const auto failed = [&](size_t i, const std::string& text) {
    const std::lock_guard lock(mutex);
    failures.push_back({i, text});
  };
  const auto work = [&] {
    for (size_t i = next++; i < last; i = next++) {
      try {
        take(i, load(i));
      } catch (const std::bad_alloc&) {
        failed(i, name_of(i) + ": out of memory");
      } catch (const std::exception& error) {
        failed(i, error.what());
      }
    }
  };
  {
    std::vector<std::jthread> others;
    const size_t wanted = std::min(static_cast<size_t>(std::max(threads, 1)), last - first);
    for (size_t t = 1; t < wanted; ++t) others.emplace_back(work);
    work();
  }
  std::sort(failures.begin(), failures.end(),
            [](const Failure& a, const Failure& b) { return a.index < b.index; });
  return failures;
}

float* floats_of(const py::buffer_info& info, size_t count) {
  py::ssize_t step = sizeof(float);
  bool dense = info.format == py::format_descriptor<float>::format() && !info.readonly;
  for (auto i = static_cast<size_t>(info.ndim); i-- > 0;) {
    dense = dense && (info.strides[i] == step || info.shape[i] <= 1);
    step *= info.shape[i];
  }
  if (!dense || static_cast<size_t>(info.size) != count)
    throw Error(ErrorKind::usage, "results are written to a float32 array in C order of " +
                                      std::to_string(count) + " values");
  return static_cast<float*>(info.ptr);
}

}  // namespace graft::python
