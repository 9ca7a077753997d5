#!/bin/bash
# Tencent Cloud's command line, unmodified, through a function's whole life. Run by run.sh: `tccli` is on PATH, the platform's address in MAYFLY_ENDPOINT.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
# tccli keeps its settings and logs in the home folder; this one is ours to fill.
export HOME="$work"
export TENCENTCLOUD_SECRET_ID=$MAYFLY_SECRET_ID TENCENTCLOUD_SECRET_KEY=$MAYFLY_SECRET_KEY TENCENTCLOUD_REGION=ap-guangzhou
name=by-tccli
out="" note=""

# scf ACTION ARGUMENTS...: one call; the answer, or the error's text, is in $out.
scf() { out=$(tccli scf "$@" --endpoint "http://$MAYFLY_ENDPOINT" 2>&1); }
# field EXPRESSION: a value of the answer $out, where `a` is the answer.
field() { python3 -c 'import json,sys; a = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" <<<"$out"; }
# check TITLE FUNCTION ARGUMENTS...: passes when the function does; prints $note, or on failure the last answer.
check() {
  local title=$1 begun
  shift
  begun=$(date +%s%N) note=""
  if "$@"; then
    passed=$((passed + 1))
    printf '  ok   %s%s [%d ms]\n' "$title" "${note:+: $note}" $((($(date +%s%N) - begun) / 1000000))
  else
    failed=$((failed + 1))
    printf '  FAIL %s: %s\n' "$title" "$(tr -s '\n ' ' ' <<<"${note:-}$out" | cut -c1-600)"
  fi
}
# refused CODE ACTION ARGUMENTS...: the call must fail with exactly this code.
refused() {
  local code=$1
  shift
  if scf "$@"; then return 1; fi
  note=$(sed -n 's/.*\[TencentCloudSDKException\] //p' <<<"$out" | sed 's/ requestId:.*//')
  grep -q "code:$code message:" <<<"$out" && grep -Eq "requestId:[0-9a-f-]{36}" <<<"$out"
}
zip_of() { # zip_of TEXT: a package with index.py, base64
  python3 -c 'import base64,io,sys,zipfile
b = io.BytesIO()
with zipfile.ZipFile(b, "w") as z: z.writestr("index.py", sys.argv[1])
print(base64.b64encode(b.getvalue()).decode())' "$1"
}
code() {
  printf '%s\n' 'import json' 'print("module loaded")' 'def main_handler(event, context):' '    print("event", json.dumps(event))' \
    '    if event.get("fail"):' '        raise ValueError("asked to fail")' "    return {\"version\": \"$1\", \"event\": event}"
}
# until_field EXPRESSION WANTED ACTION ARGUMENTS...: repeats the call until the field has this value.
until_field() {
  local expression=$1 wanted=$2 deadline=$((SECONDS + 20))
  shift 2
  while [ $SECONDS -lt $deadline ]; do
    scf "$@" && [ "$(field "$expression" 2>/dev/null)" = "$wanted" ] && return 0
  done
  note="$expression was never $wanted; the last answer: "
  return 1
}
active() { until_field 'a["Status"]' Active GetFunction --FunctionName $name; }
# version_of QUALIFIER: which code answered.
version_of() { scf Invoke --FunctionName $name --Qualifier "$1" --ClientContext '{}' && field 'json.loads(a["Result"]["RetMsg"])["version"]'; }

create() {
  scf CreateFunction --FunctionName $name --Runtime Python3.10 --Handler index.main_handler --MemorySize 128 --Timeout 5 \
    --Environment '{"Variables":[{"Key":"WHO","Value":"tccli"}]}' --Code "{\"ZipFile\":\"$(zip_of "$(code one)")\"}" && active && note="$(field 'a["Status"], a["FunctionId"]')"
}
invoke_function() {
  scf InvokeFunction --FunctionName $name --Event '{"a":1}' --LogType Tail || return 1
  request_id=$(field 'a["Result"]["FunctionRequestId"]')
  note=$(field 'a["Result"]["RetMsg"]')
  [ "$(field 'json.loads(a["Result"]["RetMsg"])["event"]')" = "{'a': 1}" ] && [ "$(field '"module loaded" in a["Result"]["Log"]')" = True ]
}
invoke_fails() {
  scf Invoke --FunctionName $name --ClientContext '{"fail":true}' || return 1
  note=$(field 'a["Result"]["ErrMsg"]')
  [ "$(field 'a["Result"]["InvokeResult"], json.loads(a["Result"]["ErrMsg"])["statusCode"]')" = "(-1, 430)" ]
}
invoke_event() {
  scf Invoke --FunctionName $name --InvocationType Event --ClientContext '{"later":true}' || return 1
  local id
  id=$(field 'a["Result"]["FunctionRequestId"]')
  until_field '[(r["RequestId"], r["RetCode"]) for r in a["Data"]]' "[('$id', 0)]" GetRequestStatus --FunctionName $name --FunctionRequestId "$id" && note=$(field 'a["Data"][0]["RetMsg"]')
}
logs() {
  until_field 'len(a["Data"])' 1 GetFunctionLogs --FunctionName $name --FunctionRequestId "$request_id" --Limit 10 --Offset 0 || return 1
  note=$(field '[l for l in a["Data"][0]["Log"].splitlines() if "Report" in l]')
  [ "$(field 'all(w in a["Data"][0]["Log"] for w in ["START RequestId", "Init Report", "module loaded", "END RequestId"])')" = True ]
}
versions() {
  scf PublishVersion --FunctionName $name --Description first && [ "$(field 'a["FunctionVersion"]')" = 1 ] && active &&
    scf UpdateFunctionCode --FunctionName $name --Handler index.main_handler --ZipFile "$(zip_of "$(code two)")" && active &&
    scf PublishVersion --FunctionName $name --Description second && [ "$(field 'a["FunctionVersion"]')" = 2 ] && active &&
    [ "$(version_of 1) $(version_of 2) $(version_of '$LATEST')" = "one two two" ] &&
    scf ListVersionByFunction --FunctionName $name && note=$(field 'sorted(a["FunctionVersion"])')
}
alias_split() {
  scf CreateAlias --FunctionName $name --Name live --FunctionVersion 1 --RoutingConfig '{"AdditionalVersionWeights":[{"Version":"2","Weight":0.5}]}' || return 1
  # Each call is a Python program of its own, so two run at a time. 30 fair coins all fall on one side once in 5·10^8 runs.
  out=$(seq 30 | xargs -P 2 -I@ tccli scf Invoke --FunctionName $name --Qualifier live --ClientContext '{}' --endpoint "http://$MAYFLY_ENDPOINT" 2>&1)
  local one two
  one=$(grep -c 'version.*one' <<<"$out") two=$(grep -c 'version.*two' <<<"$out")
  note="$one by version 1, $two by version 2"
  [ $((one + two)) = 30 ] && [ "$one" -gt 0 ] && [ "$two" -gt 0 ]
}
rollback() {
  scf UpdateAlias --FunctionName $name --Name live --FunctionVersion 1 --RoutingConfig '{"AdditionalVersionWeights":[]}' || return 1
  local seen=""
  for _ in 1 2 3 4 5 6 7 8; do seen+="$(version_of live) "; done
  note="8 calls: $seen"
  [ "$seen" = "one one one one one one one one " ]
}
listed() {
  scf ListAsyncEvents --FunctionName $name || return 1
  note="$(tr -d '\n' <<<"$out" | cut -c 1-200)"
  grep -q '"TotalCount": 1' <<<"$out" && grep -q '"FINISHED"' <<<"$out"
}
wrong_key() { TENCENTCLOUD_SECRET_KEY=00000000000000000000000000000000 refused AuthFailure.SignatureFailure ListFunctions; }
wrong_id() { TENCENTCLOUD_SECRET_ID=AKIDnobody refused AuthFailure.SecretIdNotFound ListFunctions; }
late() { PYTHONPATH="$here/clock" PYTHONDONTWRITEBYTECODE=1 MAYFLY_CLOCK_SHIFT=-3600 refused AuthFailure.SignatureExpire ListFunctions; }
delete() {
  scf DeleteAlias --FunctionName $name --Name live && scf DeleteFunction --FunctionName $name || return 1
  local deadline=$((SECONDS + 20))
  until refused ResourceNotFound.Function GetFunction --FunctionName $name; do [ $SECONDS -lt $deadline ] || return 1; done
}

printf '\n== tccli %s\n' "$(tccli --version 2>/dev/null | head -n 1)"
check "CreateFunction" create
check "InvokeFunction, LogType Tail" invoke_function
check "a function that raises" invoke_fails
check "Event invoke, then GetRequestStatus" invoke_event
check "GetFunctionLogs by request id" logs
check "PublishVersion, UpdateFunctionCode, PublishVersion" versions
check "CreateAlias, half and half, 30 invokes" alias_split
check "rollback: the alias goes back to version 1 alone" rollback
check "wrong key" wrong_key
check "unknown key id" wrong_id
check "a clock one hour late" late
check "wrong name, GetFunction" refused ResourceNotFound.Function GetFunction --FunctionName nobody
check "wrong name, Invoke" refused ResourceNotFound.Function Invoke --FunctionName nobody
check "wrong value" refused InvalidParameterValue.MemorySize UpdateFunctionConfiguration --FunctionName $name --MemorySize 100
check "an action that is not built" refused InvalidAction PutTotalConcurrencyConfig --TotalConcurrencyMem 128000
check "ListAsyncEvents" listed
check "a package that is not a zip" refused InvalidParameterValue.ZipFile UpdateFunctionCode --FunctionName $name --ZipFile aGVsbG8gd29ybGQ=
check "DeleteAlias, DeleteFunction" delete

printf '%d %d\n' $passed $failed >>"$MAYFLY_TALLY"
[ $failed = 0 ]
