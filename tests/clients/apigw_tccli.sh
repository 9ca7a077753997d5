#!/bin/bash
# Tencent Cloud's command line for API Gateway. Run by run.sh: `tccli` is on PATH, the address is in MAYFLY_ENDPOINT.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
# tccli keeps its settings and logs in the home folder; this one is ours to fill.
export HOME="$work"
export TENCENTCLOUD_SECRET_ID=$MAYFLY_SECRET_ID TENCENTCLOUD_SECRET_KEY=$MAYFLY_SECRET_KEY TENCENTCLOUD_REGION=ap-guangzhou
out=""

gateway() { out=$(tccli apigateway "$@" --endpoint "http://$MAYFLY_ENDPOINT" 2>&1); }
# holds EXPRESSION: true of the answer $out, where `a` is the answer.
holds() { python3 -c 'import json,sys; a = json.load(sys.stdin); sys.exit(not eval(sys.argv[1]))' "$1" <<<"$out" 2>/dev/null; }
# field EXPRESSION: a part of the answer.
field() { python3 -c 'import json,sys; a = json.load(sys.stdin); print(eval(sys.argv[1]))' "$1" <<<"$out" 2>/dev/null; }
# ok EXPRESSION ACTION ARGUMENTS...: the call succeeds, and the expression holds of its answer.
ok() {
  local expression=$1
  shift
  if gateway "$@" && holds "$expression"; then pass "$1"; else fail "$1"; fi
}
# refused CODE ACTION ARGUMENTS...: the call fails with exactly this code.
refused() {
  local code=$1
  shift
  if ! gateway "$@" && grep -q "code:$code message:" <<<"$out"; then pass "$1 refused: $code"; else fail "$1 refused: $code"; fi
}
pass() { passed=$((passed + 1)); printf '  ok   %s\n' "$1"; }
fail() { failed=$((failed + 1)); printf '  FAIL %s: %s\n' "$1" "$(tr -s '\n ' ' ' <<<"$out" | cut -c1-600)"; }

