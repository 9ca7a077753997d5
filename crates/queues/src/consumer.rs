//! What is on its way to a function.

use crate::db::{Answer, Ask, Delivery, Op};
use crate::service::Queues;
use mayfly_model::RequestId;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Deliveries to one function subscription, in the order in which they were published.
#[derive(Clone)]
pub struct Consumer {
    queues: Queues,
    outlet: String,
}

/// How far behind a subscription is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Deliveries not acknowledged.
    pub count: u64,
    /// Age of the oldest one, as of the last look at it.
    pub age: Duration,
}

impl Consumer {
    pub(crate) fn new(queues: Queues, subscription: &str) -> Self {
        Self { queues, outlet: format!("f{subscription}") }
    }

    /// The oldest deliveries, at most `limit`; fewer when they are large. The same are given until they are acknowledged. Waits until there
    /// is one. Safe to drop.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Internal`] when the database fails.
    pub async fn next(&self, limit: usize) -> Answer<Vec<Delivery>> {
        loop {
            let outlet = self.queues.shared().outlet(&self.outlet);
            let arrived = outlet.arrived.notified();
            tokio::pin!(arrived);
            // Registered before the look, so that what arrives between look and wait is not missed.
            arrived.as_mut().enable();
            let found = self.peek(limit).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            arrived.await;
        }
    }

    /// As [`Consumer::next`], without waiting.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn peek(&self, limit: usize) -> Answer<Vec<Delivery>> {
        let outlet = self.outlet.clone();
        let found = self.queues.ask(|done| Ask::First { outlet, limit, done }).await?;
        if let Some(outlet) = self.queues.shared().known_outlet(&self.outlet) {
            outlet.oldest_ms.store(found.first().map_or(0, |d| d.sent_ms), Ordering::Release);
        }
        Ok(found)
    }

    /// Takes deliveries out for good, by [`Delivery::id`]. Unknown ones are passed over. On disk when this returns.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn ack(&self, ids: Vec<i64>) -> Answer<()> {
        self.queues.write(Op::Finish { outlet: self.outlet.clone(), ids }).await.map(drop)
    }

    /// How far behind it is.
    pub fn lag(&self) -> Lag {
        let Some(outlet) = self.queues.shared().known_outlet(&self.outlet) else { return Lag::default() };
        let count = outlet.pending.load(Ordering::Acquire);
        let oldest_ms = outlet.oldest_ms.load(Ordering::Acquire);
        let known = count > 0 && oldest_ms > 0;
        let age_ms = if known { self.queues.now_ms().saturating_sub(oldest_ms) } else { 0 };
        Lag { count, age: Duration::from_millis(age_ms) }
    }
}

impl Delivery {
    /// The event that a function gets. Source: "CMQ topic trigger" of SCF's manual. `owner` is the account's number (APPID), `subscription`
    /// the trigger's name. The event of a delivery is the same each time.
    pub fn event(&self, owner: &str, subscription: &str) -> Value {
        let request_id =
            RequestId::from_random(((u128::from(self.message) << 64) | u128::from(self.sent_ms)).to_be_bytes());
        let at = chrono::DateTime::from_timestamp_millis(i64::try_from(self.sent_ms).unwrap_or(0)).unwrap_or_default();
        json!({"Records": [{"CMQ": {
            "type": "topic",
            "topicOwner": owner,
            "topicName": self.topic,
            "subscriptionName": subscription,
            "publishTime": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "msgId": self.message.to_string(),
            "requestId": request_id.to_string(),
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
            lineage: mayfly_model::Lineage::default(),
        };
        let mut event = delivery.event("120xxxxx", "xxxxxx");
        let request_id = event["Records"][0]["CMQ"]["requestId"].take();
        assert!(RequestId::parse(request_id.as_str().unwrap()).is_some());
        assert_eq!(
            event,
            json!({"Records": [{"CMQ": {
                "type": "topic", "topicOwner": "120xxxxx", "topicName": "testname", "subscriptionName": "xxxxxx",
                "publishTime": "1970-01-01T00:00:00.000Z", "msgId": "123", "requestId": null, "msgBody": "Hello from CMQ!",
                "msgTag": ["tag1", "tag2"]
            }}]})
        );
    }
}
