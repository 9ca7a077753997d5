#!/usr/bin/env bash
# Runs each fuzz target for some seconds (first argument, default 20). cargo-fuzz is installed when it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20}
command -v cargo-fuzz >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
# Coverage instrumentation needs unstable compiler flags: the nightly compiler has them; a stable one grants them on this word.
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
  fuzz=(cargo +nightly fuzz)
else
  export RUSTC_BOOTSTRAP=1
  fuzz=(cargo fuzz)
fi
for target in $("${fuzz[@]}" list); do
  echo "fuzzing $target for $seconds s"
  "${fuzz[@]}" run --sanitizer none "$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 -print_final_stats=0 >"/tmp/mayfly-fuzz-$target.log" 2>&1 ||
    { tail -40 "/tmp/mayfly-fuzz-$target.log"; exit 1; }
  rm -f "/tmp/mayfly-fuzz-$target.log"
done
