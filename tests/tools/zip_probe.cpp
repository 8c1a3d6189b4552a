// zip_probe FILE ALIGNMENT ZIP64_FROM NAME=TEXT …: writes an archive with the library's writer.
#include <cstdlib>
#include <string>

#include "base/zip_writer.h"

int main(int argc, char** argv) {
  graft::AtomicFile file(argv[1]);
  graft::ZipWriter zip(file, std::strtoull(argv[2], nullptr, 10),
                       std::strtoull(argv[3], nullptr, 10));
  for (int i = 4; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t at = word.find('=');
    zip.add(word.substr(0, at), std::string_view(word).substr(at + 1));
  }
  zip.finish();
  file.commit();
}
