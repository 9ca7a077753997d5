//! What becomes of requests that end: what is kept of failures, and who hears of results.

use crate::names::{FunctionName, NamespaceName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Default time for which failures are kept, in hours.
pub const FAILURE_RETENTION_H_DEFAULT: u32 = 168;
/// Longest such time, in hours.
pub const FAILURE_RETENTION_H_MAX: u32 = 8760;
/// Events in a row that destinations made: the next one is not made.
pub const DESTINATION_DEPTH_MAX: u32 = 16;

/// What is kept of a function's failures (`PutFunctionFailures`, Mayfly's own).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailurePolicy {
    /// Whether those of synchronous requests are kept too.
    #[serde(default)]
    pub capture: bool,
    /// For how long, in hours; `None`: [`FAILURE_RETENTION_H_DEFAULT`].
    #[serde(default)]
    pub retention_h: Option<u32>,
}

impl FailurePolicy {
    /// True when nothing is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// For how long failures are kept, in hours.
    pub fn retention_h(&self) -> u32 {
        self.retention_h.unwrap_or(FAILURE_RETENTION_H_DEFAULT)
    }
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum Target {
    /// To a function, which is invoked asynchronously.
    Function {
        /// Its namespace.
        namespace: NamespaceName,
        /// Its name.
        name: FunctionName,
        /// Version or alias.
        qualifier: String,
    },
    /// Into a queue.
    Queue {
        /// Its name.
        name: String,
    },
    /// To a topic.
    Topic {
        /// Its name.
        name: String,
        /// Tag of the message (`FilterType`); may be empty.
        #[serde(default)]
        tag: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function { namespace, name, qualifier } => write!(f, "function {namespace}/{name}:{qualifier}"),
            Self::Queue { name } => write!(f, "queue {name}"),
            Self::Topic { name, .. } => write!(f, "topic {name}"),
        }
    }
}

/// Who hears of the ends of a function's asynchronous events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventTargets {
    /// Gets the dead letter of each that failed for good (`DeadLetterConfig`): a queue or a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<Target>,
    /// Gets the result of each that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Target>,
    /// Gets the error of each that failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Target>,
}

impl EventTargets {
    /// True when nobody hears of anything.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
