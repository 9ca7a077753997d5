//! Control's way to queues and topics. The one place where they come in: what is put into `Ports::destinations`.

use async_trait::async_trait;
use bytes::Bytes;
use mayfly_control::{Destinations, SendError};
use mayfly_model::Target;

/// A platform without queues and topics.
pub struct NoQueues;

const WHY: SendError = SendError::Unsupported("there are no queues on this platform");

#[async_trait]
impl Destinations for NoQueues {
    async fn check(&self, _target: &Target) -> Result<(), SendError> {
        Err(WHY)
    }

    async fn send(&self, _target: &Target, _message: Bytes) -> Result<(), SendError> {
        Err(WHY)
    }
}
