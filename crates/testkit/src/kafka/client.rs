//! What tests do with a broker: make topics, send, read, and ask how far a group has come. Over rdkafka, without any protection.

use super::Broker;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a call may take, and a message until it is acknowledged, through restarts of the broker.
const PATIENCE: Duration = Duration::from_secs(300);

/// A message as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// Its key.
    pub key: Option<String>,
    /// What it holds.
    pub body: String,
}

impl Broker {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address()).set("client.id", "mayfly-testkit");
        config
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let admin: AdminClient<DefaultClientContext> = self.client().create().expect("a client of the broker");
            let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
            let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
            let made = admin.create_topics([&topic], &options).await.expect("the broker answers");
            made.into_iter().for_each(|one| drop(one.expect("the topic can be made")));
        });
    }

    /// Something that sends.
    pub fn sender(&self) -> Sender {
        let acknowledged = Arc::new(Acknowledged::default());
        let mut config = self.client();
        // In order and once each, whatever happens to the broker.
        config.set("enable.idempotence", "true").set("message.timeout.ms", PATIENCE.as_millis().to_string());
        config.set("linger.ms", "2").set("queue.buffering.max.messages", "200000");
        let producer = config.create_with_context(Counting(acknowledged.clone())).expect("a producer");
        Sender { producer, acknowledged, sent: 0 }
    }

    /// Reads all of a topic that there is now, in order within each partition.
    pub fn read(&self, topic: &str) -> Vec<Message> {
        let consumer: BaseConsumer = self.client().set("group.id", "mayfly-testkit-reader").create().expect("a reader");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("the broker answers");
        let mut all = Vec::new();
        for partition in metadata.topics().iter().flat_map(|t| t.partitions()) {
            let marks = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).expect("the broker answers");
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition.id(), Offset::Offset(marks.0)).expect("an offset");
            consumer.assign(&list).expect("it can be read");
            let (mut next, begun) = (marks.0, Instant::now());
            while next < marks.1 {
                assert!(begun.elapsed() < PATIENCE, "{topic} cannot be read to its end");
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
                next = message.offset() + 1;
                all.push(read(&message));
            }
        }
        all
    }

    /// The places up to which a group has committed, by partition; -1 where it has nothing.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<i64> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().expect("a reader");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("the broker answers");
        let mut list = TopicPartitionList::new();
        let mut ids: Vec<i32> = metadata.topics().iter().flat_map(|t| t.partitions()).map(|p| p.id()).collect();
        ids.sort_unstable();
        for id in ids {
            list.add_partition(topic, id);
        }
        let list = consumer.committed_offsets(list, PATIENCE).expect("the broker answers");
        list.elements().iter().map(|e| e.offset().to_raw().filter(|o| *o >= 0).unwrap_or(-1)).collect()
    }
}

fn read(message: &BorrowedMessage<'_>) -> Message {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Message {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(text),
        body: message.payload().map(text).unwrap_or_default(),
    }
}

/// How many messages the broker has acknowledged, and how many it never will.
#[derive(Default)]
struct Acknowledged {
    good: AtomicUsize,
    bad: AtomicUsize,
}

struct Counting(Arc<Acknowledged>);

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.0.good } else { &self.0.bad };
        count.fetch_add(1, Ordering::Release);
    }
}

/// Sends messages, each once and in order, through restarts of the broker.
pub struct Sender {
    producer: ThreadedProducer<Counting>,
    acknowledged: Arc<Acknowledged>,
    sent: usize,
}

impl Sender {
    /// Hands a message over; waits while too many are on the way.
    pub fn send(&mut self, topic: &str, partition: i32, key: Option<&[u8]>, body: &[u8]) {
        self.sent += 1;
        let begun = Instant::now();
        let mut record = BaseRecord::<[u8], [u8], ()>::to(topic).partition(partition).payload(body);
        record.key = key;
        while let Err((error, back)) = self.producer.send(record) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            assert!(full && begun.elapsed() < PATIENCE, "{error}");
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How many messages the broker has acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.good.load(Ordering::Acquire)
    }

    /// Waits until the broker has acknowledged everything.
    pub fn flush(&self) {
        self.producer.flush(PATIENCE).expect("everything is sent");
        assert_eq!(self.acknowledged.bad.load(Ordering::Acquire), 0, "messages were given up");
        assert_eq!(self.acknowledged(), self.sent);
    }
}
