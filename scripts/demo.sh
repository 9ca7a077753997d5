#!/usr/bin/env bash
# Installs what is needed, builds Mayfly, starts it, deploys an example of each runtime, calls each, and says where to look next.
# The platform keeps running in the foreground of this script until Ctrl-C. Can be run again: data stays in ./.mayfly-demo.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh

say "building (the first time takes some minutes)"
cargo build --release --quiet --package mayfly
mayfly=$PWD/target/release/mayfly
data=${MAYFLY_DEMO_DATA:-$PWD/.mayfly-demo}
listen=${MAYFLY_DEMO_LISTEN:-127.0.0.1:8700}
unset MAYFLY_SECRET_ID MAYFLY_SECRET_KEY
export MAYFLY_ENDPOINT=http://$listen MAYFLY_DATA=$data

say "what this machine can do: mayfly doctor"
"$mayfly" doctor || true

say "starting the platform on $MAYFLY_ENDPOINT, data in $data"
# Elsewhere than usual, another platform may be at home: the other listeners take any free port.
others=()
[ "$listen" = 127.0.0.1:8700 ] || others=(--objects-listen 127.0.0.1:0 --queues-listen 127.0.0.1:0)
"$mayfly" up --data "$data" --listen "$listen" "${others[@]}" &
platform=$!
trap 'kill $platform 2>/dev/null; wait $platform 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  kill -0 $platform 2>/dev/null || exit 1
  curl -fsS "$MAYFLY_ENDPOINT/healthz" >/dev/null 2>&1 && break
  sleep 0.1
done

# Processes are made ahead of need in the first second; a first call before that would show the start of an interpreter.
for _ in $(seq 50); do
  curl -fsS "$MAYFLY_ENDPOINT/metrics" | grep -qE '^mayfly_instances\{.*(node.*precreated|precreated.*node).*\} [1-9]' && break
  sleep 0.1
done

call() {
  say "$1: deploy"
  "$mayfly" deploy "examples/$1"
  say "$1: first call (cold), then a second one (warm)"
  "$mayfly" invoke "$1" -d "$2" --log
  "$mayfly" invoke "$1" -d "$2" --log
}
call python-hello '{"name":"Mayfly"}'
call node-hello '{"name":"Mayfly"}'
call custom-bash '{"name":"Mayfly"}'

visit() {
  say "$1: deploy"
  "$mayfly" deploy "examples/$1"
  say "$1: $2 (the first visit starts it)"
  for _ in 1 2; do
    curl -sS -w '\n[%{http_code} in %{time_total} s]\n' "${@:3}" "$MAYFLY_ENDPOINT/fn/default/$1/$2"
  done
}
visit python-page 'a/page?who=Mayfly'
visit node-web greet -d who=Mayfly

say "the functions"
"$mayfly" ls

cat <<TEXT

Now try, in another terminal:
  export MAYFLY_ENDPOINT=$MAYFLY_ENDPOINT MAYFLY_DATA=$data PATH=$PWD/target/release:\$PATH
  mayfly deploy examples/python-word-count && mayfly invoke word-count -d '{"text":"to be or not to be"}'
  mayfly publish python-hello -m "first" && mayfly versions python-hello
  mayfly logs python-hello
  mayfly objects buckets mb photos-1250000000 && mayfly trigger bucket python-hello photos-1250000000 && mayfly objects put README.md photos-1250000000/
  mayfly trigger timer python-hello each-minute --cron '0 * * * * * *' --message Mayfly && mayfly logs python-hello -f
  curl -N $MAYFLY_ENDPOINT/fn/default/node-web/clock      # a stream; or http://node-web.default.fn.localhost:${listen##*:}/ in a browser
  curl $MAYFLY_ENDPOINT/metrics
  docs/quick-start.md tells the rest.
TEXT
if [ "${MAYFLY_DEMO_EXIT:-}" = 1 ]; then
  exit 0
fi
echo "The platform runs until you press Ctrl-C."
wait $platform
