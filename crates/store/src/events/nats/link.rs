//! What is asked of the NATS server, with time-outs, and tried again while it may be on its way back.

use super::address::NatsAddress;
use crate::StoreError;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{ContextBuilder, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{
    Config, DeleteMessageErrorKind, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{Error as JetStreamError, ErrorCode};
use async_nats::{Client, ConnectOptions, Event as Happened, HeaderMap};
use bytes::Bytes;
use futures_util::StreamExt;
use mayfly_model::RequestId;
use std::time::Duration;
use tokio::time::Instant;

/// Wait for one answer.
const ANSWER: Duration = Duration::from_secs(3);
/// How long one thing is tried: long enough for a server to be started again.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// Pause before the next try.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts to connect again.
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// Commands that wait for the connection.
const COMMANDS_MAX: usize = 4096;
/// Events whose heads are read in one go when the log is opened.
const HEADS_MAX: usize = 1000;
/// Room for the head of a message, in bytes.
const HEAD_BYTES: usize = 1024;

const DUE: &str = "Mayfly-Due";
const ATTEMPT: &str = "Mayfly-Attempt";
const SIZE: &str = "Nats-Msg-Size";
const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";

/// What is known of an event without its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Its message's place in the stream.
    pub sequence: u64,
    pub due_ms: u64,
    pub attempt: u32,
    /// Size of the payload.
    pub bytes: usize,
}

/// Why a message was not stored, or may not have been.
pub(super) enum Unsent {
    /// It was not.
    Refused(StoreError),
    /// The newest message of the subject is another than expected.
    Conflict,
    /// The server did not say.
    Unknown(StoreError),
}

/// The connection, and the stream.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    context: async_nats::jetstream::Context,
    stream: Stream,
    prefix: String,
}

fn remote(doing: &'static str) -> impl Fn(String) -> StoreError {
    move |why| StoreError::Remote { doing, why: why.into() }
}

/// True when the server has no room for more.
fn full(code: ErrorCode) -> bool {
    const STREAM_STORE_FAILED: ErrorCode = ErrorCode(10077);
    [
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
        ErrorCode::INSUFFICIENT_RESOURCES,
        ErrorCode::STORAGE_RESOURCES_EXCEEDED,
        STREAM_STORE_FAILED,
    ]
    .contains(&code)
}

impl Link {
    /// Connects, and makes the stream where there is none. `owner` is who may use it.
    pub async fn open(address: &NatsAddress, owner: &str) -> Result<Self, StoreError> {
        let failed = remote("connect to the NATS server of the event log");
        let mut options = ConnectOptions::new()
            .name("mayfly")
            .connection_timeout(ANSWER)
            .request_timeout(Some(ANSWER))
            .client_capacity(COMMANDS_MAX)
            .reconnect_delay_callback(|tries| {
                RECONNECT_MAX.min(Duration::from_millis(20) * u32::try_from(tries).unwrap_or(u32::MAX).min(1000))
            })
            .event_callback(|happened| async move {
                match happened {
                    Happened::Connected => tracing::info!("connected to the NATS server of the event log"),
                    other => tracing::warn!("NATS server of the event log: {other}"),
                }
            });
        options = address.log_in(options);
        if let Some(file) = &address.credentials {
            let text = tokio::fs::read_to_string(file).await.map_err(StoreError::io("read the credentials of NATS"))?;
            options = options.credentials(&text).map_err(|_| StoreError::Invalid {
                what: "the file with credentials of NATS",
                why: "does not hold a JWT and a seed, as `nsc generate creds` writes them",
            })?;
        }
        let client = options.connect(&address.servers[..]).await.map_err(|error| failed(error.to_string()))?;
        let context = ContextBuilder::new()
            .timeout(ANSWER)
            .max_ack_inflight(2 * super::IN_FLIGHT_MAX)
            .backpressure_on_inflight(true)
            .build(client.clone());
        let wanted = Config {
            name: address.stream.clone(),
            subjects: vec![format!("{}.*", address.stream)],
            description: Some(format!("Pending events of the Mayfly platform {owner}")),
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            // A message takes the place of the one before it: a rescheduled event is never in neither.
            max_messages_per_subject: 1,
            num_replicas: address.replicas,
            ..Config::default()
        };
        let failed = remote("open the stream of the event log");
        let stream = context.get_or_create_stream(wanted.clone()).await.map_err(|error| failed(described(&error)))?;
        let found = &stream.cached_info().config;
        if found.description != wanted.description {
            return Err(StoreError::Invalid {
                what: "an event",
                why: "in a stream that belongs to another platform, or to another program: name another one, as in nats://host:4222/OTHER_STREAM",
            });
        }
        if found.max_messages_per_subject != 1 || found.subjects != wanted.subjects || found.storage != wanted.storage {
            return Err(StoreError::Invalid {
                what: "an event",
                why: "in a stream whose settings were changed: it takes one message for each subject, kept in files",
            });
        }
        Ok(Self { client, context, stream, prefix: address.stream.clone() })
    }

