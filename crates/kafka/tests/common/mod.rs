//! A mock cluster with one topic, and a handler that remembers.

use async_trait::async_trait;
use mayfly_base::{Kafka, KafkaCluster, Shutdown};
use mayfly_kafka::{Batch, Clusters, Consumer, Ended, Handler, KafkaError, Lag, Settings, Start, TopicState, Tried};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest wait for anything: a rebalance of the mock takes some seconds by itself.
const PATIENCE: Duration = Duration::from_secs(90);

pub const TOPIC: &str = "orders";

/// How the handler behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    Open,
    /// It takes nothing for the moment.
    Later,
    /// It does not answer.
    Hangs,
    /// It fails on batches with this message, and takes the others.
    FailsOn(usize),
}

struct Seen {
    mood: Mood,
    attempts: usize,
    batches: Vec<Batch>,
    /// Those that were taken, and those that were given up.
    ended: Vec<Batch>,
    given_up: Option<u32>,
}

#[derive(Clone)]
pub struct Memory(Arc<Mutex<Seen>>);

fn messages(batch: &Batch) -> Vec<usize> {
    let event: Value = serde_json::from_slice(&batch.event).expect("an event is JSON");
    let records = event["Records"].as_array().expect("an event has records");
    records.iter().filter_map(|r| r["Ckafka"]["msgBody"].as_str()?.parse().ok()).collect()
}

#[async_trait]
impl Handler for Memory {
    async fn hand(&self, batch: &Batch, tried: Tried, last: bool) -> Ended {
        let mood = {
            let mut seen = self.0.lock();
            seen.attempts += 1;
            seen.mood
        };
        match mood {
            Mood::Later => return Ended::Later("full".into()),
            Mood::Hangs => std::future::pending().await,
            Mood::FailsOn(message) if messages(batch).contains(&message) => {
                if last {
                    let mut seen = self.0.lock();
                    seen.given_up = Some(tried.run_errors);
                    seen.ended.push(batch.clone());
                    return Ended::GivenUp("as always".into());
                }
                return Ended::Failed("as always".into());
            }
            Mood::Open | Mood::FailsOn(_) => {}
        }
        let mut seen = self.0.lock();
        seen.batches.push(batch.clone());
        seen.ended.push(batch.clone());
        Ended::Done
    }
}

pub struct Rig {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub clusters: Clusters,
    partitions: usize,
    producer: FutureProducer,
    memory: Memory,
}

impl Rig {
    pub fn new(partitions: usize) -> Result<Self, Box<dyn std::error::Error>> {
        let cluster = MockCluster::new(1)?;
        cluster.create_topic(TOPIC, i32::try_from(partitions)?, 1)?;
        let properties = [("session.timeout.ms", "4000"), ("heartbeat.interval.ms", "500")];
        let settings = KafkaCluster {
            brokers: vec![cluster.bootstrap_servers()],
            properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..KafkaCluster::default()
        };
        let options = Kafka { clusters: BTreeMap::from([("mock".to_owned(), settings)]) };
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("reconnect.backoff.max.ms", "500")
            .create()?;
        let seen = Seen { mood: Mood::Open, attempts: 0, batches: Vec::new(), ended: Vec::new(), given_up: None };
        Ok(Self {
            clusters: Clusters::new(&options, |_| None)?,
            cluster,
            partitions,
            producer,
            memory: Memory(Arc::new(Mutex::new(seen))),
        })
    }

    pub fn settings(&self) -> Settings {
        Settings {
            topic: TOPIC.into(),
            group: "g".into(),
            start: Start::Earliest,
            messages_max: 100,
            bytes_max: 6 << 20,
            wait: Duration::ZERO,
            retries: 10_000,
        }
    }

    pub fn set(&self, mood: Mood) {
        self.memory.0.lock().mood = mood;
    }

    /// Messages that are numbers, one after the other, in turn to every partition.
    pub async fn produce(&self, numbers: Range<usize>) -> Result<(), Box<dyn std::error::Error>> {
        for number in numbers {
            let text = number.to_string();
            let partition = i32::try_from(number % self.partitions)?;
            let record = FutureRecord::to(TOPIC).partition(partition).key(&text).payload(&text);
            self.producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    pub fn join(&self, settings: Settings) -> Member {
        let cluster = self.clusters.get("mock").expect("the rig has it").clone();
        let consumer = Arc::new(Consumer::new(cluster, settings, Arc::new(self.memory.clone())));
        let (stop, running) = (Shutdown::new(), Arc::clone(&consumer));
        let own = stop.clone();
        Member { consumer, stop, task: tokio::spawn(async move { running.run(&own).await }) }
    }

    /// What a look at the topic finds.
    pub async fn topic(&self) -> TopicState {
        self.clusters.get("mock").expect("the rig has it").topic(TOPIC).await
    }

    /// The messages that arrived, once each.
    pub fn seen(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.memory.0.lock().batches.iter().flat_map(messages).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// How many messages were handed over, each as often as it was.
    pub fn handed(&self) -> usize {
        self.memory.0.lock().batches.iter().map(|batch| batch.messages as usize).sum()
    }

    pub fn batches(&self) -> Vec<Batch> {
        self.memory.0.lock().batches.clone()
    }

    pub fn attempts(&self) -> usize {
        self.memory.0.lock().attempts
    }

    pub fn run_errors_before_the_end(&self) -> Option<u32> {
        self.memory.0.lock().given_up
    }

    /// True when what each partition brought came to its end in order and without a gap. What comes again begins where the group stood.
    pub fn in_order(&self) -> bool {
        let mut stands: BTreeMap<i32, i64> = BTreeMap::new();
        self.memory.0.lock().ended.iter().all(|batch| {
            let stand = stands.entry(batch.partition).or_default();
            let follows = batch.first <= *stand;
            *stand = batch.next.max(*stand);
            follows && messages(batch).windows(2).all(|pair| pair[0] < pair[1])
        })
    }

    /// What the group has committed, of all partitions together.
    pub fn committed(&self) -> i64 {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "g")
            .create()
            .expect("a client can be made");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(TOPIC, 0, i32::try_from(self.partitions).expect("few partitions") - 1);
        let Ok(list) = client.committed_offsets(list, Duration::from_secs(5)) else { return -1 };
        let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        list.elements().iter().map(|element| offset(element.offset())).sum()
    }
}

/// A member of the group.
pub struct Member {
    consumer: Arc<Consumer>,
    stop: Shutdown,
    task: JoinHandle<Result<(), KafkaError>>,
}

impl Member {
    pub fn lag(&self) -> Lag {
        self.consumer.lag()
    }

    pub fn is_settled(&self) -> bool {
        self.consumer.is_settled()
    }

    pub fn partitions(&self) -> usize {
        self.consumer.partitions()
    }

    pub fn ended(&self) -> bool {
        self.task.is_finished()
    }

    pub async fn stop(self) {
        self.stop.trigger();
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("it stops when it is told to");
        ended.expect("it does not break").expect("it ends in order");
    }

    /// As `kill -9` does: at no moment of its choice.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}
