//! What there is, in memory: queues, topics, subscriptions. The writer changes it, after the same change is on disk; everybody reads it.

use crate::error::{ErrorKind, QueueError};
use crate::spec::{FilterType, QueueSpec, SubscriptionSpec, TopicSpec, key};
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// What its messages are filed under. Never used for another queue, nor for this one once it has been cleared.
    pub(crate) slot: i64,
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub spec: QueueSpec,
    pub(crate) live: Arc<Live>,
}

/// What changes from message to message.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Messages that are not deleted.
    pub depth: AtomicU64,
    /// Rung once for each message that can be received.
    pub arrived: Notify,
    /// Receives that wait.
    pub waiting: AtomicUsize,
    /// Held by the one waiting receive that also waits for hidden messages.
    pub timer: AtomicBool,
    /// Messages sent since the start.
    pub sent: AtomicU64,
    /// Messages received since the start.
    pub received: AtomicU64,
    /// Messages deleted since the start.
    pub deleted: AtomicU64,
}

/// A subscription of a topic.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// What its deliveries are filed under.
    pub(crate) outlet: String,
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub spec: SubscriptionSpec,
}

/// A function's subscription, which somebody else keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionSubscription {
    /// Its owner's id for it.
    pub id: String,
    /// How its keys are meant. A subscription of another type than its topic's gets messages by its own type.
    pub filter_type: FilterType,
    /// Tags or binding keys; empty: everything.
    pub filter_keys: Vec<String>,
}

impl FunctionSubscription {
    pub(crate) fn outlet(&self) -> String {
        format!("f{}", self.id)
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    pub(crate) row: i64,
    /// Its name.
    pub name: String,
    /// Its attributes.
    pub spec: TopicSpec,
    /// Who gets its messages, by name.
    pub subscriptions: BTreeMap<String, Arc<Subscription>>,
    /// Messages published since the start.
    pub(crate) published: Arc<AtomicU64>,
}

/// Messages on their way out to one subscription.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    /// How many.
    pub pending: AtomicU64,
    /// When the oldest of them was published, in milliseconds, as far as anybody has looked.
    pub oldest_ms: AtomicU64,
    /// Rung when there are more.
    pub arrived: Notify,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub names: RwLock<Names>,
    /// Bytes of all messages.
    pub bytes: AtomicU64,
    /// Rung when something is to be pushed.
    pub push: Notify,
}

/// By name, in lower case, and otherwise.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub queues: BTreeMap<String, Arc<Queue>>,
    pub slots: HashMap<i64, Arc<Queue>>,
    pub topics: BTreeMap<String, Arc<Topic>>,
    pub outlets: HashMap<String, Arc<Outlet>>,
    /// Functions that get a topic's messages, by the topic's name, whether there is one of that name or not.
    pub functions: HashMap<String, Vec<FunctionSubscription>>,
}

impl Names {
    pub fn put_queue(&mut self, queue: Queue) -> Arc<Queue> {
        let queue = Arc::new(queue);
        if let Some(before) = self.queues.insert(key(&queue.name), Arc::clone(&queue)) {
            self.slots.remove(&before.slot);
            if before.slot != queue.slot {
                // It has been cleared.
                queue.live.depth.store(0, Ordering::Release);
            }
        }
        self.slots.insert(queue.slot, Arc::clone(&queue));
        queue
    }

    pub fn remove_queue(&mut self, name: &str) {
        if let Some(before) = self.queues.remove(&key(name)) {
            self.slots.remove(&before.slot);
        }
    }

    pub fn queue(&self, name: &str) -> Result<&Arc<Queue>, QueueError> {
        self.queues.get(&key(name)).ok_or_else(|| {
            ErrorKind::NoQueue.says(format!("There is no queue `{}`; ListQueue tells which there are.", shown(name)))
        })
    }

    pub fn topic(&self, name: &str) -> Result<&Arc<Topic>, QueueError> {
        self.topics.get(&key(name)).ok_or_else(|| {
            ErrorKind::NoTopic.says(format!("There is no topic `{}`; ListTopic tells which there are.", shown(name)))
        })
    }

    pub fn outlet(&mut self, name: &str) -> Arc<Outlet> {
        if let Some(found) = self.outlets.get(name) {
            return Arc::clone(found);
        }
        Arc::clone(self.outlets.entry(name.to_owned()).or_default())
    }

    /// The functions that get a topic's messages.
    pub fn functions_of(&self, topic: &str) -> &[FunctionSubscription] {
        self.functions.get(&key(topic)).map_or(&[], Vec::as_slice)
    }

    /// True when a function subscription's deliveries are filed under this.
    pub fn is_bound(&self, outlet: &str) -> bool {
        self.functions.values().flatten().any(|f| f.outlet() == outlet)
    }

    /// The queues whose dead letters go to this one.
    pub fn sources_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Queue>> {
        self.queues
            .values()
            .filter(move |q| q.spec.dead_letters.as_ref().is_some_and(|d| d.queue.eq_ignore_ascii_case(name)))
    }
}

impl Shared {
    pub fn queue(&self, name: &str) -> Result<Arc<Queue>, QueueError> {
        self.names.read().queue(name).cloned()
    }

    pub fn topic(&self, name: &str) -> Result<Arc<Topic>, QueueError> {
        self.names.read().topic(name).cloned()
    }

    pub fn known_outlet(&self, name: &str) -> Option<Arc<Outlet>> {
        self.names.read().outlets.get(name).cloned()
    }

    pub fn outlet(&self, name: &str) -> Arc<Outlet> {
        if let Some(found) = self.known_outlet(name) {
            return found;
        }
        self.names.write().outlet(name)
    }
}

/// Adds what may be negative.
pub(crate) fn adjust(counter: &AtomicU64, by: i64) {
    if by >= 0 {
        counter.fetch_add(by.unsigned_abs(), Ordering::AcqRel);
    } else {
        // Never below nothing: a wrong count must not become an enormous one.
        let _ =
            counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_sub(by.unsigned_abs())));
    }
}

/// A client's text made fit for a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
