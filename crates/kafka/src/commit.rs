//! Commits whose outcome is told.

use rdkafka::TopicPartitionList;
use rdkafka::bindings::{rd_kafka_commit_queue, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{IsError as _, KafkaError, KafkaResult};

/// Commits offsets without waiting. The outcome comes to `ConsumerContext::commit_callback`, from `poll`.
///
/// `Consumer::commit` with `CommitMode::Async` cannot be used: librdkafka tells its outcome only to a callback in the configuration, which the
/// library does not set (its consumers are served by events), so that nobody ever hears of it. Here the outcome is asked for as an event.
pub(crate) fn commit<C: ConsumerContext>(client: &BaseConsumer<C>, offsets: &TopicPartitionList) -> KafkaResult<()> {
    let native = client.client().native_ptr();
    // SAFETY: the client lives while it is borrowed, the list as well, of which the library makes a copy. The queue is one that `poll` serves;
    // the library holds on to it until it has answered, and what is given back here is this reference to it. A queue that is not there (null)
    // would mean waiting for the answer, and is left out.
    let error = unsafe {
        let queue = rd_kafka_queue_get_consumer(native);
        if queue.is_null() {
            return Err(KafkaError::ClientCreation("the consumer has no queue".into()));
        }
        let error = rd_kafka_commit_queue(native, offsets.ptr(), queue, None, std::ptr::null_mut());
        rd_kafka_queue_destroy(queue);
        error
    };
    if error.is_error() { Err(KafkaError::ConsumerCommit(error.into())) } else { Ok(()) }
}
