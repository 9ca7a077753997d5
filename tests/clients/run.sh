#!/bin/bash
# Real, unmodified clients against a platform of their own: installs them (into a cache), starts `mayfly up` on a temporary folder, runs every session, stops it.
# Usage: tests/clients/run.sh [--with-tccli] [SESSION...]      sessions: see README.md. Must run as root, like the platform.
# --with-tccli: tccli must run; without it, it runs unless MAYFLY_SKIP_TCCLI=1 (it takes 665 MB of disk).
# Environment: MAYFLY_BIN (the binary; else one is built), MAYFLY_CACHE (default ~/.cache/mayfly-tests), MAYFLY_SKIP_TCCLI=1, MAYFLY_SKIP_SLOW=1 (no aws-lambda-ric, whose native
# part takes minutes to build), MAYFLY_WEB_MORE=1.
# The last line is `N passed, N failed`; the exit code is 0 only when nothing failed.
set -u
. "$(dirname "$0")/lib.sh"

# Those that run when none is named, and all.
usual=(python node tccli queues objects inside kafka apigw runtimes web frameworks browser)
known=("${usual[@]}" transfers web-more)

want_tccli=
sessions=()
for argument in "$@"; do
  case $argument in
    --with-tccli) want_tccli=1 ;;
    *)
      if [[ " ${known[*]} " != *" $argument "* ]]; then
        say "usage: $0 [--with-tccli] [$(IFS='|' && echo "${known[*]}")]..." >&2
        exit 2
      fi
      sessions+=("$argument")
      ;;
  esac
