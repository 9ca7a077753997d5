#!/usr/bin/env bash
# Passes all tests: formatting, lints, unit, contract, attack and durability tests, runtime shims, fuzzing for some seconds, and
# sessions of real clients. Installs what it needs. Can be run again.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
export CARGO_TERM_COLOR=never

step() { say "$1"; shift; local begun=$SECONDS; "$@"; echo "    ($((SECONDS - begun)) s)"; }

# What the real clients build and install with; npm comes with Node.js or, on Debian, in a package of its own.
need_packages $(grep -v '^#' tests/clients/apt.txt)
command -v npm >/dev/null 2>&1 || need_packages npm

# Brokers that tests of Kafka triggers start.
step "brokers" bash tests/brokers/install.sh

step "format" cargo fmt --all --check
step "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
step "Rust tests" cargo test --workspace --quiet --no-fail-fast
step "Python shim" python3 -m unittest discover -s runtimes/python -p 'test_*.py'
step "Node.js shim" node --test runtimes/node/test_bootstrap.js
step "fuzzing" bash scripts/fuzz.sh 10
step "real clients" bash tests/clients/run.sh
say "all tests passed"
