// A .h5 file as the library sees it: through graft-read-h5, a confined process of its own.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "weights/h5_message.h"

namespace graft {

/// Starts graft-read-h5 on a file and asks it. Not thread-safe; several may be in use at once.
/// Everything throws Error(input), naming the file, where it is refused, makes the HDF5 library
/// crash or takes longer than its size explains; Error(io) where it cannot be opened or the program
/// cannot be started; Error(interrupted) where `until` says stop. The program ends with the object.
class H5File {
 public:
  /// Of a .keras archive the model.weights.h5 in it, which is copied into memory.
  explicit H5File(const std::filesystem::path& path, std::stop_token until = {});
  ~H5File();
  H5File(const H5File&) = delete;
  H5File& operator=(const H5File&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }  ///< printable, for messages
  [[nodiscard]] const std::vector<H5Weight>& weights() const { return weights_; }

  /// The whole model's description as JSON, where the file has one (also of a .keras); or empty.
  [[nodiscard]] const std::string& description() const { return description_; }
  /// The names of its layers in the description's order, those in models within too; empty: it has
  /// no description, or one that is not Keras' own.
  [[nodiscard]] const std::vector<std::string>& layer_order() const;
  /// What `graft export` says of the model in its own files, as JSON; or empty.
  [[nodiscard]] const std::string& record() const { return record_; }
  /// Of a .keras what is beside it in the archive (ZipFile::listing_without).
  [[nodiscard]] const std::string& beside_record() const { return beside_record_; }

  /// Reads the weights with these indices (without `problem`), in this order; any number of times.
  /// `take` gets each one's values, which are gone after it.
  void read(std::span<const size_t> wanted,
            const std::function<void(size_t index, std::span<const float> values)>& take);

 private:
  class Descriptor {
   public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    ~Descriptor() { reset(); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    void reset(int fd = -1);
    [[nodiscard]] int get() const { return fd_; }

   private:
    int fd_;
  };

  void open(const std::filesystem::path& path);
  void start(int file);
  void stop();
  void check_stop() const;
  H5Message receive();
  [[noreturn]] void fail_dead();

  std::string name_;  // for messages
  std::stop_token until_;
  std::chrono::seconds patience_{};
  std::chrono::steady_clock::time_point deadline_;
  bool sealed_ = false;  // shared_ has its size
  Descriptor socket_;
  Descriptor shared_;
  int process_ = -1;
  std::vector<H5Weight> weights_;
  std::string description_;
  mutable std::optional<std::vector<std::string>> layer_order_;  // once it was asked for
  std::string record_;
  std::string beside_record_;
};

}  // namespace graft
