#!/usr/bin/env bash
# A benchmark beside its peers from PyPI, in a virtual environment outside the source tree
# ($GRAFT_PEERS_ENV). Usage: peers.sh BUILD_FOLDER [REPEATS [fp32|default]]
#                            peers.sh training BUILD_FOLDER PHOTOS [IMAGES [JOB...]]
#                            peers.sh notebook BUILD_FOLDER PHOTOS WEIGHTS.h5 [OPTIONS]
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${GRAFT_PEERS_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/graft-peers}
[ -x "$environment/bin/python" ] || /usr/bin/python3 -m venv "$environment"
"$environment/bin/pip" install --quiet numpy onnx onnxruntime openvino ncnn torch tensorflow-cpu \
  pillow scipy
script=peers
case "${1:-}" in training | notebook) script=$1 && shift ;; esac
exec "$environment/bin/python" -B "bench/$script.py" "$@"
