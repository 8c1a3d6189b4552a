// The storages of PyTorch's files: bytes under keys, of which tensors are parts with strides.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "weights/stored_tensors.h"
#include "weights/zip_file.h"

namespace graft {

/// The values of a file's storages, by key.
class TorchStorages {
 public:
  virtual ~TorchStorages() = default;
  TorchStorages() = default;
  TorchStorages(const TorchStorages&) = delete;
  TorchStorages& operator=(const TorchStorages&) = delete;
  /// Bytes that there are of it; nothing: it is not in the file.
  [[nodiscard]] virtual std::optional<uint64_t> size(const std::string& key) const = 0;
  /// Copies the first bytes.
  virtual void read(const std::string& key, std::span<std::byte> out) const = 0;
};

class ZipTorchStorages : public TorchStorages {
 public:
  /// `prefix`: of the storages' entries, "archive/data/".
  ZipTorchStorages(std::shared_ptr<const ZipFile> zip, std::string prefix)
      : zip_(std::move(zip)), prefix_(std::move(prefix)) {}

  [[nodiscard]] std::optional<uint64_t> size(const std::string& key) const override {
    const ZipEntry* entry = zip_->find(prefix_ + key);
    if (entry == nullptr) return std::nullopt;
    zip_->check_size(*entry);
    return entry->size;
  }

  void read(const std::string& key, std::span<std::byte> out) const override {
    const ZipEntry* entry = zip_->find(prefix_ + key);
    if (entry->size == out.size()) {
      zip_->read(*entry, out);
      return;
    }
    const std::vector<std::byte> all = zip_->read(*entry, entry->size);
    std::copy_n(all.begin(), out.size(), out.begin());
  }

 private:
  std::shared_ptr<const ZipFile> zip_;
  std::string prefix_;
};

class StreamTorchStorages : public TorchStorages {
 public:
  explicit StreamTorchStorages(std::map<std::string, std::span<const std::byte>> values)
      : values_(std::move(values)) {}

  [[nodiscard]] std::optional<uint64_t> size(const std::string& key) const override {
    const auto at = values_.find(key);
    if (at == values_.end()) return std::nullopt;
    return at->second.size();
  }

  void read(const std::string& key, std::span<std::byte> out) const override {
    std::copy_n(values_.at(key).begin(), out.size(), out.begin());
  }

 private:
  std::map<std::string, std::span<const std::byte>> values_;
};

struct TorchStorage {
  std::string key;
  ElementType type = ElementType::f32;
  uint64_t element_bytes = 0;
  uint64_t elements = 0;
};

/// A part of a storage: element (i, j, …) is the one at offset + i·strides[0] + j·strides[1] + ….
struct TorchTensor {
  TorchStorage storage;
  uint64_t offset = 0;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

/// Reads tensors, and keeps the last storage that several of them share.
class TorchTensorReader {
 public:
  /// `owner` keeps the bytes alive that the storages lie in.
  TorchTensorReader(std::unique_ptr<const TorchStorages> storages,
                    std::shared_ptr<const void> owner)
      : owner_(std::move(owner)), storages_(std::move(storages)) {}

  [[nodiscard]] const TorchStorages& storages() const { return *storages_; }

  Tensor read(const TorchTensor& tensor);

 private:
  std::shared_ptr<const void> owner_;
  std::unique_ptr<const TorchStorages> storages_;
  std::optional<std::string> key_;  // of last_
  std::vector<std::byte> last_;
};

}  // namespace graft
