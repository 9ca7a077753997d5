//! Series of message queues. What is counted is counted elsewhere; here it is given names, and bounds.

use super::OTHER;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Queues with series of their own; the others share one.
const QUEUES_MAX: usize = 200;

/// A queue's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueGauges {
    /// Its name.
    pub queue: String,
    /// Messages that can be received.
    pub active: u64,
    /// Messages that were received and are hidden.
    pub in_flight: u64,
    /// Messages whose delay is not over.
    pub delayed: u64,
    /// Age of the oldest message, in seconds.
    pub oldest_s: u64,
    /// Messages sent since the start.
    pub sent: u64,
    /// Messages received since the start.
    pub received: u64,
    /// Messages deleted since the start.
    pub deleted: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    queue: String,
    state: &'static str,
}

/// The series.
#[derive(Clone, Default)]
pub(super) struct QueueSeries {
    messages: Family<StateLabels, Gauge>,
    oldest: Family<QueueLabels, Gauge>,
    sent: Family<QueueLabels, Counter>,
    received: Family<QueueLabels, Counter>,
    deleted: Family<QueueLabels, Counter>,
}

impl QueueSeries {
    #[rustfmt::skip]
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("queue_messages", "Messages in a queue, by state", self.messages.clone());
        registry.register_with_unit("queue_oldest_message", "Age of the oldest message of a queue", Unit::Seconds, self.oldest.clone());
        registry.register("queue_sent", "Messages sent to a queue", self.sent.clone());
        registry.register("queue_received", "Messages received from a queue", self.received.clone());
        registry.register("queue_deleted", "Messages deleted from a queue by its consumers", self.deleted.clone());
    }

    /// Shows these queues and no others.
    pub(super) fn set(&self, queues: &[QueueGauges]) {
        self.messages.clear();
        self.oldest.clear();
        self.sent.clear();
        self.received.clear();
        self.deleted.clear();
        for (i, queue) in queues.iter().enumerate() {
            let name = if i < QUEUES_MAX { &queue.queue } else { OTHER };
            let labels = QueueLabels { queue: name.to_owned() };
            for (state, count) in [("active", queue.active), ("in_flight", queue.in_flight), ("delayed", queue.delayed)]
            {
                let labels = StateLabels { queue: name.to_owned(), state };
                self.messages.get_or_create(&labels).inc_by(int(count));
            }
            let oldest = self.oldest.get_or_create_owned(&labels);
            oldest.set(oldest.get().max(int(queue.oldest_s)));
            self.sent.get_or_create(&labels).inc_by(queue.sent);
            self.received.get_or_create(&labels).inc_by(queue.received);
            self.deleted.get_or_create(&labels).inc_by(queue.deleted);
        }
    }
}

fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use crate::{LogStats, Metrics};

    use super::*;

    #[test]
    fn the_series_of_queues_are_bounded_and_go_with_them() {
        let metrics = Metrics::new(1, &LogStats::default());
        let queue = |i: usize| QueueGauges {
            queue: format!("q{i}"),
            active: 2,
            in_flight: 1,
            oldest_s: i as u64,
            sent: 10,
            ..QueueGauges::default()
        };
        let many: Vec<_> = (0..QUEUES_MAX + 5).map(queue).collect();
        let text = metrics.encode_with_queues(&many);
        for line in [
            "mayfly_queue_messages{queue=\"q7\",state=\"in_flight\"} 1",
            "mayfly_queue_messages{queue=\"other\",state=\"active\"} 10",
            "mayfly_queue_oldest_message_seconds{queue=\"other\"} 204",
            "mayfly_queue_sent_total{queue=\"q7\"} 10",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("q200"));
        let text = metrics.encode_with_queues(&[queue(3)]);
        assert!(text.contains("queue=\"q3\"") && !text.contains("q7") && !text.contains("queue=\"other\""));
    }
}
