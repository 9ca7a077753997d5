//! Which changes somebody wants to be told of. The rules belong to the triggers and are kept with them; the store is given them before it serves.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// `cos:ObjectCreated:Put`
    Put,
    /// `cos:ObjectCreated:Post`: put by a browser's form.
    Post,
    /// `cos:ObjectCreated:Copy`
    Copy,
    /// `cos:ObjectCreated:CompleteMultipartUpload`
    CompleteMultipartUpload,
    /// `cos:ObjectRemove:Delete`
    Delete,
    /// `cos:ObjectRemove:DeleteMarkerCreated`: deleted in a bucket that keeps versions.
    DeleteMarkerCreated,
}

impl EventKind {
    /// Whether an object goes.
    pub(crate) fn removes(self) -> bool {
        matches!(self, Self::Delete | Self::DeleteMarkerCreated)
    }

    /// Its name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "cos:ObjectCreated:Put",
            Self::Post => "cos:ObjectCreated:Post",
            Self::Copy => "cos:ObjectCreated:Copy",
            Self::CompleteMultipartUpload => "cos:ObjectCreated:CompleteMultipartUpload",
            Self::Delete => "cos:ObjectRemove:Delete",
            Self::DeleteMarkerCreated => "cos:ObjectRemove:DeleteMarkerCreated",
        }
    }
}

/// Names that a rule's `event` may have.
pub const EVENT_NAMES: [&str; 8] = [
    "cos:ObjectCreated:*",
    "cos:ObjectCreated:Put",
    "cos:ObjectCreated:Post",
    "cos:ObjectCreated:Copy",
    "cos:ObjectCreated:CompleteMultipartUpload",
    "cos:ObjectRemove:*",
    "cos:ObjectRemove:Delete",
    "cos:ObjectRemove:DeleteMarkerCreated",
];

/// One wish to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Whose wish it is: comes back in [`crate::Notice::rule`].
    pub id: String,
    /// One of [`EVENT_NAMES`].
    pub event: String,
    /// What keys begin with; empty: anything.
    pub prefix: String,
    /// What keys end with; empty: anything.
    pub suffix: String,
}

impl Rule {
    /// Whether it wants to know of this.
    pub fn matches(&self, kind: EventKind, key: &str) -> bool {
        let name = kind.name();
        let event = match self.event.strip_suffix('*') {
            Some(family) => name.starts_with(family),
            None => name == self.event,
        };
        event
            && key.len() >= self.prefix.len() + self.suffix.len()
            && key.starts_with(&self.prefix)
            && key.ends_with(&self.suffix)
    }
}

/// The rules of all buckets.
#[derive(Debug, Default)]
pub(crate) struct Rules(RwLock<HashMap<String, Arc<[Rule]>>>);

impl Rules {
    pub(crate) fn set(&self, bucket: &str, rules: Vec<Rule>) {
        let mut all = self.0.write();
        if rules.is_empty() {
            all.remove(bucket);
        } else {
            all.insert(bucket.to_owned(), rules.into());
        }
    }

    pub(crate) fn set_all(&self, rules: HashMap<String, Vec<Rule>>) {
        *self.0.write() = rules.into_iter().map(|(bucket, rules)| (bucket, rules.into())).collect();
    }

    /// The ids of the rules that want to know.
    pub(crate) fn matching(&self, bucket: &str, kind: EventKind, key: &str) -> Vec<String> {
        let Some(rules) = self.0.read().get(bucket).cloned() else { return Vec::new() };
        rules.iter().filter(|r| r.matches(kind, key)).map(|r| r.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_match_by_event_prefix_and_suffix() {
        let rule = |event: &str, prefix: &str, suffix: &str| Rule {
            id: "r".into(),
            event: event.into(),
            prefix: prefix.into(),
            suffix: suffix.into(),
        };
        let all = rule("cos:ObjectCreated:*", "", "");
        assert!(all.matches(EventKind::Put, "a") && all.matches(EventKind::CompleteMultipartUpload, "a"));
        assert!(!all.matches(EventKind::Delete, "a"));
        let some = rule("cos:ObjectCreated:Put", "in/", ".jpg");
        assert!(some.matches(EventKind::Put, "in/a.jpg"));
        assert!(!some.matches(EventKind::Copy, "in/a.jpg"));
        assert!(!some.matches(EventKind::Put, "out/a.jpg") && !some.matches(EventKind::Put, "in/a.png"));
        // What begins with the prefix and ends with the suffix only when both are counted twice does not match.
        let overlapping = rule("cos:ObjectCreated:*", "aba", "ba");
        assert!(!overlapping.matches(EventKind::Put, "aba"));
        assert!(overlapping.matches(EventKind::Put, "ababa"));
    }
}
