//! Triggers that hand events to functions: what is stored of them, and the forms of their `TriggerDesc`.
//!
//! Source of names, forms and limits: SCF's `CreateTrigger` and its pages on triggers. A function's URL (`http`) is a
//! [`UrlConfig`](crate::UrlConfig): it hands over no events.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TriggerKind {
    /// A schedule.
    Timer,
    /// A bucket of the object store.
    Cos,
    /// A topic of the message queue.
    Cmq,
    /// A topic of a Kafka cluster.
    Ckafka,
}

impl TriggerKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Timer, Self::Cos, Self::Cmq, Self::Ckafka];

    /// As the API writes it (`Type`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Cos => "cos",
            Self::Cmq => "cmq",
            Self::Ckafka => "ckafka",
        }
    }

    /// Reads a `Type`; the case does not matter. `None`: it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for TriggerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A trigger of a function, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerConfig {
    /// Tells it from every other trigger there is or was; never shown for anything but that.
    pub id: String,
    /// Its name: chosen by the user, or what the kind says (a bucket's host, a topic).
    pub name: String,
    /// What it listens to, and how.
    pub desc: TriggerDesc,
    /// The version or alias that gets the events.
    pub qualifier: String,
    /// False: nothing is handed over (`CLOSE`).
    pub enabled: bool,
    /// Text of the user's (`CustomArgument`): the message of a timer's events.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub argument: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was created, in milliseconds since the epoch.
    pub add_time_ms: u64,
    /// When it was last changed, in milliseconds since the epoch.
    pub mod_time_ms: u64,
}

impl TriggerConfig {
    /// What events come from.
    pub fn kind(&self) -> TriggerKind {
        self.desc.kind()
    }
}

/// What a trigger listens to (`TriggerDesc`), by kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TriggerDesc {
    /// A schedule.
    Timer(TimerDesc),
    /// Changes of a bucket's objects.
    Cos(CosDesc),
    /// Messages of a topic.
    Cmq(CmqDesc),
    /// Messages of a topic of a Kafka cluster.
    Ckafka(CkafkaDesc),
}

impl TriggerDesc {
    /// What events come from.
    pub fn kind(&self) -> TriggerKind {
        match self {
            Self::Timer(_) => TriggerKind::Timer,
            Self::Cos(_) => TriggerKind::Cos,
            Self::Cmq(_) => TriggerKind::Cmq,
            Self::Ckafka(_) => TriggerKind::Ckafka,
        }
    }

    /// The JSON text that clients are shown.
    pub fn show(&self) -> String {
        let shown = match self {
            Self::Timer(desc) => serde_json::to_string(desc),
            Self::Cos(desc) => serde_json::to_string(desc),
            Self::Cmq(desc) => serde_json::to_string(desc),
            Self::Ckafka(desc) => serde_json::to_string(desc),
        };
        shown.unwrap_or_default()
    }
}

/// When a timer fires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerDesc {
    /// Seven fields: `second minute hour day month weekday year`.
    pub cron: String,
    /// The time zone that the fields are meant in, such as `Asia/Shanghai`; empty: the platform's. Ours.
    #[serde(default, rename = "timeZone", skip_serializing_if = "String::is_empty")]
    pub time_zone: String,
}

/// Which changes of a bucket are handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosDesc {
    /// Such as `cos:ObjectCreated:*`; one of [`COS_EVENTS`].
    pub event: String,
    /// Of which objects.
    #[serde(default)]
    pub filter: CosFilter,
}

/// Names of objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct CosFilter {
    /// What the key begins with.
    pub prefix: String,
    /// What it ends in.
    pub suffix: String,
}

/// What a `cos` trigger may listen to; `*` stands for all of a kind.
pub const COS_EVENTS: [&str; 8] = [
    "cos:ObjectCreated:*",
    "cos:ObjectCreated:Put",
    "cos:ObjectCreated:Post",
    "cos:ObjectCreated:Copy",
    "cos:ObjectCreated:CompleteMultipartUpload",
    "cos:ObjectRemove:*",
    "cos:ObjectRemove:Delete",
    "cos:ObjectRemove:DeleteMarkerCreated",
];

/// The bucket that a `cos` trigger's name means: the host of a bucket (`b-125.cos.ap-x.myqcloud.com`), or the bucket's name itself.
pub fn bucket_of(name: &str) -> &str {
    name.split_once(".cos.").map_or(name, |(bucket, _)| bucket)
}

impl CosDesc {
    /// True when a change called `event` of the object `key` is wanted.
    pub fn wants(&self, event: &str, key: &str) -> bool {
        let named = match self.event.strip_suffix('*') {
            Some(kind) => event.starts_with(kind),
            None => event == self.event,
        };
        named && key.starts_with(&self.filter.prefix) && key.ends_with(&self.filter.suffix)
    }

