#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS (30 when absent) and fails on the first crash. `fuzz.sh <target>…` runs those
# alone. The compiler of the project does: libFuzzer comes as a crate, and what `cargo fuzz` adds on the nightly
# compiler is a sanitizer for unsafe code, of which agentid has none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../fuzz"

seconds=${FUZZ_SECONDS:-30}
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "FUZZ_SECONDS is '$seconds', not a number of seconds" >&2; exit 2; }

targets=("$@")
if ((${#targets[@]} == 0)); then
  for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for target in "${targets[@]}"; do
  [[ -f fuzz_targets/$target.rs ]] || { echo "no fuzz target '$target'; there are: $(ls fuzz_targets)" >&2; exit 2; }
done

# The newest of libFuzzer's lines of progress, in words.
progress() {
  sed -n 's/^#\([0-9]*\)\t.* cov: \([0-9]*\) .* exec\/s: \([0-9]*\) .*/  \1 inputs, \2 edges reached, \3 a second/p' "$1" | tail -1
}

# With --target, these flags are not for build scripts and macros. One codegen unit keeps the counters of a crate
# together.
host=$(rustc -vV | sed -n 's/^host: //p')
flags=(
  -Cpasses=sancov-module
  -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
  -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares
  -Ccodegen-units=1
  --cfg=fuzzing
)
echo "building the fuzz targets (the first time: several minutes)"
RUSTFLAGS="${flags[*]}" cargo build --locked --target "$host"

for target in "${targets[@]}"; do
  # What libFuzzer finds goes into the first directory; the seeds stay as they are.
  found=target/corpus/$target artifacts=artifacts/$target log=target/$target.log
  mkdir -p "$found" "$artifacts"
  echo "$target: $seconds s"
  "target/$host/debug/$target" "$found" "corpus/$target" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=20000 \
    -artifact_prefix="$artifacts/" -print_final_stats=1 >"$log" 2>&1 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null || true' EXIT
  while kill -0 "$pid" 2>/dev/null; do
    for ((i = 0; i < 10; i++)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.5
    done
    progress "$log"
  done
  if ! wait "$pid"; then
    trap - EXIT
    tail -40 "$log" >&2
    echo "$target: crashed; run it again with: cd fuzz && target/$host/debug/$target $artifacts/<file>" >&2
    exit 1
  fi
  trap - EXIT
  sed -n 's/^stat::number_of_executed_units: */  no crash; inputs tried: /p' "$log"
done
