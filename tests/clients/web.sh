#!/bin/bash
# Installs and builds what the web sessions deploy, then runs one of them. Usage: web.sh quick|frameworks|browser|transfers. Run by run.sh.
set -u
. "$(dirname "$0")/lib.sh"
part=$1
failures=0
WEB="$CLIENTS/web"
APPS="$WEB/apps"
NEXT=16.4.3

# python_app NAME: the packages of an app, as `pip install --target` puts them.
python_app() { cached "web-$1" "$(key "$APPS/$1/requirements.txt")" make_vendored "$APPS/$1/requirements.txt"; }
node_app() { cached "web-$1" "$(key "$APPS/$1/package.json")" make_node "$APPS/$1"; }
make_stubs() { "$venv/bin/python" -m grpc_tools.protoc -I "$APPS/grpc" --python_out="$1" --grpc_python_out="$1" demo.proto; }
make_django() { make_vendored "$APPS/django/requirements.txt" "$1" && mkdir "$1/project" && PYTHONPATH="$1" "$SYSTEM_PYTHON" -m django startproject mysite "$1/project"; }
make_go() { (cd "$1" && CGO_ENABLED=0 go build -trimpath -ldflags=-s -o "$2/main" .); }
# go_app NAME: a static binary, `main`.
go_app() { cached "web-$1" "$(key "$APPS/$1"/*.go "$APPS/$1"/go.*)" make_go "$APPS/$1"; }
make_springboot() {
  local build
  build=$(mktemp -d)
  cp -r "$APPS/springboot/." "$build/" && (cd "$build" && mvn --quiet --batch-mode -DskipTests package) && cp "$build"/target/demo-*.jar "$1/app.jar"
  local code=$?
  rm -rf "$build"
  return $code
}
# What create-next-app makes, as `next build` leaves it with the one setting that its page on self-hosting names: a server with only the modules that it needs.
make_next() {
  (cd "$1" && npx --yes "create-next-app@$NEXT" app --js --app --empty --no-tailwind --no-eslint --no-src-dir --use-npm --disable-git --yes) || return 1
  sed -i 's/const nextConfig = {/&\n  output: "standalone",/' "$1/app/next.config.mjs" && cp -r "$APPS/next/app" "$1/app/" || return 1
  (cd "$1/app" && NEXT_TELEMETRY_DISABLED=1 npm run build) || return 1
  mv "$1/app/.next/standalone" "$1/site" && mkdir -p "$1/site/.next" && mv "$1/app/.next/static" "$1/site/.next/static" && rm -rf "$1/app"
}

venv=$(cached web-clients "$(key "$CLIENTS/requirements/web.txt")" make_venv "$CLIENTS/requirements/web.txt") || exit 1
MAYFLY_WEB_STUBS=$(cached web-stubs "$(key "$APPS/grpc/demo.proto" "$CLIENTS/requirements/web.txt")" make_stubs) || failures=1
MAYFLY_WEB_NODE_CLIENTS=$(cached web-node-clients "$(key "$WEB/package.json")" make_node "$WEB") || failures=1
export MAYFLY_WEB_STUBS MAYFLY_WEB_NODE_CLIENTS
next_app() { cached web-next "$( (echo "$NEXT"; declare -f make_next; find "$APPS/next/app" -type f | sort | xargs cat) | sha256sum | cut -c1-12)" make_next; }
# Next.js 16 wants Node.js 20.9.
node_is_new() { node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major === 20 && minor >= 9) ? 0 : 1)'; }
want_next() {
  if node_is_new; then
    declare -gx "MAYFLY_WEB_NEXT=$(next_app)"
  else
    say "  SKIPPED Next.js: Node.js is older than 20.9"
    export MAYFLY_WEB_NEXT=skip
  fi
}
case $part in
  quick)
    for name in flask fastapi grpc websockets; do
      declare -x "MAYFLY_WEB_${name^^}=$(python_app $name)"
    done
    for name in express ws; do
      declare -x "MAYFLY_WEB_${name^^}=$(node_app $name)"
    done
    sessions=${MAYFLY_WEB_ONLY:-quick abuse}
    ;;
  frameworks)
    for name in koa socketio; do
      declare -x "MAYFLY_WEB_${name^^}=$(node_app $name)"
    done
    declare -x "MAYFLY_WEB_DJANGO=$(cached web-django "$(key "$APPS/django/requirements.txt")" make_django)"
    want_next
    # From 1.21 on, Go fetches the version that a module asks for.
    if command -v go >/dev/null && [ "$(go env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')" -ge 21 ]; then
      for name in gin grpcgo; do
        declare -x "MAYFLY_WEB_${name^^}=$(go_app $name)"
      done
    else
      say "  SKIPPED Gin and grpc-go: no Go toolchain from 1.21 on"
      export MAYFLY_WEB_GIN=skip MAYFLY_WEB_GRPCGO=skip
    fi
    if command -v mvn >/dev/null && [ -x /usr/bin/java ]; then
      declare -x "MAYFLY_WEB_SPRINGBOOT=$(cached web-springboot "$(find "$APPS/springboot" -type f | sort | xargs cat | sha256sum | cut -c1-12)" make_springboot)"
    else
      say "  SKIPPED Spring Boot: no Maven or no /usr/bin/java"
      export MAYFLY_WEB_SPRINGBOOT=skip
    fi
    declare -x "MAYFLY_WEB_GRPC=$(python_app grpc)"
    if program=$(rust_program tonic); then
      export MAYFLY_WEB_TONIC=${program%/*}/package
      mkdir -p "$MAYFLY_WEB_TONIC" && cp "$program" "$MAYFLY_WEB_TONIC/main"
    fi
    sessions=frameworks
    ;;
  browser)
    chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome)
    if [ -z "$chromium" ]; then
      say "  FAIL no Chromium: install Debian's package \`chromium\`"
      exit 1
    fi
    export MAYFLY_CHROMIUM=$chromium
    declare -x "MAYFLY_WEB_BROWSER=$(node_app browser)"
    want_next
    sessions=browser
    ;;
  transfers) sessions=transfers ;;
  *) say "usage: $0 quick|frameworks|browser|transfers" >&2; exit 2 ;;
esac
for name in $sessions; do
  PYTHONPATH="$CLIENTS:$MAYFLY_WEB_STUBS" "$venv/bin/python" -B "$WEB/$name.py" || failures=1
done
exit $failures