    /// True when some change could be wanted by both: the store hands each change of a bucket to one function (`CosNotifyRuleConflict`).
    pub fn overlaps(&self, other: &Self) -> bool {
        let kind = |desc: &Self| desc.event.trim_end_matches('*').to_owned();
        let either = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
        let ends = |a: &str, b: &str| a.ends_with(b) || b.ends_with(a);
        either(&kind(self), &kind(other))
            && either(&self.filter.prefix, &other.filter.prefix)
            && ends(&self.filter.suffix, &other.filter.suffix)
    }
}

/// Which messages of a topic are handed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CmqDesc {
    /// 1: by tag; 2: by binding key.
    pub filter_type: u8,
    /// Tags or binding keys; none: all messages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filter_key: Vec<String>,
}

/// How messages of a Kafka topic are handed over. Clients send its numbers as numbers and as texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CkafkaDesc {
    /// Most messages in one event.
    #[serde(deserialize_with = "number")]
    pub max_msg_num: u32,
    /// Where a consumer group begins that has no offsets yet.
    pub offset: KafkaStart,
    /// How often messages are handed over again after the function failed on them.
    #[serde(deserialize_with = "number")]
    pub retry: u32,
    /// How long an event may wait to be full, in seconds; 0: what is there is handed over as soon as the function is free.
    #[serde(deserialize_with = "number", alias = "timeout")]
    pub time_out: u32,
    /// The consumer group; empty: one of the trigger's own.
    pub consumer_group_name: String,
}

/// Most messages of an event (`maxMsgNum`). Source: SCF's page on CKafka triggers.
pub const KAFKA_MESSAGES_MAX: u32 = 10_000;
/// Most retries (`retry`), which is also the default. Source: the same page.
pub const KAFKA_RETRIES_MAX: u32 = 10_000;
/// Longest wait for a full event (`timeOut`), in seconds. Source: the same page.
pub const KAFKA_WAIT_S_MAX: u32 = 60;
/// Longest name of a consumer group, in characters. Source: CKafka's limit.
pub const KAFKA_GROUP_CHARS_MAX: usize = 128;

impl Default for CkafkaDesc {
    fn default() -> Self {
        Self {
            max_msg_num: 100,
            offset: KafkaStart::Latest,
            retry: KAFKA_RETRIES_MAX,
            time_out: 0,
            consumer_group_name: String::new(),
        }
    }
}

/// Where a consumer group begins that has no offsets yet (`offset`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaStart {
    /// With what comes after the trigger was created.
    #[default]
    Latest,
    /// With the oldest message that the cluster keeps.
    Earliest,
    /// With the first message that is not older than this, in milliseconds since the epoch.
    At(u64),
}

impl fmt::Display for KafkaStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Earliest => f.write_str("earliest"),
            Self::At(ms) => write!(f, "{ms}"),
        }
    }
}

