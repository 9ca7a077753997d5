# Shared by the client tests: where caches are, and how each client gets there. Sourced, not run.
# Every cache folder is named by a hash of what it was made from and appears by one rename, so that a broken install is never taken for a whole one.

CLIENTS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$CLIENTS/../.." && pwd)
CACHE=${MAYFLY_CACHE:-$HOME/.cache/mayfly-tests}
mkdir -p "$CACHE"

say() { printf '%s\n' "$*"; }

# key FILE...: a short hash of these files' contents.
key() { cat "$@" | sha256sum | cut -c1-12; }

# cached NAME KEY COMMAND...: prints the folder $CACHE/NAME-KEY, made by COMMAND (which gets a temporary folder's path) if it isn't there.
# NAME-KEY is only ever complete: COMMAND's failure leaves no folder, and its log's end is shown.
cached() {
  local dir="$CACHE/$1-$2" log="$CACHE/$1-$2.log" name="$1" started
  shift 2
  if [ ! -f "$dir/.complete" ]; then
    started=$(date +%s)
    rm -rf "$dir"
    mkdir -p "$dir"
    if ! "$@" "$dir" >"$log" 2>&1; then
      say "could not install $name; the end of $log:" >&2
      tail -n 25 "$log" >&2
      rm -rf "$dir"
      return 1
    fi
    touch "$dir/.complete"
    say "  installed $name in $(($(date +%s) - started)) s" >&2
  fi
  printf '%s\n' "$dir"
}

# The sandbox runs the system's Python, so whatever is vendored into a package must be built for that one.
SYSTEM_PYTHON=${MAYFLY_SYSTEM_PYTHON:-/usr/bin/python3}

make_venv() { "$SYSTEM_PYTHON" -m venv "$2" && "$2/bin/pip" install --quiet --disable-pip-version-check -r "$1"; }
make_vendored() {
  local venv="$CACHE/pip-venv"
  [ -x "$venv/bin/pip" ] || "$SYSTEM_PYTHON" -m venv "$venv" || return 1
  "$venv/bin/pip" install --quiet --disable-pip-version-check --target "$2" -r "$1"
}
# Where Node.js came with its headers, native parts are built with those and none are fetched.
make_node() {
  local prefix
  prefix=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
  [ -f "$prefix/include/node/node.h" ] && export npm_config_nodedir=$prefix
  cp "$1/package.json" "$2/" && (cd "$2" && npm install --no-package-lock --no-audit --no-fund --loglevel=error)
}

python_sdk() { cached python-sdk "$(key "$CLIENTS/requirements/sdk.txt")" make_venv "$CLIENTS/requirements/sdk.txt"; }
cmq_sdk() { cached cmq "$(key "$CLIENTS/requirements/cmq.txt")" make_venv "$CLIENTS/requirements/cmq.txt"; }
tccli_venv() { cached tccli "$(key "$CLIENTS/requirements/tccli.txt")" make_venv "$CLIENTS/requirements/tccli.txt"; }
apigw_venv() { cached apigw "$(key "$CLIENTS/requirements/apigw.txt")" make_venv "$CLIENTS/requirements/apigw.txt"; }
objects_venv() { cached objects "$(key "$CLIENTS/requirements/objects.txt")" make_venv "$CLIENTS/requirements/objects.txt"; }
kafka_venv() { cached kafka-python "$(key "$CLIENTS/requirements/kafka.txt")" make_venv "$CLIENTS/requirements/kafka.txt"; }
kafka_vendored() { cached kafka-vendored "$(key "$REPO/examples/kafka-stream/requirements.txt")" make_vendored "$REPO/examples/kafka-stream/requirements.txt"; }
kafkajs() { cached kafkajs "$(key "$CLIENTS/node-kafka/package.json")" make_node "$CLIENTS/node-kafka"; }
inside_venv() { cached inside "$(key "$CLIENTS/requirements/inside.txt")" make_venv "$CLIENTS/requirements/inside.txt"; }
inside_vendored() { cached inside-vendored "$(key "$CLIENTS/requirements/inside.txt")" make_vendored "$CLIENTS/requirements/inside.txt"; }
cos_node() { cached cos-node "$(key "$CLIENTS/cos-node/package.json")" make_node "$CLIENTS/cos-node"; }
awslambdaric() { cached awslambdaric "$(key "$CLIENTS/requirements/awslambdaric.txt")" make_vendored "$CLIENTS/requirements/awslambdaric.txt"; }
node_sdk() { cached node-sdk "$(key "$CLIENTS/node-sdk/package.json")" make_node "$CLIENTS/node-sdk"; }
node_ric() { cached node-ric "$(key "$CLIENTS/node-ric/package.json")" make_node "$CLIENTS/node-ric"; }

# rust_program NAME: builds tests/clients/rust/NAME and prints the path of its binary.
rust_program() {
  local target="$CACHE/rust-$1"
  if ! CARGO_TARGET_DIR="$target" cargo build --release --quiet --locked --manifest-path "$CLIENTS/rust/$1/Cargo.toml" >"$target.log" 2>&1; then
    say "could not build rust/$1; the end of $target.log:" >&2
    tail -n 25 "$target.log" >&2
    return 1
  fi
  printf '%s\n' "$target/release/bootstrap"
}
