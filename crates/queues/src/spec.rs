//! What clients say of queues, topics and subscriptions, and the ranges of it. Source, unless said otherwise: CMQ's and TDMQ's API documents.

use crate::error::{ErrorKind, QueueError};
use serde::{Deserialize, Serialize};

/// Most messages in a queue, when none is said. Ours: CMQ says 100,000,000, which few disks hold.
pub const HEAP_DEFAULT: u64 = 10_000_000;
/// Largest number of messages that may be said.
pub const HEAP_MAX: u64 = 1_000_000_000;
/// Longest long poll, in seconds.
pub const POLL_S_MAX: u64 = 30;
/// Longest time that a received message stays hidden, in seconds.
pub const VISIBILITY_S_MAX: u64 = 43_200;
/// Smallest limit of a message's size, in bytes.
pub const MESSAGE_BYTES_LOW: u64 = 1024;
/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;
/// The limit of a message's size, when none is said, in bytes.
pub const MESSAGE_BYTES_DEFAULT: u64 = 65_536;
/// Shortest and longest retention of messages, in seconds.
pub const RETENTION_S: (u64, u64) = (30, 1_296_000);
/// Retention, when none is said, in seconds.
pub const RETENTION_S_DEFAULT: u64 = 345_600;
/// Longest delay of a message, in seconds.
pub const DELAY_S_MAX: u64 = 3600;
/// Longest retention of a topic's messages, which is also the default, in seconds.
pub const TOPIC_RETENTION_S_MAX: u64 = 86_400;
/// Most messages in a batch.
pub const BATCH_MAX: usize = 16;
/// All messages of a batch together, in bytes.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Longest name, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Most tags or binding keys of a subscription, and most tags of a message.
pub const FILTERS_MAX: usize = 5;
/// Longest tag, in characters. TDMQ says 16; ours is longer, as the trigger's keys may be.
pub const TAG_CHARS_MAX: usize = 64;
/// Longest routing key or binding key, in bytes.
pub const KEY_BYTES_MAX: usize = 64;
/// Most words in one.
pub const KEY_WORDS_MAX: usize = 16;
/// Longest endpoint, in bytes. Ours.
pub const ENDPOINT_BYTES_MAX: usize = 1024;

/// What becomes of messages that nobody manages to handle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// The queue that they move to.
    pub queue: String,
    /// When they do.
    pub rule: DeadLetterRule,
}

/// When a message is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadLetterRule {
    /// Received this often and not deleted.
    Received(u64),
    /// Not deleted within so many seconds.
    Age(u64),
}

/// A queue's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueSpec {
    /// The id that clients see.
    pub id: String,
    /// Most messages in it.
    pub heap_max: u64,
    /// How long a receive waits for a message when it says nothing, in seconds.
    pub poll_s: u64,
    /// How long a received message stays hidden, in seconds.
    pub visibility_s: u64,
    /// Largest message, in bytes.
    pub message_bytes_max: u64,
    /// How long messages are kept, in seconds.
    pub retention_s: u64,
    /// How long deleted messages can be brought back, in seconds; 0: not at all.
    pub rewind_s: u64,
    /// What becomes of messages that nobody manages to handle.
    pub dead_letters: Option<DeadLetters>,
    /// TDMQ's switch for message tracing, which is stored and nothing more.
    pub trace: bool,
    /// When it was created, in milliseconds.
    pub created_ms: u64,
    /// When it was last changed, in milliseconds.
    pub changed_ms: u64,
}

/// A change of a queue's attributes; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueChange {
    /// See [`QueueSpec::heap_max`].
    pub heap_max: Option<u64>,
    /// See [`QueueSpec::poll_s`].
    pub poll_s: Option<u64>,
    /// See [`QueueSpec::visibility_s`].
    pub visibility_s: Option<u64>,
    /// See [`QueueSpec::message_bytes_max`].
    pub message_bytes_max: Option<u64>,
    /// See [`QueueSpec::retention_s`].
    pub retention_s: Option<u64>,
    /// See [`QueueSpec::rewind_s`].
    pub rewind_s: Option<u64>,
    /// The dead-letter queue; empty: none any more.
    pub dead_letter_queue: Option<String>,
    /// 0: by the number of receives; 1: by age.
    pub policy: Option<u64>,
    /// For policy 0.
    pub receives_max: Option<u64>,
    /// For policy 1, in seconds.
    pub age_s: Option<u64>,
    /// See [`QueueSpec::trace`].
    pub trace: Option<bool>,
}

fn put(name: &str, slot: &mut u64, value: Option<u64>, low: u64, high: u64) -> Result<(), QueueError> {
    if let Some(value) = value {
        if !(low..=high).contains(&value) {
            return Err(QueueError::range(name, low, high));
        }
        *slot = value;
    }
    Ok(())
}

