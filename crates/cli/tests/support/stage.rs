//! A platform beside a Kafka broker, with functions whose triggers read its topics and tell a sink what they were called with.

// Each test binary takes the part that it needs.
#![allow(dead_code)]

use crate::outside::{Handled, REPORTER, Sink};
use mayfly_testkit::kafka::Broker;
use mayfly_testkit::{Client, Platform, Setup};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long a part of a test may take on a busy machine; brokers take their time.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// What a platform is started on, again and again.
pub struct Stage {
    /// What functions tell.
    pub sink: Sink,
    /// Its data directory, and its configuration file.
    pub data: tempfile::TempDir,
    arguments: Vec<String>,
}

/// The settings of a cluster `main` at this address. A member of a group that was killed is missed soon.
pub fn cluster(address: &str) -> String {
    format!(
        "[kafka.clusters.main]\nbrokers = [\"{address}\"]\nproperties = {{ \"session.timeout.ms\" = \"3000\", \"heartbeat.interval.ms\" = \"500\" }}\n"
    )
}

impl Stage {
    /// With a cluster `main`.
    pub fn of(broker: &Broker) -> Self {
        Self::with(&cluster(&broker.address()))
    }

    /// With this configuration file.
    pub fn with(config: &str) -> Self {
        let (sink, data) = (Sink::new(), tempfile::tempdir().unwrap());
        std::fs::write(data.path().join("mayfly.toml"), config).unwrap();
        Self { sink, data, arguments: Vec::new() }
    }

    /// With further arguments of `mayfly up`.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|a| (*a).to_owned()));
        self
    }

    /// The program: a release build where the environment names one, for long runs.
    pub fn program() -> PathBuf {
        std::env::var_os("MAYFLY_BIN").map_or_else(|| env!("CARGO_BIN_EXE_mayfly").into(), PathBuf::from)
    }

    /// Starts the platform, or starts it again.
    pub fn start(&self) -> Platform {
        let (config, block) = (self.data.path().join("mayfly.toml"), self.sink.block());
        let fixed = ["--config", config.to_str().unwrap(), "--network-allow", &block];
        let more: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let data = self.data.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        Setup::new(Self::program()).data(&data).arguments(&fixed).arguments(&more).start()
    }

    /// Creates a function that tells the sink.
    pub fn create(&self, platform: &Client, name: &str) {
        let variables = json!({ "Variables": [{ "Key": "SINK", "Value": self.sink.address() }] });
        let more = json!({ "MemorySize": 64, "Timeout": 60, "Environment": variables });
        platform.create(name, "Python3.9", "index.main_handler", &[("index.py", REPORTER)], more);
    }

    /// What was handled of a topic's messages, by partition, in the order of the first time: their offsets.
    pub fn first_order(&self) -> BTreeMap<i32, Vec<i64>> {
        let mut order: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        let mut seen = std::collections::HashSet::new();
        for Handled { partition, offset, .. } in self.sink.handled() {
            if seen.insert((partition, offset)) {
                order.entry(partition).or_default().push(offset);
            }
        }
        order
    }

    /// The bodies that were handled, in order.
    pub fn bodies(&self) -> Vec<String> {
        self.sink.handled().into_iter().map(|m| m.body).collect()
    }
}

/// The trigger of a function on a topic of `main`.
pub fn trigger(function: &str, topic: &str, desc: Value) -> Value {
    json!({ "FunctionName": function, "TriggerName": format!("main-{topic}"), "Type": "ckafka", "TriggerDesc": desc.to_string(),
        "Enable": "OPEN", "Qualifier": "$DEFAULT" })
}

/// Waits until `holds`, or panics with what it says.
#[track_caller]
pub fn wait(holds: impl FnMut() -> Result<(), String>) {
    wait_for(PATIENCE, holds);
}

/// The same, for so long.
#[track_caller]
pub fn wait_for(patience: Duration, mut holds: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + patience;
    while let Err(why) = holds() {
        assert!(Instant::now() < deadline, "not in time: {why}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Equal, or what there is.
pub fn is<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found:?} instead of {wanted:?}")) }
}

/// The command line, on a platform.
pub fn mayfly(platform: &Platform, arguments: &[&str]) -> Output {
    Command::new(Stage::program())
        .args(arguments)
        .env("MAYFLY_ENDPOINT", format!("http://{}", platform.address))
        .env("MAYFLY_SECRET_ID", mayfly_testkit::SECRET_ID)
        .env("MAYFLY_SECRET_KEY", mayfly_testkit::SECRET_KEY)
        .output()
        .unwrap()
}

/// What it printed; it must have ended well.
#[track_caller]
pub fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}
