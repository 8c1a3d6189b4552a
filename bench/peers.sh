#!/usr/bin/env bash
# bench/peers.py in a virtual environment outside the source tree ($GRAFT_PEERS_ENV).
# Usage: peers.sh BUILD_FOLDER [REPEATS]
set -euo pipefail
cd "$(dirname "$0")/.."
environment=${GRAFT_PEERS_ENV:-${XDG_CACHE_HOME:-$HOME/.cache}/graft-peers}
[ -x "$environment/bin/python" ] || /usr/bin/python3 -m venv "$environment"
"$environment/bin/pip" install --quiet numpy onnx onnxruntime openvino ncnn torch tensorflow-cpu
exec "$environment/bin/python" -B bench/peers.py "$@"
