//! What is on its way to a function.

use crate::db::{Answer, Ask, Delivery, Op};
use crate::service::Queues;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Deliveries to one function subscription, in the order in which they were published. Each consumer gives every delivery out once; those that
/// were not acknowledged come again to the next consumer, or after [`Consumer::rewind`].
pub struct Consumer {
    queues: Queues,
    outlet: String,
    /// The last delivery that was given out.
    cursor: AtomicI64,
}

/// How far behind a subscription is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Deliveries not acknowledged.
    pub count: u64,
    /// Age of the oldest one.
    pub age: Duration,
}

impl Consumer {
    pub(crate) fn new(queues: Queues, subscription: &str) -> Self {
        Self { queues, outlet: format!("f{subscription}"), cursor: AtomicI64::new(0) }
    }

    /// The next deliveries, up to `limit`; fewer when they are large. Empty: none now, see [`Consumer::wait`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] when the database fails.
    pub async fn next(&self, limit: usize) -> Answer<Vec<Delivery>> {
        let (outlet, after) = (self.outlet.clone(), self.cursor.load(Ordering::Acquire));
        let found = self.queues.ask(|done| Ask::After { outlet, after, limit, done }).await?;
        if let Some(last) = found.last() {
            self.cursor.fetch_max(last.id, Ordering::AcqRel);
        }
        Ok(found)
    }

    /// Waits until [`Consumer::next`] may have something.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn wait(&self) -> Answer<()> {
        let shared = self.queues.shared();
        loop {
            let outlet = shared.outlet(&self.outlet);
            let arrived = outlet.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let (name, after) = (self.outlet.clone(), self.cursor.load(Ordering::Acquire));
            let found = self.queues.ask(|done| Ask::After { outlet: name, after, limit: 1, done }).await?;
            if !found.is_empty() {
                return Ok(());
            }
            arrived.await;
        }
    }

    /// Takes deliveries out for good, by [`Delivery::id`]. Unknown ones are passed over. On disk when this returns.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn ack(&self, ids: Vec<i64>) -> Answer<()> {
        self.queues.write(Op::Finish { outlet: self.outlet.clone(), ids }).await.map(drop)
    }

    /// Everything that was not acknowledged comes again.
    pub fn rewind(&self) {
        self.cursor.store(0, Ordering::Release);
    }

    /// How far behind it is.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn lag(&self) -> Answer<Lag> {
        let outlet = self.outlet.clone();
        let oldest = self.queues.ask(|done| Ask::Oldest { outlet, done }).await?;
        let age = oldest.map_or(0, |ms| self.queues.now_ms().saturating_sub(ms));
        Ok(Lag { count: self.queues.pending_of(&self.outlet), age: Duration::from_millis(age) })
    }
}

impl Delivery {
    /// The event that a function gets. Source: "CMQ topic trigger" of SCF's manual. `owner` is the account's number (APPID), `subscription`
    /// the trigger's name, `request_id` the id of this delivery.
    pub fn event(&self, owner: &str, subscription: &str, request_id: &str) -> Value {
        let at = chrono::DateTime::from_timestamp_millis(i64::try_from(self.sent_ms).unwrap_or(0)).unwrap_or_default();
        json!({"Records": [{"CMQ": {
            "type": "topic",
            "topicOwner": owner,
            "topicName": self.topic,
            "subscriptionName": subscription,
            "publishTime": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "msgId": self.message.to_string(),
            "requestId": request_id,
            "msgBody": self.body,
            "msgTag": self.tags,
        }}]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_is_the_one_of_the_manual() {
        let delivery = Delivery {
            id: 1,
            attempt: 0,
            message: 123,
            topic: "testname".into(),
            sent_ms: 0,
            expires_ms: 1,
            tags: vec!["tag1".into(), "tag2".into()],
            routing_key: String::new(),
            body: "Hello from CMQ!".into(),
        };
        assert_eq!(
            delivery.event("120xxxxx", "xxxxxx", "r-1"),
            json!({"Records": [{"CMQ": {
                "type": "topic", "topicOwner": "120xxxxx", "topicName": "testname", "subscriptionName": "xxxxxx",
                "publishTime": "1970-01-01T00:00:00.000Z", "msgId": "123", "requestId": "r-1", "msgBody": "Hello from CMQ!",
                "msgTag": ["tag1", "tag2"]
            }}]})
        );
    }
}