done
if [ ${#sessions[@]} = 0 ]; then
  sessions=("${usual[@]}")
  [ "${MAYFLY_WEB_MORE:-}" = 1 ] && sessions+=(transfers)
fi
[ -n "$want_tccli" ] && [[ " ${sessions[*]} " != *" tccli "* ]] && sessions+=(tccli)

work=$(mktemp -d "${TMPDIR:-/tmp}/mayfly-clients.XXXXXX")
platform=
stop() {
  [ -n "$platform" ] && kill -KILL "$platform" 2>/dev/null && wait "$platform" 2>/dev/null
  rm -rf "$work"
}
trap stop EXIT
export MAYFLY_TALLY="$work/tally"
: >"$MAYFLY_TALLY"
failed() { say "  FAIL $*"; say "0 1" >>"$MAYFLY_TALLY"; }
passed() { say "  ok   $*"; say "1 0" >>"$MAYFLY_TALLY"; }

bin=${MAYFLY_BIN:-}
if [ -z "$bin" ]; then
  (cd "$REPO" && cargo build --quiet -p mayfly) || exit 1
  bin=${CARGO_TARGET_DIR:-$REPO/target}/debug/mayfly
fi

say "== the platform"
export MAYFLY_SECRET_ID=AKIDclienttests MAYFLY_SECRET_KEY=clienttestskey0123456789abcdef
"$bin" up --data "$work/data" --listen 127.0.0.1:0 --queues-listen 127.0.0.1:0 --queues-push-allow 127.0.0.0/8 \
  --objects-listen 127.0.0.1:0 >"$work/ready" 2>"$work/platform.log" &
platform=$!
for _ in $(seq 300); do
  MAYFLY_ENDPOINT=$(sed -n 's/.*ready on http:\/\/\([0-9.:]*\).*/\1/p' "$work/ready" | head -n 1)
  [ -n "$MAYFLY_ENDPOINT" ] && break
  kill -0 "$platform" 2>/dev/null || break
  sleep 0.1
done
if [ -z "$MAYFLY_ENDPOINT" ]; then
  failed "mayfly up printed no address; the end of its log:"
  tail -n 30 "$work/platform.log"
  say "0 passed, 1 failed"
  exit 1
fi
objects=$(sed -n 's/.*objects: \([0-9.:]*\).*/\1/p' "$work/ready" | head -n 1)
export MAYFLY_ENDPOINT MAYFLY_PLATFORM_PID=$platform
MAYFLY_QUEUES=$(sed -n 's/.*queues: \([0-9.:]*\).*/\1/p' "$work/ready" | head -n 1)
export MAYFLY_QUEUES
passed "$(head -n 1 "$work/ready" | sed "s|$work|DIR|g")"

# session NAME COMMAND...: a session that dies before its tally is a failure of its own.
session() {
  local name=$1 before after
  shift
  before=$(wc -l <"$MAYFLY_TALLY")
  "$@"
  local code=$?
  after=$(wc -l <"$MAYFLY_TALLY")
  [ "$after" -gt "$before" ] || failed "$name ended with exit code $code before it told its result"
}

for name in "${sessions[@]}"; do
  case $name in
    python) if venv=$(python_sdk); then session python "$venv/bin/python" -B "$CLIENTS/sdk_python.py"; else failed "Python SDK: not installed"; fi ;;
    node) if modules=$(node_sdk); then NODE_PATH="$modules/node_modules" session node node "$CLIENTS/sdk_node.js"; else failed "Node SDK: not installed"; fi ;;
    tccli)
      if [ -z "$want_tccli" ] && [ "${MAYFLY_SKIP_TCCLI:-}" = 1 ]; then
        say; say "== tccli: SKIPPED, because MAYFLY_SKIP_TCCLI=1"
      elif venv=$(tccli_venv); then
        PATH="$venv/bin:$PATH" session tccli "$CLIENTS/tccli.sh"
      else
        failed "tccli: not installed"
      fi
      ;;
    queues)
      if venv=$(cmq_sdk); then session queues "$venv/bin/python" -B "$CLIENTS/queues.py"; else failed "CMQ SDK: not installed"; fi
      if [ -z "$want_tccli" ] && [ "${MAYFLY_SKIP_TCCLI:-}" = 1 ]; then
        say; say "== tccli tdmq: SKIPPED, because MAYFLY_SKIP_TCCLI=1"
      elif venv=$(tccli_venv); then
        PATH="$venv/bin:$PATH" session "tccli tdmq" "$CLIENTS/queues_tccli.sh"
      else
        failed "tccli: not installed"
      fi
      ;;
    objects)
      say; say "== objects: cos-python-sdk-v5 and boto3"
      if venv=$(objects_venv); then
        if "$venv/bin/python" -B "$CLIENTS/objects.py" "$objects" "$MAYFLY_SECRET_ID" "$MAYFLY_SECRET_KEY"; then passed "objects"; else failed "objects"; fi
        if "$venv/bin/python" -B "$CLIENTS/s3_conformance.py" "$objects" "$MAYFLY_SECRET_ID" "$MAYFLY_SECRET_KEY"; then passed "objects: S3's cases"; else failed "objects: S3's cases"; fi
      else
        failed "objects: the SDKs are not installed"
      fi
      if modules=$(cos_node); then
        if NODE_PATH="$modules/node_modules" node "$CLIENTS/cos_node.js" "$objects" "$MAYFLY_SECRET_ID" "$MAYFLY_SECRET_KEY"; then passed "objects: cos-nodejs-sdk-v5"; else failed "objects: cos-nodejs-sdk-v5"; fi
      else
        failed "objects: the Node SDK is not installed"
      fi
      ;;
    inside)
      if venv=$(inside_venv) && vendored=$(inside_vendored) && modules=$(cos_node); then
        session inside "$venv/bin/python" -B "$CLIENTS/inside.py" "$bin" "$objects" "$vendored" "$modules/node_modules"
      else
        failed "inside: the SDKs are not installed"
      fi
      ;;
    kafka)
      if venv=$(kafka_venv) && modules=$(kafkajs) && vendored=$(kafka_vendored) && bash "$REPO/tests/brokers/install.sh" >"$work/brokers"; then
        session kafka "$CLIENTS/kafka.sh" "$bin" "$venv" "$modules" "$vendored" "$(head -n 1 "$work/brokers")"
      else
        failed "kafka: clients or brokers are not installed"
      fi
      ;;
    apigw)
      if venv=$(apigw_venv); then session apigw "$venv/bin/python" -B "$CLIENTS/apigw.py"; else failed "API Gateway's SDK: not installed"; fi
      if [ -z "$want_tccli" ] && [ "${MAYFLY_SKIP_TCCLI:-}" = 1 ]; then
        say; say "== tccli apigateway: SKIPPED, because MAYFLY_SKIP_TCCLI=1"
      elif venv=$(tccli_venv); then
        PATH="$venv/bin:$PATH" session "tccli apigateway" "$CLIENTS/apigw_tccli.sh"
      else
        failed "tccli: not installed"
      fi
      ;;
    runtimes)
      if venv=$(python_sdk); then
        session runtimes "$CLIENTS/runtimes.sh" "$venv/bin/python"
      else
        failed "runtimes: the Python SDK is not installed"
      fi
      ;;
    web) session web "$CLIENTS/web.sh" quick ;;
    frameworks | browser | transfers) session "$name" "$CLIENTS/web.sh" "$name" ;;
    web-more) for part in frameworks browser transfers; do session "$part" "$CLIENTS/web.sh" "$part"; done ;;
  esac
done

say
say "== the platform stops"
kill -TERM "$platform"
for _ in $(seq 300); do kill -0 "$platform" 2>/dev/null || break; sleep 0.1; done
if kill -0 "$platform" 2>/dev/null; then
  failed "SIGTERM: still running after 30 s"
else
  wait "$platform"
  code=$?
  platform=
  if [ "$code" = 0 ]; then passed "SIGTERM: exit code 0"; else failed "SIGTERM: exit code $code"; fi
fi
if grep -q "panicked" "$work/platform.log"; then failed "a panic: $(grep -m1 -A2 panicked "$work/platform.log")"; else passed "no panic in its log"; fi

total_passed=$(awk '{n += $1} END {print n + 0}' "$MAYFLY_TALLY")
total_failed=$(awk '{n += $2} END {print n + 0}' "$MAYFLY_TALLY")
if [ "$total_failed" -gt 0 ]; then
  say
  say "the end of the platform's log:"
  tail -n 40 "$work/platform.log"
fi
say "$total_passed passed, $total_failed failed"
[ "$total_failed" = 0 ]
