#!/bin/bash
# Tencent Cloud's command line for TDMQ's CMQ actions, at the API's own address and at the queues'. Run by run.sh: `tccli` is on PATH, the addresses are in
# MAYFLY_ENDPOINT and MAYFLY_QUEUES.
set -u
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
# tccli keeps its settings and logs in the home folder; this one is ours to fill.
export HOME="$work"
export TENCENTCLOUD_SECRET_ID=$MAYFLY_SECRET_ID TENCENTCLOUD_SECRET_KEY=$MAYFLY_SECRET_KEY TENCENTCLOUD_REGION=ap-guangzhou
endpoint=$MAYFLY_ENDPOINT
out=""

tdmq() { out=$(tccli tdmq "$@" --endpoint "http://$endpoint" 2>&1); }
# holds EXPRESSION: true of the answer $out, where `a` is the answer.
holds() { python3 -c 'import json,sys; a = json.load(sys.stdin); sys.exit(not eval(sys.argv[1]))' "$1" <<<"$out" 2>/dev/null; }
# ok TITLE EXPRESSION ACTION ARGUMENTS...: the call succeeds, and the expression holds of its answer.
ok() {
  local title=$1 expression=$2
  shift 2
  if tdmq "$@" && holds "$expression"; then pass "$title"; else fail "$title"; fi
}
# refused CODE ACTION ARGUMENTS...: the call fails with exactly this code.
refused() {
  local code=$1
  shift
  if ! tdmq "$@" && grep -q "code:$code message:" <<<"$out"; then pass "$1 refused: $code"; else fail "$1 refused: $code"; fi
}
pass() { passed=$((passed + 1)); printf '  ok   %s\n' "$1"; }
fail() { failed=$((failed + 1)); printf '  FAIL %s: %s\n' "$1" "$(tr -s '\n ' ' ' <<<"$out" | cut -c1-600)"; }

printf '\n== tccli tdmq at %s and %s\n' "$MAYFLY_ENDPOINT" "$MAYFLY_QUEUES"
ok "CreateCmqQueue" 'a["QueueId"].startswith("queue-")' CreateCmqQueue --QueueName cli-dead
ok "CreateCmqQueue with a dead-letter rule" 'a["QueueId"]' CreateCmqQueue --QueueName cli-queue --VisibilityTimeout 60 --DeadLetterQueueName cli-dead --Policy 0 --MaxReceiveCount 3
refused ResourceInUse.Queue CreateCmqQueue --QueueName cli-queue
ok "DescribeCmqQueueDetail" 'a["QueueDescribe"]["VisibilityTimeout"] == 60 and a["QueueDescribe"]["DeadLetterPolicy"]["MaxReceiveCount"] == 3' DescribeCmqQueueDetail --QueueName cli-queue
ok "ModifyCmqQueueAttribute" 'a["RequestId"]' ModifyCmqQueueAttribute --QueueName cli-queue --RewindSeconds 600
ok "SendCmqMsg" 'a["Result"] and a["MsgId"]' SendCmqMsg --QueueName cli-queue --MsgContent 'hello 你好' --DelaySeconds 0
endpoint=$MAYFLY_QUEUES
ok "DescribeCmqQueues, at the queues' own address" 'a["TotalCount"] == 2 and [q["ActiveMsgNum"] for q in a["QueueList"]] == [0, 1]' DescribeCmqQueues --QueueName cli-
ok "SendCmqMsg, delayed" 'a["MsgId"]' SendCmqMsg --QueueName cli-queue --MsgContent later --DelaySeconds 3600
endpoint=$MAYFLY_ENDPOINT
ok "it is counted as delayed" 'a["QueueDescribe"]["DelayMsgNum"] == 1' DescribeCmqQueueDetail --QueueName cli-queue
ok "CreateCmqTopic" 'a["TopicId"].startswith("topic-")' CreateCmqTopic --TopicName cli-topic
refused FailedOperation.SendMsgFailed PublishCmqMsg --TopicName cli-topic --MsgContent x
ok "CreateCmqSubscribe" 'a["SubscriptionId"]' CreateCmqSubscribe --TopicName cli-topic --SubscriptionName cli-sub --Protocol queue --Endpoint cli-dead --FilterTag '["a"]'
ok "PublishCmqMsg" 'a["Result"] and a["MsgId"]' PublishCmqMsg --TopicName cli-topic --MsgContent tagged --MsgTag '["a","b"]'
refused FailedOperation.SendMsgFailed PublishCmqMsg --TopicName cli-topic --MsgContent x --MsgTag '["b"]'
ok "DescribeCmqSubscriptionDetail" 'a["TotalCount"] == 1 and a["SubscriptionSet"][0]["FilterTags"] == ["a"]' DescribeCmqSubscriptionDetail --TopicName cli-topic
ok "the same by queue" 'a["SubscriptionSet"][0]["TopicName"] == "cli-topic"' DescribeCmqSubscriptionDetail --QueueName cli-dead --QueryType queue
ok "ModifyCmqSubscriptionAttribute" 'True' ModifyCmqSubscriptionAttribute --TopicName cli-topic --SubscriptionName cli-sub --FilterTags '["c"]'
ok "ClearCmqSubscriptionFilterTags" 'True' ClearCmqSubscriptionFilterTags --TopicName cli-topic --SubscriptionName cli-sub
ok "DescribeCmqTopicDetail" 'a["TopicDescribe"]["SubscriptionCount"] == 1' DescribeCmqTopicDetail --TopicName cli-topic
ok "DescribeCmqTopics" 'a["TopicList"][0]["TopicName"] == "cli-topic"' DescribeCmqTopics
ok "ModifyCmqTopicAttribute" 'True' ModifyCmqTopicAttribute --TopicName cli-topic --MaxMsgSize 2048
refused ResourceInUse.Topic DeleteCmqTopic --TopicName cli-topic
refused ResourceInUse.Queue DeleteCmqQueue --QueueName cli-dead
ok "UnbindCmqDeadLetter" 'True' UnbindCmqDeadLetter --SourceQueueName cli-queue
ok "RewindCmqQueue" 'True' RewindCmqQueue --QueueName cli-queue --StartConsumeTime 0
ok "ClearCmqQueue" 'True' ClearCmqQueue --QueueName cli-queue
ok "it is empty" 'a["QueueDescribe"]["ActiveMsgNum"] == 0 and a["QueueDescribe"]["DelayMsgNum"] == 0' DescribeCmqQueueDetail --QueueName cli-queue
ok "DeleteCmqSubscribe" 'True' DeleteCmqSubscribe --TopicName cli-topic --SubscriptionName cli-sub
ok "DeleteCmqTopic" 'True' DeleteCmqTopic --TopicName cli-topic
ok "DeleteCmqQueue" 'True' DeleteCmqQueue --QueueName cli-queue
ok "DeleteCmqQueue" 'True' DeleteCmqQueue --QueueName cli-dead
refused ResourceNotFound SendCmqMsg --QueueName cli-queue --MsgContent x --DelaySeconds 0
refused InvalidParameterValue CreateCmqQueue --QueueName cli-bad --VisibilityTimeout 99999
refused InvalidAction DescribeClusters

printf '%d %d\n' $passed $failed >>"$MAYFLY_TALLY"
[ $failed = 0 ]
