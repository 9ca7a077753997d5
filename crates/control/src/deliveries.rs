//! Takes messages about ends of events from the failure store to functions, queues and topics.

use crate::catalogue::Catalogue;
use crate::endings::{Addressed, Cause};
use crate::events::{Event, Events};
use crate::ports::{Destinations, SendError};
use mayfly_base::Clock;
use mayfly_model::{Lineage, RequestId, Target};
use mayfly_store::FailureLog;
use mayfly_store::failures::{Message, MessageKind, derived_id};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Messages on their way at once.
const AT_ONCE: usize = 32;
/// How long one may take.
const SEND_TIME: Duration = Duration::from_secs(30);
/// The first pause after one did not arrive, in milliseconds; each further one is twice as long.
const PAUSE_FIRST_MS: u64 = 1_000;
/// The longest such pause.
const PAUSE_MAX_MS: u64 = 300_000;
/// The age at which a message is given up, in milliseconds.
const AGE_MAX_MS: u64 = 6 * 3_600_000;
/// How often the store is asked without being told to.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often failures past their time are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(60);

/// Delivers messages.
pub struct Deliveries {
    failures: Arc<dyn FailureLog>,
    destinations: Arc<dyn Destinations>,
    events: Arc<Events>,
    catalogue: Catalogue,
    clock: Arc<dyn Clock>,
    posted: Arc<Notify>,
}

impl Deliveries {
    /// Over these parts; `posted` is rung when there is something to deliver.
    pub fn new(
        failures: Arc<dyn FailureLog>,
        destinations: Arc<dyn Destinations>,
        events: Arc<Events>,
        catalogue: Catalogue,
        clock: Arc<dyn Clock>,
        posted: Arc<Notify>,
    ) -> Self {
        Self { failures, destinations, events, catalogue, clock, posted }
    }

    /// Delivers until `shutdown`. What is cut short is sent again after the next start.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tasks: JoinSet<(RequestId, MessageKind)> = JoinSet::new();
        let mut under_way = HashSet::new();
        let mut prune = tokio::time::interval(PRUNE_EVERY);
        loop {
            match self.failures.due(self.clock.now_ms(), 2 * AT_ONCE).await {
                Ok(due) => {
                    for message in due {
                        let key = (message.id, message.kind);
                        if under_way.len() < AT_ONCE && under_way.insert(key) {
                            let this = Arc::clone(&self);
                            tasks.spawn(async move {
                                this.deliver(message).await;
                                key
                            });
                        }
                    }
                }
                Err(error) => tracing::error!(%error, "messages cannot be read; trying again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.posted.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(done) = tasks.join_next() => match done {
                    Ok(key) => drop(under_way.remove(&key)),
                    Err(error) => {
                        tracing::error!(%error, "delivering a message failed inside the platform");
                        // Which one it was is not known; each is tried again once none is under way.
                        while tasks.join_next().await.is_some() {}
                        under_way.clear();
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                },
                _ = prune.tick() => match self.failures.prune(self.clock.now_ms()).await {
                    Ok(0) => {}
                    Ok(count) => tracing::info!(count, "forgot failures past their time"),
                    Err(error) => tracing::warn!(%error, "failures past their time could not be forgotten"),
                },
            }
        }
    }

    async fn deliver(&self, message: Message) {
        let (id, kind) = (message.id, message.kind);
        let address: Addressed = match serde_json::from_slice(&message.target) {
            Ok(address) => address,
            Err(error) => {
                // A newer release may have written it; it waits for its time to be over.
                tracing::error!(request_id = %id, %error, "the target of a message cannot be read");
                return self.later(&message, "a newer release made it").await;
            }
        };
        let sent = tokio::time::timeout(SEND_TIME, self.send(&address, &message)).await;
        match sent.unwrap_or_else(|_| Err(SendError::Unavailable("it did not answer in time".into()))) {
            Ok(()) => {
                if let Err(error) = self.failures.settle(id, kind, None).await {
                    tracing::error!(request_id = %id, %error, "a message was sent and could not be removed; it will be sent again");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
            Err(why) => {
                if message.attempt == 0 {
                    tracing::warn!(request_id = %id, target = %address.to, %why, "a message about the end of an event cannot be delivered yet");
                }
                self.later(&message, &format!("{}: {why}", address.to)).await;
            }
        }
    }

    /// Puts a message off, or gives it up.
    async fn later(&self, message: &Message, why: &str) {
        let pause_ms =
            PAUSE_FIRST_MS.saturating_mul(1u64.checked_shl(message.attempt).unwrap_or(u64::MAX)).min(PAUSE_MAX_MS);
        let pause_ms = pause_ms - (pause_ms as f64 * 0.5 * crate::ids::random_unit()) as u64;
        let due_ms = self.clock.now_ms().saturating_add(pause_ms);
        let result = if due_ms > message.created_ms.saturating_add(AGE_MAX_MS) {
            let what = match message.kind {
                MessageKind::DeadLetter => "The dead letter",
                MessageKind::OnSuccess | MessageKind::OnFailure => "The result",
            };
            let note = format!("{what} could not be delivered for 6 hours. Last: {why}.");
            tracing::error!(request_id = %message.id, note, "a message about the end of an event is given up");
            self.failures.settle(message.id, message.kind, Some(note)).await
        } else {
            self.failures.postpone(message.id, message.kind, due_ms, message.attempt.saturating_add(1)).await
        };
        if let Err(error) = result {
            tracing::error!(request_id = %message.id, %error, "a message could not be put off");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn send(&self, address: &Addressed, message: &Message) -> Result<(), SendError> {
        let Target::Function { namespace, name, qualifier } = &address.to else {
            return self.destinations.send(&address.to, message.body.clone().into()).await;
        };
        if self.catalogue.function(namespace.as_str(), name.as_str()).is_none() {
            return Err(SendError::NotFound(address.to.clone()));
        }
        let event = Event {
            namespace: namespace.to_string(),
            function: name.to_string(),
            qualifier: qualifier.clone(),
            routing_key: Vec::new(),
            event: String::from_utf8_lossy(&message.body).into_owned(),
            accepted_ms: self.clock.now_ms(),
            cause: Cause::of("destination", Lineage { depth: address.depth, parent: address.parent }),
        };
        let id = derived_id(message.id, format!("destination {}", message.kind.number()).as_bytes());
        self.events.offer(id, event).await.map_err(|error| SendError::Unavailable(error.to_string()))
    }
}
