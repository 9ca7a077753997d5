//! Control's way to queues and topics, for dead letters and results.

use async_trait::async_trait;
use bytes::Bytes;
use mayfly_control::{Destinations, SendError};
use mayfly_model::Target;
use mayfly_queues::{ErrorKind, QueueError, Queues};

/// The platform's own queues and topics.
pub struct OwnQueues(pub Queues);

/// A topic without subscribers keeps nothing: what is sent to it is not in safe hands, and is tried again until somebody subscribes.
fn refused(error: QueueError, target: &Target) -> SendError {
    match error.kind {
        ErrorKind::NoQueue | ErrorKind::NoTopic => SendError::NotFound(target.clone()),
        _ => SendError::Unavailable(error.message),
    }
}

#[async_trait]
impl Destinations for OwnQueues {
    async fn check(&self, target: &Target) -> Result<(), SendError> {
        let found = match target {
            Target::Queue { name } => self.0.queue(name).await.map(drop),
            Target::Topic { name, .. } => self.0.topic(name).map(drop),
            Target::Function { .. } => Ok(()),
        };
        found.map_err(|error| refused(error, target))
    }

    async fn send(&self, target: &Target, message: Bytes) -> Result<(), SendError> {
        let text = String::from_utf8_lossy(&message).into_owned();
        let sent = match target {
            Target::Queue { name } => self.0.send(name, text).await,
            Target::Topic { name, tag } => {
                let tags = Some(tag.clone()).filter(|tag| !tag.is_empty());
                self.0.publish(name, text, tags.into_iter().collect()).await
            }
            Target::Function { .. } => {
                return Err(SendError::Unsupported("functions are called by the control API, not by queues"));
            }
        };
        sent.map(drop).map_err(|error| refused(error, target))
    }
}
