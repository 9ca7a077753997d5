#!/bin/bash
# Builds what runtimes.py deploys: vendored runtime clients and two Rust programs. Usage: runtimes.sh PYTHON (one that has the Tencent SDK). Run by run.sh.
set -u
. "$(dirname "$0")/lib.sh"
failures=0
export MAYFLY_AWSLAMBDARIC='' MAYFLY_NODE_RIC='' MAYFLY_LAMBDA_RUNTIME='' MAYFLY_TENCENT_SCF=''
MAYFLY_AWSLAMBDARIC=$(awslambdaric) || failures=1
MAYFLY_LAMBDA_RUNTIME=$(rust_program lambda) || failures=1
MAYFLY_TENCENT_SCF=$(rust_program tencent) || failures=1
if [ "${MAYFLY_SKIP_SLOW:-}" = 1 ]; then
  MAYFLY_NODE_RIC=skip
else
  MAYFLY_NODE_RIC=$(node_ric) || failures=1
fi
"$1" -B "$CLIENTS/runtimes.py"
code=$?
[ $failures = 0 ] && exit $code
exit 1