    /// Largest payload that the server takes, in bytes.
    pub fn payload_bytes_max(&self) -> usize {
        self.client.max_payload().saturating_sub(HEAD_BYTES)
    }

    /// Sends what waits and closes the connection.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.client.drain().await.map_err(|error| remote("close the event log")(error.to_string()))
    }

    fn subject(&self, id: RequestId) -> String {
        format!("{}.{:032x}", self.prefix, id.0)
    }

    fn id(&self, subject: &str) -> Option<RequestId> {
        let id = subject.strip_prefix(self.prefix.as_str())?.strip_prefix('.')?;
        u128::from_str_radix(id, 16).ok().map(RequestId)
    }

    /// Stores a message as the newest of the event's subject, in the place of the message `expected` (0: there is none), and returns its place.
    pub async fn store(
        &self,
        id: RequestId,
        due_ms: u64,
        attempt: u32,
        payload: Bytes,
        expected: u64,
    ) -> Result<u64, Unsent> {
        let failed = remote("store an event with NATS");
        let mut headers = HeaderMap::new();
        headers.insert(DUE, due_ms.to_string());
        headers.insert(ATTEMPT, attempt.to_string());
        headers.insert(EXPECTED, expected.to_string());
        let deadline = Instant::now() + PATIENCE;
        let mut unsure = false;
        loop {
            let message = PublishMessage::build().headers(headers.clone()).payload(payload.clone());
            let answer = match self.context.send_publish(self.subject(id), message).await {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(ack) => return Ok(ack.sequence),
                Err(error) => error,
            };
            match error.kind() {
                // An attempt that was not answered may have arrived all the same.
                PublishErrorKind::WrongLastSequence if unsure => match self.newest(id).await {
                    Ok(Some(sequence)) if sequence > expected => return Ok(sequence),
                    Ok(_) => return Err(Unsent::Conflict),
                    Err(error) => return Err(Unsent::Unknown(error)),
                },
                PublishErrorKind::WrongLastSequence => return Err(Unsent::Conflict),
                PublishErrorKind::MaxPayloadExceeded => {
                    return Err(Unsent::Refused(StoreError::Invalid {
                        what: "the event",
                        why: "is larger than the NATS server allows (`max_payload`)",
                    }));
                }
                PublishErrorKind::Other if let Some(said) = jetstream(&error) => {
                    if full(said.error_code()) {
                        return Err(Unsent::Refused(StoreError::Full("the NATS server has no room for more events")));
                    }
                    tracing::warn!(%said, "NATS did not store an event");
                }
                // No ear for the subject: JetStream, or the stream's leader, is not up yet.
                PublishErrorKind::StreamNotFound => {}
                _ => unsure = true,
            }
            if Instant::now() + PAUSE >= deadline {
                let error = failed(described(&error));
                return Err(if unsure { Unsent::Unknown(error) } else { Unsent::Refused(error) });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Place of the newest message of an event.
    async fn newest(&self, id: RequestId) -> Result<Option<u64>, StoreError> {
        patiently("look an event up with NATS", || async {
            match self.stream.get_last_raw_message_by_subject(&self.subject(id)).await {
                Ok(message) => Ok(Some(message.sequence)),
                Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
                Err(error) => Err(described(&error)),
            }
        })
        .await
    }

    /// Takes every message of an event away, however many tries it takes.
    pub async fn clear(&self, id: RequestId) -> Result<(), StoreError> {
        patiently("take an event back from NATS", || async {
            self.stream.purge().filter(self.subject(id)).await.map(drop).map_err(|error| described(&error))
        })
        .await
    }

    /// Takes one message away. No error when it is not there.
    pub async fn remove(&self, sequence: u64) -> Result<(), StoreError> {
        patiently("remove an event from NATS", || async move {
            match self.stream.delete_message(sequence).await {
                Ok(_) => Ok(()),
                Err(error) => match error.kind() {
                    // The server has one code for "not there" and for "it went wrong": looking tells.
                    DeleteMessageErrorKind::JetStream(_) => match self.read_once(sequence).await {
                        Ok(None) => Ok(()),
                        _ => Err(described(&error)),
                    },
                    _ => Err(described(&error)),
                },
            }
        })
        .await
    }

    async fn read_once(&self, sequence: u64) -> Result<Option<Vec<u8>>, String> {
        match self.stream.get_raw_message(sequence).await {
            Ok(message) => Ok(Some(message.payload.to_vec())),
            Err(error) if matches!(error.kind(), LastRawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(described(&error)),
        }
    }

    /// The payload at a place of the stream; `None`: there is no message any more.
    pub async fn read(&self, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
        patiently("read an event from NATS", || self.read_once(sequence)).await
    }

    /// Hands the head of every event to `note`, the oldest message first.
    pub async fn heads(&self, mut note: impl FnMut(RequestId, Head)) -> Result<(), StoreError> {
        let failed = remote("read the events that NATS keeps");
        let messages = self.stream.get_info().await.map_err(|error| failed(described(&error)))?.state.messages;
        if messages == 0 {
            return Ok(());
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            headers_only: true,
            memory_storage: true,
            inactive_threshold: Duration::from_secs(60),
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(|error| failed(described(&error)))?;
        loop {
            let batch = consumer.batch().max_messages(HEADS_MAX).expires(ANSWER).messages().await;
            let mut batch = batch.map_err(|error| failed(described(&error)))?;
            let mut some = false;
            while let Some(message) = batch.next().await {
                let message = message.map_err(|error| failed(error.to_string()))?;
                some = true;
                let info = message.info().map_err(|error| failed(error.to_string()))?;
                let (sequence, last) = (info.stream_sequence, info.pending == 0);
                let headers = message.headers.as_ref();
                let number =
                    |name: &str| headers.and_then(|h| h.get(name)).and_then(|v| v.as_str().parse::<u64>().ok());
                let attempt = number(ATTEMPT).and_then(|n| u32::try_from(n).ok());
                match (self.id(&message.subject), number(DUE), attempt) {
                    (Some(id), Some(due_ms), Some(attempt)) => {
                        let bytes = number(SIZE).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                        note(id, Head { sequence, due_ms, attempt, bytes });
                    }
                    // Kept: somebody put it there, and it is no event.
                    _ => {
                        tracing::error!(subject = %message.subject, sequence, "a message of the event log cannot be read")
                    }
                }
                if last {
                    return Ok(());
                }
            }
            if !some {
                return Err(failed("the server stopped answering".into()));
            }
        }
    }
}

/// Does it again while the server may be on its way back.
async fn patiently<T, F>(doing: &'static str, act: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        match act().await {
            Ok(done) => return Ok(done),
            Err(why) if Instant::now() + PAUSE >= deadline => return Err(remote(doing)(why)),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn jetstream(error: &PublishError) -> Option<&JetStreamError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// An error with what it comes from.
fn described(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
