// What several tests need.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "graft/error.h"
#include "graft/network.h"
#include "weights/tensor.h"

namespace graft::testing {

/// A folder that is removed with everything in it at the end of the scope.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Writes text to a file, making its folders.
void write(const std::filesystem::path& path, std::string_view text);

/// Random weights with biases and BatchNorm statistics that are not trivial.
TensorMap make_tensors(const Network& network, uint64_t seed);

}  // namespace graft::testing

/// The statement throws a graft::Error of that kind whose message contains the text.
#define EXPECT_ERROR(statement, expected_kind, text)                                    \
  try {                                                                                 \
    statement;                                                                          \
    ADD_FAILURE() << "no error from: " #statement;                                      \
  } catch (const graft::Error& error) {                                                 \
    EXPECT_EQ(error.kind(), expected_kind) << error.what();                             \
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what(); \
  }