printf '\n== tccli apigateway at %s\n' "$MAYFLY_ENDPOINT"
ok 'a["ServiceId"].startswith("service-")' CreateService --ServiceName cli --Protocol 'http&https'
service=$(field 'a["ServiceId"]')
ok 'True' ModifyService --ServiceId "$service" --ServiceDesc "by tccli"
ok 'a["ServiceDesc"] == "by tccli" and a["ApiTotalCount"] == 0' DescribeService --ServiceId "$service"
ok 'a["Result"]["Method"] == "GET"' CreateApi --ServiceId "$service" --ServiceType MOCK --Protocol HTTP --ServiceTimeout 5 --RequestConfig '{"Path":"/mock","Method":"GET"}' --ServiceMockReturnMessage mocked --ResponseType TEXT
api=$(field 'a["Result"]["ApiId"]')
refused InvalidParameterValue.InvalidApiRequestConfig CreateApi --ServiceId "$service" --ServiceType MOCK --Protocol HTTP --ServiceTimeout 5 --RequestConfig '{"Path":"/mock","Method":"GET"}' --ServiceMockReturnMessage mocked
refused InvalidParameterValue.InvalidScfConfig CreateApi --ServiceId "$service" --ServiceType SCF --Protocol HTTP --ServiceTimeout 5 --RequestConfig '{"Path":"/f","Method":"GET"}' --ServiceScfFunctionName nobody
ok 'a["Result"]["ServiceMockReturnMessage"] == "mocked"' DescribeApi --ServiceId "$service" --ApiId "$api"
ok 'a["Result"]["TotalCount"] == 1' DescribeApisStatus --ServiceId "$service"
ok 'a["Result"]["ReleaseVersion"]' ReleaseService --ServiceId "$service" --EnvironmentName release --ReleaseDesc first
version=$(field 'a["Result"]["ReleaseVersion"]')
out=$(curl -sS "http://$MAYFLY_ENDPOINT/apigw/$service/release/mock" 2>&1)
if [ "$out" = mocked ]; then pass "a request is answered"; else fail "a request is answered"; fi
ok 'a["Result"]["VersionList"][0]["VersionDesc"] == "first"' DescribeServiceReleaseVersion --ServiceId "$service"
ok 'a["Result"]["TotalCount"] == 1' DescribeServiceEnvironmentReleaseHistory --ServiceId "$service" --EnvironmentName release
ok 'a["Result"]' UpdateService --ServiceId "$service" --EnvironmentName test --VersionName "$version" --UpdateDesc again
ok 'len([e for e in a["Result"]["EnvironmentList"] if e["Status"] == 1]) == 2' DescribeServiceEnvironmentList --ServiceId "$service"
ok 'a["Result"]' ModifyServiceEnvironmentStrategy --ServiceId "$service" --Strategy 500 --EnvironmentNames '["release"]'
ok 'any(e["Strategy"] == 500 for e in a["Result"]["EnvironmentList"])' DescribeServiceEnvironmentStrategy --ServiceId "$service"
ok 'a["Result"]' ModifyApiEnvironmentStrategy --ServiceId "$service" --Strategy 100 --EnvironmentName release --ApiIds "[\"$api\"]"
ok 'a["Result"]["ApiEnvironmentStrategySet"][0]["EnvironmentStrategySet"][0]["Quota"] == 100' DescribeApiEnvironmentStrategy --ServiceId "$service" --ApiId "$api" --EnvironmentNames '["release"]'
ok 'a["Result"]["AccessKeySecret"] == "cli_secret_0123"' CreateApiKey --SecretName cli --AccessKeyType manual --AccessKeyId cli_key --AccessKeySecret cli_secret_0123
refused FailedOperation.AccessKeyExist CreateApiKey --SecretName cli --AccessKeyType manual --AccessKeyId cli_key --AccessKeySecret cli_secret_0123
ok 'a["Result"]["ApiKeySet"][0]["AccessKeyId"] == "cli_key"' DescribeApiKeysStatus --Filters '[{"Name":"SecretName","Values":["cli"]}]'
ok 'a["Result"]["UsagePlanId"]' CreateUsagePlan --UsagePlanName cli --MaxRequestNumPreSec 10
plan=$(field 'a["Result"]["UsagePlanId"]')
ok 'a["Result"]["MaxRequestNum"] == 1000' ModifyUsagePlan --UsagePlanId "$plan" --MaxRequestNum 1000
ok 'a["Result"]' BindSecretIds --UsagePlanId "$plan" --AccessKeyIds '["cli_key"]'
ok 'a["Result"]' BindEnvironment --UsagePlanIds "[\"$plan\"]" --BindType SERVICE --Environment release --ServiceId "$service"
ok 'a["Result"]["EnvironmentList"][0]["ServiceId"]' DescribeUsagePlanEnvironments --UsagePlanId "$plan" --BindType SERVICE
ok 'a["Result"]["AccessKeyList"][0]["SecretName"] == "cli"' DescribeUsagePlanSecretIds --UsagePlanId "$plan"
ok 'a["Result"]["TotalCount"] == 1' DescribeServiceUsagePlan --ServiceId "$service"
ok 'a["Result"]["TotalCount"] >= 1' DescribeUsagePlansStatus
refused UnsupportedOperation.UsagePlanInUse DeleteUsagePlan --UsagePlanId "$plan"
ok 'a["Result"]' UnBindEnvironment --UsagePlanIds "[\"$plan\"]" --BindType SERVICE --Environment release --ServiceId "$service"
ok 'a["Result"]' UnBindSecretIds --UsagePlanId "$plan" --AccessKeyIds '["cli_key"]'
ok 'a["Result"]' DeleteUsagePlan --UsagePlanId "$plan"
refused UnsupportedOperation.InvalidStatus DeleteApiKey --AccessKeyId cli_key
ok 'a["Result"]' DisableApiKey --AccessKeyId cli_key
ok 'a["Result"]' DeleteApiKey --AccessKeyId cli_key
refused UnsupportedOperation.ExistingOnlineEnvironment DeleteService --ServiceId "$service"
ok 'a["Result"]' DeleteApi --ServiceId "$service" --ApiId "$api"
ok 'a["Result"]' UnReleaseService --ServiceId "$service" --EnvironmentName release
ok 'a["Result"]' UnReleaseService --ServiceId "$service" --EnvironmentName test
ok 'a["Result"]' DeleteService --ServiceId "$service"
refused ResourceNotFound.InvalidService DescribeService --ServiceId "$service"
refused InvalidAction DescribePlugins

printf '%d %d\n' $passed $failed >>"$MAYFLY_TALLY"
[ $failed = 0 ]
