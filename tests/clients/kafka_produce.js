// kafkajs, unmodified, as a producer. Arguments: broker, topic, how many messages.
const { Kafka, logLevel, CompressionTypes } = require('kafkajs');

async function main() {
  const [broker, topic, count] = process.argv.slice(2);
  const producer = new Kafka({ clientId: 'kafkajs', brokers: [broker], logLevel: logLevel.ERROR }).producer();
  await producer.connect();
  const messages = Array.from({ length: Number(count) }, (_, n) => ({ key: `k${n % 7}`, value: `kafkajs ${n}`, headers: { from: 'kafkajs' } }));
  for (let at = 0; at < messages.length; at += 50) {
    await producer.send({ topic, acks: -1, compression: CompressionTypes.GZIP, messages: messages.slice(at, at + 50) });
  }
  await producer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
