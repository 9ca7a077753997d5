#!/usr/bin/env bash
# Runs Apache Kafka (KRaft mode, one node) from install.sh's jars, in the foreground: after `exec` its process is this one, so it is stopped by this process's id.
# Usage: kafka.sh DIR HOST PORT     DIR holds everything (settings, data, certificate, log); a second start on it finds its data again.
#
# Listeners: HOST:PORT plain, PORT+1 SASL_PLAINTEXT, PORT+2 SASL_SSL (certificate: DIR/ca.pem), PORT+3 the controller's own.
# The user of both SASL listeners is `mayfly`, its password `mayfly-password`; mechanisms PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
# Environment: KAFKA_JARS (folder of the jars), KAFKA_JAVA (further options of the JVM; the default makes it start soon and stay small).
set -euo pipefail
dir=$1 host=$2 port=$3
java=(java -cp "${KAFKA_JARS:?names the folder of the jars: see install.sh}/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true)
# shellcheck disable=SC2206
options=(${KAFKA_JAVA:--Xmx320m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto})
settings=$dir/server.properties

if [ ! -f "$dir/formatted" ]; then
  mkdir -p "$dir/data"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$host" -addext "subjectAltName=IP:$host" \
    -keyout "$dir/key.pem" -out "$dir/ca.pem" 2>/dev/null
  cat "$dir/key.pem" "$dir/ca.pem" >"$dir/server.pem"
  plain='org.apache.kafka.common.security.plain.PlainLoginModule required user_mayfly="mayfly-password";'
  scram='org.apache.kafka.common.security.scram.ScramLoginModule required;'
  cat >"$settings" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$host:$((port + 3))
listeners=PLAIN://$host:$port,SASL://$host:$((port + 1)),TLS://$host:$((port + 2)),CONTROLLER://$host:$((port + 3))
advertised.listeners=PLAIN://$host:$port,SASL://$host:$((port + 1)),TLS://$host:$((port + 2))
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAIN
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl.plain.sasl.jaas.config=$plain
listener.name.tls.plain.sasl.jaas.config=$plain
listener.name.sasl.scram-sha-256.sasl.jaas.config=$scram
listener.name.tls.scram-sha-256.sasl.jaas.config=$scram
listener.name.sasl.scram-sha-512.sasl.jaas.config=$scram
listener.name.tls.scram-sha-512.sasl.jaas.config=$scram
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location=$dir/server.pem
log.dirs=$dir/data
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=3
num.replica.fetchers=1
background.threads=1
log.cleaner.dedupe.buffer.size=4194304
END
  "${java[@]}" "${options[@]}" kafka.tools.StorageTool format --config "$settings" --cluster-id mayflytestsAAAAAAAAAAA --ignore-formatted \
    --add-scram 'SCRAM-SHA-256=[name=mayfly,password=mayfly-password]' --add-scram 'SCRAM-SHA-512=[name=mayfly,password=mayfly-password]'
  touch "$dir/formatted"
fi
exec "${java[@]}" "${options[@]}" kafka.Kafka "$settings"