impl Serialize for KafkaStart {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KafkaStart {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let wrong =
            || serde::de::Error::custom("`offset` is latest, earliest, or a time in milliseconds since the epoch");
        match NumberOrText::deserialize(d).map_err(|_| wrong())? {
            NumberOrText::Number(ms) => Ok(Self::At(ms)),
            NumberOrText::Text(text) => match text.trim() {
                "" | "latest" => Ok(Self::Latest),
                "earliest" | "oldest" => Ok(Self::Earliest),
                other => other.parse().map(Self::At).map_err(|_| wrong()),
            },
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

/// A number, also one that is written as a text.
fn number<'de, D: serde::Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    let wrong = || serde::de::Error::custom("a number from 0 to 4294967295 is expected, also as a text");
    match NumberOrText::deserialize(d).map_err(|_| wrong())? {
        NumberOrText::Number(n) => u32::try_from(n).map_err(|_| wrong()),
        NumberOrText::Text(text) => text.trim().parse().map_err(|_| wrong()),
    }
}

/// The cluster and the topic that a `ckafka` trigger's name means, `<cluster>-<topic>`. Both may contain `-`: of the clusters that fit, the
/// one with the longest name is meant. `None`: it names none of `clusters`, or no topic.
pub fn kafka_topic_of<'a>(name: &'a str, clusters: impl IntoIterator<Item = &'a str>) -> Option<(&'a str, &'a str)> {
    let fits = |cluster: &str| name.strip_prefix(cluster)?.strip_prefix('-').filter(|topic| !topic.is_empty());
    let found = clusters.into_iter().filter_map(|cluster| Some((cluster, fits(cluster)?)));
    found.max_by_key(|(cluster, _)| cluster.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_settings_are_read_as_clients_send_them() {
        let read = |text: &str| serde_json::from_str::<CkafkaDesc>(text);
        let full = CkafkaDesc {
            max_msg_num: 999,
            offset: KafkaStart::At(1_595_927_203_000),
            retry: 10,
            time_out: 60,
            consumer_group_name: "g".into(),
        };
        let as_texts =
            r#"{"maxMsgNum":"999","offset":"1595927203000","retry":"10","timeOut":"60","consumerGroupName":"g"}"#;
        let as_numbers = r#"{"maxMsgNum":999,"offset":1595927203000,"retry":10,"timeout":60,"consumerGroupName":"g"}"#;
        assert_eq!(read(as_texts).unwrap(), full);
        assert_eq!(read(as_numbers).unwrap(), full);
        assert_eq!(read("{}").unwrap(), CkafkaDesc::default());
        assert_eq!(read(r#"{"offset":"earliest"}"#).unwrap().offset, KafkaStart::Earliest);
        for bad in [r#"{"maxMsgNum":-1}"#, r#"{"retry":"many"}"#, r#"{"offset":"now"}"#, r#"{"brokers":["b:9092"]}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let shown = TriggerDesc::Ckafka(CkafkaDesc::default()).show();
        assert_eq!(shown, r#"{"maxMsgNum":100,"offset":"latest","retry":10000,"timeOut":0,"consumerGroupName":""}"#);
    }

    #[test]
    fn kafka_triggers_are_named_by_cluster_and_topic() {
        let clusters = ["ckafka-8tfx", "ckafka", "other"];
        assert_eq!(kafka_topic_of("ckafka-8tfx-my-topic", clusters), Some(("ckafka-8tfx", "my-topic")));
        assert_eq!(kafka_topic_of("ckafka-8tfy-my-topic", clusters), Some(("ckafka", "8tfy-my-topic")));
        assert_eq!(kafka_topic_of("other-", clusters), None);
        assert_eq!(kafka_topic_of("otherwise-t", clusters), None);
    }

    fn cos(event: &str, prefix: &str, suffix: &str) -> CosDesc {
        CosDesc { event: event.into(), filter: CosFilter { prefix: prefix.into(), suffix: suffix.into() } }
    }

    #[test]
    fn buckets_rules_pick_and_collide() {
        let rule = cos("cos:ObjectCreated:*", "in/", ".png");
        assert!(rule.wants("cos:ObjectCreated:Put", "in/a.png"));
        for (event, key) in [
            ("cos:ObjectRemove:Delete", "in/a.png"),
            ("cos:ObjectCreated:Put", "out/a.png"),
            ("cos:ObjectCreated:Put", "in/a.jpg"),
        ] {
            assert!(!rule.wants(event, key), "{event} {key}");
        }
        assert!(rule.overlaps(&cos("cos:ObjectCreated:Put", "in/deeper/", "")));
        assert!(rule.overlaps(&cos("cos:ObjectCreated:*", "", "x.png")));
        assert!(!rule.overlaps(&cos("cos:ObjectRemove:*", "in/", ".png")));
        assert!(!rule.overlaps(&cos("cos:ObjectCreated:*", "out/", ".png")));
        assert!(!rule.overlaps(&cos("cos:ObjectCreated:*", "in/", ".jpg")));
        assert_eq!((bucket_of("b-125.cos.ap-x.myqcloud.com"), bucket_of("b-125")), ("b-125", "b-125"));
    }

    #[test]
    fn stored_and_shown_forms_are_read_again() {
        let timer = TriggerDesc::Timer(TimerDesc { cron: "0 */6 * * * * *".into(), time_zone: String::new() });
        assert_eq!(timer.show(), r#"{"cron":"0 */6 * * * * *"}"#);
        let cos = TriggerDesc::Cos(cos("cos:ObjectRemove:*", "", ""));
        assert_eq!(cos.show(), r#"{"event":"cos:ObjectRemove:*","filter":{"Prefix":"","Suffix":""}}"#);
        let cmq = TriggerDesc::Cmq(CmqDesc { filter_type: 1, filter_key: vec!["a".into()] });
        assert_eq!(cmq.show(), r#"{"filterType":1,"filterKey":["a"]}"#);
        for desc in [timer, cos, cmq, TriggerDesc::Ckafka(CkafkaDesc::default())] {
            let stored = serde_json::to_string(&desc).unwrap();
            assert_eq!(serde_json::from_str::<TriggerDesc>(&stored).unwrap(), desc, "{stored}");
            assert_eq!(TriggerKind::parse(&desc.kind().as_str().to_uppercase()), Some(desc.kind()));
        }
        assert_eq!(TriggerKind::parse("http"), None);
    }
}
