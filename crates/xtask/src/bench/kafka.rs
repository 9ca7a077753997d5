//! Messages a second from a Kafka topic through a Python function to their commit, beside a bare consumer of the same topic.

use super::{Bench, Line};
use anyhow::{Result, bail};
use mayfly_testkit::kafka::Broker;
use mayfly_testkit::{Client, Platform};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::json;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 4;
/// Length of a message, in bytes.
const BODY: usize = 100;
/// How long the first messages may take to come: instances start, the group is joined.
const PATIENCE: Duration = Duration::from_secs(120);
/// Looks at each message, as the least that a function does.
const CODE: &str = "def main_handler(event, context):\n    return sum(len(record['Ckafka']['msgBody']) for record in event['Records'])\n";

/// Messages of triggers that functions have dealt with.
fn handed(client: &Client) -> u64 {
    let name = "mayfly_trigger_events_total{result=\"handed\"} ";
    let (_, text) = client.get("/metrics");
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

/// Messages a second from the first that are seen, until `all` are or the time is over.
fn rate(all: u64, longest: Duration, mut seen: impl FnMut() -> u64) -> Result<f64> {
    let begun = Instant::now();
    let before = loop {
        match seen() {
            0 if begun.elapsed() > PATIENCE => bail!("no message came"),
            0 => {}
            n => break n,
        }
    };
    let begun = Instant::now();
    loop {
        let now = seen();
        let took = begun.elapsed();
        if now >= all || took >= longest {
            return Ok((now - before) as f64 / took.as_secs_f64());
        }
    }
}

impl Bench {
    pub(super) fn kafka(&mut self) -> Result<()> {
        let Some(broker) = Broker::apache() else {
            eprintln!("Apache Kafka is not installed (tests/brokers/install.sh): triggers of it are not measured");
            return Ok(());
        };
        let (messages, longest) = if self.quick { (300_000, 3) } else { (1_500_000, 10) };
        let longest = Duration::from_secs(longest);
        broker.create_topic("bench", PARTITIONS);
        let mut sender = broker.sender();
        let body = [b'x'; BODY];
        for n in 0..messages {
            sender.send("bench", n as i32 % PARTITIONS, None, &body);
        }
        sender.flush();

        // Of each the best of some rounds, in turn.
        let batches = [(1, "Kafka → Python function → commit, batches of 1"), (100, "the same, batches of 100")];
        let (mut best, mut ours) = (0.0f64, [0.0f64; 2]);
        for round in 0..self.rounds(3) {
            best = best.max(bare(&broker, &format!("bare-{round}"), messages, longest)?);
            for (best, (batch, _)) in ours.iter_mut().zip(batches) {
                let group = format!("ours-{round}-{batch}");
                *best = best.max(self.triggered(&broker, &group, batch, messages, longest)?);
            }
        }
        for (ours, (batch, name)) in ours.into_iter().zip(batches) {
            self.lines.push(Line {
                name,
                measured: format!("{ours:.0} messages/s"),
                baseline: format!("bare rdkafka consumer: {best:.0} messages/s"),
                ratio: Some(ours / best),
                target: if batch == 100 { "≥ 50,000/s" } else { "–" },
                met: (batch == 100).then_some(ours >= 50_000.0),
                data: json!({ "batch": batch, "per_second": ours, "bare_per_second": best, "partitions": PARTITIONS, "bytes": BODY }),
            });
        }
        Ok(())
    }

    /// Of a platform with one function and its trigger.
    fn triggered(&self, broker: &Broker, group: &str, batch: u64, messages: u64, longest: Duration) -> Result<f64> {
        let platform: Platform = self.rested(&["--kafka", &format!("main={}", broker.address())]);
        let more = json!({ "MemorySize": 256, "Timeout": 30 });
        platform.create("take", "Python3.9", "index.main_handler", &[("index.py", CODE)], more);
        let desc = json!({ "maxMsgNum": batch, "offset": "earliest", "consumerGroupName": group });
        platform.must(
            "CreateTrigger",
            json!({ "FunctionName": "take", "TriggerName": "main-bench", "Type": "ckafka", "TriggerDesc": desc.to_string(), "Enable": "OPEN" }),
        );
        let seen = || {
            std::thread::sleep(Duration::from_millis(20));
            handed(&platform)
        };
        let rate = rate(messages, longest, seen)?;
        let handed = handed(&platform) as i64;
        // What was counted is committed, or will be in a moment.
        let committed = || broker.committed(group, "bench").iter().map(|n| (*n).max(0)).sum::<i64>();
        mayfly_testkit::eventually("what was handed over is committed", || committed() >= handed);
        Ok(rate)
    }
}

/// A consumer that only counts, with the library's own settings.
fn bare(broker: &Broker, group: &str, messages: u64, longest: Duration) -> Result<f64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address()).set("group.id", group).set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create()?;
    consumer.subscribe(&["bench"])?;
    let mut count = 0;
    rate(messages, longest, || {
        // The clock is not looked at for each message.
        for _ in 0..1000 {
            match consumer.poll(Duration::from_millis(100)) {
                Some(message) => count += u64::from(message.is_ok()),
                None => break,
            }
        }
        count
    })
}
