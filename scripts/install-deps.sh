#!/usr/bin/env bash
# Installs the Debian 12 packages that Graft needs and that are missing; docs/dependencies.md says
# what each is for. Usage: install-deps.sh build|test|serve|lint|bench|fuzz|interop|neon …
set -euo pipefail

build="g++ cmake ninja-build pkg-config libtorch-dev libgloo-dev libopenblas0-pthread libhwy-dev libhdf5-dev liblzf-dev libseccomp-dev
  libjpeg-dev libpng-dev zlib1g-dev libzip-dev libxlsxwriter-dev libarchive-dev libwebp-dev
  libheif-dev libgif-dev libtiff-dev libstb-dev libexif-dev libcurl4-openssl-dev libssl-dev libxxhash-dev
  libfmt-dev nlohmann-json3-dev libtomlplusplus-dev libcli11-dev
  libprotobuf-dev protobuf-compiler libonnx-dev libcpp-httplib-dev libboost-dev libutf8proc-dev"
test="$build libgtest-dev python3 python3-numpy python3-pil python3-h5py python3-torch python3-onnx
  chromium chromium-driver python3-selenium python3-openpyxl tmux libheif-examples
  python3-dev pybind11-dev python3-pytest"
serve="${build//libtorch-dev libgloo-dev libopenblas0-pthread /}"
fuzz="$build clang libclang-rt-14-dev"
lint="$test clang-format clang-tidy"
bench="$test"
interop="$build libgtest-dev python3 python3-numpy python3-pil python3-venv python3-dev chromium chromium-driver python3-selenium"
neon="g++-aarch64-linux-gnu qemu-user libhwy-dev googletest"

wanted=""
for set in "$@"; do
  case "$set" in
    build | test | serve | lint | bench | fuzz | interop | neon) wanted="$wanted ${!set}" ;;
    *) echo "install-deps.sh: unknown set '$set'; expected build, test, serve, lint, bench, fuzz, interop or neon" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null; then
  echo "install-deps.sh: not a Debian system; install what corresponds to:" $wanted >&2
  exit 1
fi

missing=""
for package in $(printf '%s\n' $wanted | sort -u); do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "Missing Debian packages. Install them, then run the same command again:" >&2
  echo "  sudo apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends $missing >/dev/null
