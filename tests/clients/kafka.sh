#!/bin/bash
# Kafka triggers as strangers use them: kafka-python and kafkajs send, a function gets it; then the example kafka-stream, from topic to topic.
# Run by run.sh, with the program in $1, the venv of kafka-python in $2, kafkajs' folder in $3, kafka-python for functions in $4, Apache Kafka in $5.
# The broker runs in a network namespace with an address of its own: to functions the host itself is out of reach.
set -u
. "$(dirname "$0")/lib.sh"
bin=$1 venv=$2 modules=$3 vendored=$4 kafka=$5

work=$(mktemp -d "${TMPDIR:-/tmp}/mayfly-kafka.XXXXXX")
name=kafka$$
# Of 10.215.0.0/16, by the process's number; instances have 10.213.0.0/16.
pair=$((($$ % 32768) * 2))
host=10.215.$((pair / 256)).$((pair % 256))
address=10.215.$((pair / 256)).$((pair % 256 + 1))
broker= platform=
stop() {
  for pid in $platform $broker; do kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
  ip netns del "$name" 2>/dev/null
  rm -rf "$work"
}
trap stop EXIT

ip netns add "$name" && ip link add "$name" type veth peer name eth0 netns "$name" && ip addr add "$host/31" dev "$name" && ip link set "$name" up \
  && ip -n "$name" addr add "$address/31" dev eth0 && ip -n "$name" link set lo up && ip -n "$name" link set eth0 up \
  && ip -n "$name" route add default via "$host" || exit 1
mkdir "$work/kafka"
KAFKA_JARS="$kafka/lib" ip netns exec "$name" bash "$REPO/tests/brokers/kafka.sh" "$work/kafka" "$address" 9092 >"$work/kafka.log" 2>&1 &
broker=$!
for _ in $(seq 600); do
  (exec 3<>"/dev/tcp/$address/9092") 2>/dev/null && break
  kill -0 "$broker" 2>/dev/null || { say "the broker ended:"; tail -n 20 "$work/kafka.log"; exit 1; }
  sleep 0.2
done

printf '[kafka.clusters.main]\nbrokers = ["%s:9092"]\n' "$address" >"$work/mayfly.toml"
"$bin" up --config "$work/mayfly.toml" --network-allow "$address/32" --data "$work/data" --listen 127.0.0.1:0 --queues-listen off --objects-listen off \
  --log-level warn >"$work/ready" 2>"$work/platform.log" &
platform=$!
for _ in $(seq 300); do
  MAYFLY_ENDPOINT=$(sed -n 's/.*ready on http:\/\/\([0-9.:]*\).*/\1/p' "$work/ready" | head -n 1)
  [ -n "$MAYFLY_ENDPOINT" ] && break
  kill -0 "$platform" 2>/dev/null || break
  sleep 0.1
done
[ -n "$MAYFLY_ENDPOINT" ] || { say "mayfly up printed no address:"; tail -n 20 "$work/platform.log"; exit 1; }
export MAYFLY_ENDPOINT

# The example as its page says, except that its dependency is put into the package here and not by the platform.
cp -r "$REPO/examples/kafka-stream" "$work/kafka-stream"
cp -r "$vendored/." "$work/kafka-stream/"
rm -rf "$work/kafka-stream/bin" "$work/kafka-stream/.complete"

NODE_PATH="$modules/node_modules" "$venv/bin/python" -B "$CLIENTS/kafka_clients.py" "$bin" "$address:9092" "$work/kafka-stream"
code=$?
if [ $code != 0 ]; then
  say "the end of the platform's log:"
  tail -n 30 "$work/platform.log"
fi
kill -TERM "$platform"
wait "$platform" || code=1
platform=
exit $code