impl QueueSpec {
    /// A queue of which nothing is said.
    pub fn new(id: String, now_ms: u64) -> Self {
        Self {
            id,
            heap_max: HEAP_DEFAULT,
            poll_s: 0,
            visibility_s: 30,
            message_bytes_max: MESSAGE_BYTES_DEFAULT,
            retention_s: RETENTION_S_DEFAULT,
            rewind_s: 0,
            dead_letters: None,
            trace: false,
            created_ms: now_ms,
            changed_ms: now_ms,
        }
    }

    /// With a change.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a value out of range, [`ErrorKind::Missing`] for half a dead-letter rule.
    pub fn with(mut self, change: &QueueChange, now_ms: u64) -> Result<Self, QueueError> {
        put("maxMsgHeapNum", &mut self.heap_max, change.heap_max, 1, HEAP_MAX)?;
        put("pollingWaitSeconds", &mut self.poll_s, change.poll_s, 0, POLL_S_MAX)?;
        put("visibilityTimeout", &mut self.visibility_s, change.visibility_s, 1, VISIBILITY_S_MAX)?;
        let sizes = (MESSAGE_BYTES_LOW, MESSAGE_BYTES_MAX);
        put("maxMsgSize", &mut self.message_bytes_max, change.message_bytes_max, sizes.0, sizes.1)?;
        put("msgRetentionSeconds", &mut self.retention_s, change.retention_s, RETENTION_S.0, RETENTION_S.1)?;
        put("rewindSeconds", &mut self.rewind_s, change.rewind_s, 0, RETENTION_S.1)?;
        if self.rewind_s > self.retention_s {
            return Err(ErrorKind::Invalid.says(format!(
                "`rewindSeconds` ({}) may not be more than `msgRetentionSeconds` ({}).",
                self.rewind_s, self.retention_s
            )));
        }
        self.dead_letters = self.dead_letters_with(change)?;
        if let Some(DeadLetters { rule: DeadLetterRule::Age(age_s), .. }) = self.dead_letters
            && age_s >= self.retention_s
        {
            return Err(ErrorKind::Invalid.says(format!(
                "`maxTimeToLive` ({age_s}) has to be less than `msgRetentionSeconds` ({}).",
                self.retention_s
            )));
        }
        self.trace = change.trace.unwrap_or(self.trace);
        self.changed_ms = now_ms;
        Ok(self)
    }

    fn dead_letters_with(&self, change: &QueueChange) -> Result<Option<DeadLetters>, QueueError> {
        let queue = match (&change.dead_letter_queue, &self.dead_letters) {
            (Some(name), _) if name.is_empty() => return Ok(None),
            (Some(name), _) => name.clone(),
            (None, Some(now)) => now.queue.clone(),
            (None, None) if change.policy.is_some() || change.receives_max.is_some() || change.age_s.is_some() => {
                return Err(QueueError::missing("deadLetterQueueName"));
            }
            (None, None) => return Ok(None),
        };
        let now = self.dead_letters.as_ref().map(|d| d.rule);
        let policy = change.policy.unwrap_or(match now {
            Some(DeadLetterRule::Age(_)) => 1,
            _ => 0,
        });
        let mut value = 0;
        let rule = match policy {
            0 => {
                let before = if let Some(DeadLetterRule::Received(n)) = now { Some(n) } else { None };
                let given = change.receives_max.or(before).ok_or_else(|| QueueError::missing("maxReceiveCount"))?;
                put("maxReceiveCount", &mut value, Some(given), 1, 1000)?;
                DeadLetterRule::Received(value)
            }
            1 => {
                let before = if let Some(DeadLetterRule::Age(s)) = now { Some(s) } else { None };
                let given = change.age_s.or(before).ok_or_else(|| QueueError::missing("maxTimeToLive"))?;
                put("maxTimeToLive", &mut value, Some(given), 300, VISIBILITY_S_MAX)?;
                DeadLetterRule::Age(value)
            }
            _ => return Err(QueueError::range("policy", 0, 1)),
        };
        Ok(Some(DeadLetters { queue, rule }))
    }
}

/// How a topic finds the subscriptions for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterType {
    /// By tags (1).
    Tag,
    /// By routing and binding keys (2).
    Routing,
}

impl FilterType {
    /// CMQ's number.
    pub fn number(self) -> u64 {
        match self {
            Self::Tag => 1,
            Self::Routing => 2,
        }
    }

    /// From CMQ's number.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn from_number(number: u64) -> Result<Self, QueueError> {
        match number {
            1 => Ok(Self::Tag),
            2 => Ok(Self::Routing),
            _ => Err(QueueError::range("filterType", 1, 2)),
        }
    }
}

