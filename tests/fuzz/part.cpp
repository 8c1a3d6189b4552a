// Parts of sharded results: chunks and records, and what a check's records hold.
#include "base/part_file.h"

#include <cstdio>
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include "dataset/facts.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace graft;
  static const std::filesystem::path kFile =
      std::filesystem::temp_directory_path() / ("graft-fuzz-part-" + std::to_string(::getpid()));
  fuzz::expect_typed_errors([&] { facts_of(fuzz::text(data, size), "fuzz"); });
  std::ofstream(kFile, std::ios::binary) << fuzz::text(data, size);
  fuzz::expect_typed_errors([&] {
    PartReader reader(kFile);
    uint64_t records = 0;
    for (PartRecord record; reader.next(record); ++records)
      fuzz::expect_typed_errors([&] { facts_of(record.content, "fuzz"); });
    fuzz::require(records == reader.records());
  });
  std::filesystem::remove(kFile);
  return 0;
}
