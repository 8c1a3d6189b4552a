#!/usr/bin/env bash
# Compiles the engine for 64-bit ARM and runs the kernels' tests there in an emulator.
# Usage: check-neon.sh BUILD_FOLDER. Exit status 77 where the tools are missing (make neon installs
# them).
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1/neon
compiler=aarch64-linux-gnu-g++
for tool in "$compiler" qemu-aarch64; do
  command -v "$tool" >/dev/null || { echo "SKIPPED: NEON: no $tool; 'make neon' installs it"; exit 77; }
done
[ -d /usr/src/googletest ] || { echo "SKIPPED: NEON: no googletest sources; 'make neon' installs them"; exit 77; }
mkdir -p "$target/include"
# Header-only libraries that do not depend on the architecture; the host's own headers would not fit.
for name in hwy fmt nlohmann; do ln -sfn "/usr/include/$name" "$target/include/$name"; done
flags=(-std=c++20 -O1 -Wall -Wextra -DFMT_HEADER_ONLY -DHWY_COMPILE_ONLY_STATIC -Iinclude -Isrc -Itests
  "-I$target/include" -I/usr/src/googletest/googletest/include)
compile() { "$compiler" "${flags[@]}" -c "$1" -o "$target/$(basename "$1" .cpp).o"; }
for file in src/engine/*.cpp; do
  [ "$(basename "$file")" = machine.cpp ] || compile "$file"
done
compile tests/engine/kernels_test.cpp
"$compiler" "${flags[@]}" -I/usr/src/googletest/googletest -c \
  /usr/src/googletest/googletest/src/gtest-all.cc -o "$target/gtest-all.o"
"$compiler" "${flags[@]}" -c /usr/src/googletest/googletest/src/gtest_main.cc -o "$target/gtest_main.o"
"$compiler" -static -pthread -Wl,--no-warnings "$target"/{kernels,buffer,kernels_test,gtest-all,gtest_main}.o \
  -o "$target/kernels_test"
qemu-aarch64 "$target/kernels_test"
