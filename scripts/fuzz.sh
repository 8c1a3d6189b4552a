#!/usr/bin/env bash
# Runs every fuzz target of a build for so many seconds, from its committed corpus; new inputs stay
# in the build folder. Usage: fuzz.sh BUILD SECONDS [TARGET…]
set -euo pipefail
build=$(cd "$1" && pwd)
seconds=$2
shift 2
corpus="$(cd "$(dirname "$0")/.." && pwd)/tests/fuzz/corpus"
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for target in "$build"/tests/fuzz/fuzz_*; do targets+=("$(basename "${target#*/fuzz_}" | sed 's/^fuzz_//')"); done
fi
failed=""
for target in "${targets[@]}"; do
  found="$build/tests/fuzz/found/$target"
  mkdir -p "$found"
  # A second per input and 2 GB hold for all targets; messages of refused inputs are not shown.
  if (cd "$build/tests/fuzz" && "./fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -malloc_limit_mb=1024 -close_fd_mask=1 -artifact_prefix="$found-" "$found" "$corpus/$target") \
    >"$found.log" 2>&1; then
    echo "$target: nothing found, $(grep -ao 'stat::number_of_executed_units: *[0-9]*\|Done [0-9]* runs' "$found.log" | tail -1)"
  else
    failed="$failed $target"
    echo "$target: FOUND; see $found.log"
    tail -n 5 "$found.log"
  fi
done
[ -z "$failed" ] || { echo "findings in:$failed"; exit 1; }
