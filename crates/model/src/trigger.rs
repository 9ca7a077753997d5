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
}

impl TriggerKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Timer, Self::Cos, Self::Cmq];

    /// As the API writes it (`Type`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timer => "timer",
            Self::Cos => "cos",
            Self::Cmq => "cmq",
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
}

impl TriggerDesc {
    /// What events come from.
    pub fn kind(&self) -> TriggerKind {
        match self {
            Self::Timer(_) => TriggerKind::Timer,
            Self::Cos(_) => TriggerKind::Cos,
            Self::Cmq(_) => TriggerKind::Cmq,
        }
    }

    /// The JSON text that clients are shown.
    pub fn show(&self) -> String {
        let shown = match self {
            Self::Timer(desc) => serde_json::to_string(desc),
            Self::Cos(desc) => serde_json::to_string(desc),
            Self::Cmq(desc) => serde_json::to_string(desc),
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

#[cfg(test)]
mod tests {
    use super::*;

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
        for desc in [timer, cos, cmq] {
            let stored = serde_json::to_string(&desc).unwrap();
            assert_eq!(serde_json::from_str::<TriggerDesc>(&stored).unwrap(), desc, "{stored}");
            assert_eq!(TriggerKind::parse(&desc.kind().as_str().to_uppercase()), Some(desc.kind()));
        }
        assert_eq!(TriggerKind::parse("http"), None);
    }
}
