#!/bin/sh
# Compiles what sees LibTorch against the headers of another one than Debian's, without linking:
#   scripts/check-libtorch.sh BUILD [TORCH [SOURCE…]]
# BUILD: a build folder (for generated headers). TORCH: a folder with include/torch, as LibTorch's
# archives and PyTorch's wheels have it; default: the wheel that `make interop` installed. Ends with
# 77, ctest's code for "skipped", where there is none.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd)
torch=${2:-}
if [ -z "$torch" ]; then
  torch=$(ls -d "${XDG_CACHE_HOME:-$HOME/.cache}"/graft-interop/lib/python3*/site-packages/torch 2>/dev/null | head -n 1)
fi
if [ -z "$torch" ] || [ ! -f "$torch/include/torch/csrc/api/include/torch/torch.h" ]; then
  echo "SKIPPED: no LibTorch beside Debian's; make interop installs one"
  exit 77
fi
version=$(sed -n 's/^#define TORCH_VERSION_M[AI][JN]OR \([0-9]*\).*/\1/p' \
  "$torch/include/torch/csrc/api/include/torch/version.h" "$torch/include/torch/headeronly/version.h" 2>/dev/null |
  head -n 2 | paste -sd.)
echo "LibTorch $version in $torch"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
used=$work/used
# As cmake/LibTorch.cmake has it: LibTorch brings headers of another {fmt}.
mkdir "$work/own-fmt"
ln -s /usr/include/fmt "$work/own-fmt/fmt"
failed=0
shift
[ $# -eq 0 ] || shift
for file in ${*:-$(grep -lE '#include [<"](torch|ATen|c10|train/[a-z_]+\.h)' "$source"/src/train/*.cpp)}; do
  # Mixed with Debian's headers it would prove nothing.
  if ${CXX:-g++} -std=c++20 -fsyntax-only -fopenmp -w -MD -MF "$used" \
      -I"$work/own-fmt" -I"$source/include" -I"$source/src" -I"$build/src/generated" -I"$build/src" \
      -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" "$file" &&
     ! grep -oE '/usr/include/(torch|ATen|c10|caffe2)/[^ ]*' "$used" | head -n 3 | grep .; then
    echo "ok   ${file#"$source"/}"
  else
    echo "FAIL ${file#"$source"/}"
    failed=1
  fi
done
exit $failed
