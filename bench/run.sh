#!/usr/bin/env bash
# All benchmarks beside their peers. Usage: run.sh BUILD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
"$1"/bench/kernels_bench
/usr/bin/python3 -B bench/trunk.py "$1"
"$1"/bench/convolution_bench 64
