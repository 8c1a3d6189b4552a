#!/usr/bin/env bash
# Checks Graft against real Keras, safetensors, TensorBoard and scikit-learn, in a virtual environment
# outside the source tree ($GRAFT_INTEROP_ENV, by default in the cache folder).
# Usage: interop.sh BUILD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${GRAFT_INTEROP_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/graft-interop}
if [ ! -x "$environment/bin/python" ]; then
  /usr/bin/python3 -m venv "$environment" || {
    echo "interop.sh: install python3-venv first (apt-get install python3-venv)" >&2; exit 1; }
fi
"$environment/bin/pip" install --quiet tensorflow-cpu safetensors pillow numpy scipy tensorboard scikit-learn
GRAFT_BUILD=$(realpath "$1") GRAFT_SOURCE=$PWD PYTHONPATH=$PWD/tests \
  TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$environment/bin/python" -B tests/interop/test_interop.py
GRAFT_BUILD=$(realpath "$1") GRAFT_SOURCE=$PWD PYTHONPATH=$PWD/tests \
  TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$environment/bin/python" -B tests/interop/test_metrics.py
