#!/usr/bin/env bash
# Installs what building and running Mayfly needs on Debian 12. Sourced by demo.sh and test.sh; safe to run again.
set -euo pipefail

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }

if [ "$(id -u)" != 0 ]; then
  echo "error: run this as root: sandboxes are built from namespaces, control groups and network links" >&2
  exit 1
fi

need_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing Debian packages: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# gcc links the program and builds SQLite; g++, make and the libraries after it are for librdkafka (Kafka triggers); nftables and iproute2 are the network of sandboxes; python3 runs Python functions.
need_packages gcc libc6-dev pkg-config g++ make libssl-dev zlib1g-dev libzstd-dev ca-certificates curl nftables iproute2 python3

# Node.js functions need a node that sandboxes can see, which is one under /usr.
if [ ! -x /usr/bin/node ] && [ ! -x /usr/local/bin/node ]; then
  need_packages nodejs
fi

# PHP and Java functions, and their tests. (Go functions need nothing; their tests and example need a Go of 1.19 or newer.)
if [ ! -x /usr/bin/php ] && [ ! -x /usr/local/bin/php ]; then
  need_packages php-cli
fi
if [ ! -x /usr/bin/javac ] && [ ! -x /usr/local/bin/javac ]; then
  need_packages default-jdk-headless
fi
if ! command -v go >/dev/null 2>&1 && [ ! -x /usr/local/go/bin/go ]; then
  need_packages golang-go
fi

if ! command -v cargo >/dev/null 2>&1 && [ -f "$HOME/.cargo/env" ]; then
  . "$HOME/.cargo/env"
fi
if ! command -v cargo >/dev/null 2>&1; then
  if apt-cache show rustup >/dev/null 2>&1; then
    need_packages rustup
    rustup default stable
  else
    echo "error: Rust 1.90 or newer is needed and no cargo was found; install it with rustup, then run this again" >&2
    exit 1
  fi
fi