/// A topic's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSpec {
    /// The id that clients see.
    pub id: String,
    /// Largest message, in bytes.
    pub message_bytes_max: u64,
    /// How long messages wait for their subscribers, in seconds.
    pub retention_s: u64,
    /// How subscriptions are found.
    pub filter: FilterType,
    /// TDMQ's switch for message tracing, which is stored and nothing more.
    pub trace: bool,
    /// When it was created, in milliseconds.
    pub created_ms: u64,
    /// When it was last changed, in milliseconds.
    pub changed_ms: u64,
}

/// A change of a topic's attributes; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// See [`TopicSpec::message_bytes_max`].
    pub message_bytes_max: Option<u64>,
    /// See [`TopicSpec::retention_s`].
    pub retention_s: Option<u64>,
    /// See [`TopicSpec::filter`]. Only at creation.
    pub filter: Option<FilterType>,
    /// See [`TopicSpec::trace`].
    pub trace: Option<bool>,
}

impl TopicSpec {
    /// A topic of which nothing is said.
    pub fn new(id: String, now_ms: u64) -> Self {
        Self {
            id,
            message_bytes_max: MESSAGE_BYTES_DEFAULT,
            retention_s: TOPIC_RETENTION_S_MAX,
            filter: FilterType::Tag,
            trace: false,
            created_ms: now_ms,
            changed_ms: now_ms,
        }
    }

    /// With a change.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a value out of range.
    pub fn with(mut self, change: &TopicChange, now_ms: u64) -> Result<Self, QueueError> {
        let sizes = (MESSAGE_BYTES_LOW, MESSAGE_BYTES_MAX);
        put("maxMsgSize", &mut self.message_bytes_max, change.message_bytes_max, sizes.0, sizes.1)?;
        put("msgRetentionSeconds", &mut self.retention_s, change.retention_s, 60, TOPIC_RETENTION_S_MAX)?;
        self.filter = change.filter.unwrap_or(self.filter);
        self.trace = change.trace.unwrap_or(self.trace);
        self.changed_ms = now_ms;
        Ok(self)
    }
}

/// Where a subscription's messages go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Into the queue of this name.
    Queue(String),
    /// To this `http://` address.
    Http(String),
}

/// What is done when an endpoint does not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// Three more tries, 10 to 20 seconds apart.
    Backoff,
    /// After 1, 2, 4 … 512 seconds, for as long as the topic keeps messages.
    Decay,
}

impl Strategy {
    /// CMQ's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backoff => "BACKOFF_RETRY",
            Self::Decay => "EXPONENTIAL_DECAY_RETRY",
        }
    }

    /// From CMQ's name.
    ///
    /// # Errors
    /// [`ErrorKind::Strategy`].
    pub fn from_name(name: &str) -> Result<Self, QueueError> {
        match name {
            "BACKOFF_RETRY" => Ok(Self::Backoff),
            "EXPONENTIAL_DECAY_RETRY" => Ok(Self::Decay),
            _ => {
                Err(ErrorKind::Strategy
                    .says("`notifyStrategy` is neither `BACKOFF_RETRY` nor `EXPONENTIAL_DECAY_RETRY`."))
            }
        }
    }
}

/// A subscription's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionSpec {
    /// The id that clients see.
    pub id: String,
    /// Where messages go.
    pub target: Target,
    /// What is done when they are not taken.
    pub strategy: Strategy,
    /// Whether an endpoint gets the message alone, or with what is known of it in JSON.
    pub simplified: bool,
    /// Tags, or binding keys, by the topic's type. Empty: everything.
    pub filters: Vec<String>,
    /// When it was created, in milliseconds.
    pub created_ms: u64,
    /// When it was last changed, in milliseconds.
    pub changed_ms: u64,
}

/// A name's form: a letter, then letters, digits, `-` and `_`, 64 characters at most.
fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Checks the name of a queue.
///
/// # Errors
/// [`ErrorKind::QueueName`].
pub fn check_queue_name(name: &str) -> Result<(), QueueError> {
    if is_name(name) {
        return Ok(());
    }
    Err(ErrorKind::QueueName.says("The name of a queue is a letter, then up to 63 letters, digits, `-` and `_`."))
}

/// Checks the name of a topic or a subscription.
///
/// # Errors
/// [`ErrorKind::TopicName`].
pub fn check_topic_name(name: &str) -> Result<(), QueueError> {
    if is_name(name) {
        return Ok(());
    }
    Err(ErrorKind::TopicName
        .says("The name of a topic or a subscription is a letter, then up to 63 letters, digits, `-` and `_`."))
}

/// The text that stands for a name where capitals make no difference.
pub fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}
