//! Open WebSockets: each is a task that carries messages to the transport function and what functions push to the visitor.
//!
//! Messages of one connection go to the function one after another, in order; the next is read when the one before is done, so that a
//! connection holds one message at most and a visitor who sends faster waits. Pushes go out meanwhile. Source of events and answers: SCF,
//! "WebSocket", with its register, transport and cleanup functions.

use crate::records::{ConnectionRecord, FunctionRef};
use crate::state::Gateway;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// Largest message in either direction, in bytes. Source: SCF's limit of WebSocket frames, 1 MB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Pushes that wait for a visitor to take them, for each connection.
const QUEUE_MAX: usize = 16;
/// How long a push waits for room in that queue, and how long a visitor may take for one message.
const SEND_PATIENCE: Duration = Duration::from_secs(5);
/// How often ends that could not be told are tried again.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct SocketLimits {
    /// Connections at once.
    pub connections_max: usize,
    /// How long one may be silent in both directions.
    pub idle: Duration,
    /// How long one may last.
    pub life: Duration,
}

/// Why the end of a connection could not be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untold {
    /// For the moment.
    Later(String),
    /// Nobody will ever hear of it: the function is gone.
    Never(String),
}

/// Runs functions.
#[async_trait]
pub trait Caller: Send + Sync + 'static {
    /// Calls a function and waits for its return value. Errors: what is to be logged.
    async fn call(&self, function: &FunctionRef, event: String) -> Result<Vec<u8>, String>;

    /// Hands an event over, durable on return. `again`: it may have been handed over before.
    async fn tell(&self, record: &ConnectionRecord, again: bool) -> Result<(), Untold>;
}

enum Out {
    Message(Message),
    Close,
}

struct Link {
    api: String,
    sender: mpsc::Sender<Out>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub struct SocketCounts {
    /// Connections that were accepted.
    pub opened: AtomicU64,
    /// Connections that were refused: by a register function, or for want of room.
    pub refused: AtomicU64,
    /// Messages of visitors.
    pub received: AtomicU64,
    /// Messages to visitors.
    pub sent: AtomicU64,
}

/// Every open WebSocket.
pub struct Sockets {
    open: Mutex<HashMap<String, Link>>,
    limits: SocketLimits,
    /// Ends that have not been told yet; `true`: of a process before this one.
    untold: Mutex<Vec<(ConnectionRecord, bool)>>,
    stop: watch::Sender<bool>,
    /// What was counted.
    pub counts: SocketCounts,
}

/// A connection that has a place, and an id.
pub struct Place {
    /// Its id, as functions know it: 256 random bits, so that whoever knows it was told.
    pub id: String,
    receiver: mpsc::Receiver<Out>,
    sockets: Arc<Sockets>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sockets.open.lock().remove(&self.id);
    }
}

/// What a push asks for.
#[derive(Debug, Deserialize)]
struct Push {
    websocket: PushBody,
}

#[derive(Debug, Deserialize)]
struct PushBody {
    action: String,
    #[serde(rename = "secConnectionID")]
    id: String,
    #[serde(default, rename = "dataType")]
    data_type: Option<String>,
    #[serde(default)]
    data: Value,
}

/// What becomes of a push: an HTTP status, `errNo`, and a sentence.
pub type Pushed = (u16, u32, String);

impl Push {
    /// What is to be sent. Errors: a sentence for the function.
    fn out(&self) -> Result<Out, String> {
        match self.websocket.action.as_str() {
            "closing" => Ok(Out::Close),
            "data send" => {
                let text = match &self.websocket.data {
                    Value::String(text) => text.clone(),
                    Value::Null => return Err("`data` is missing".into()),
                    other => other.to_string(),
                };
                let message = match self.websocket.data_type.as_deref() {
                    None | Some("text") => Message::text(text),
                    Some("binary") => {
                        let bytes =
                            STANDARD.decode(text.trim()).map_err(|e| format!("binary `data` is base64: {e}"))?;
                        Message::binary(bytes)
                    }
                    Some(other) => {
                        return Err(format!("`dataType` is `{}`; it is text or binary", crate::state::clip(other)));
                    }
                };
                if message.len() > MESSAGE_BYTES_MAX {
                    return Err(format!("`data` has {} bytes; the limit is {MESSAGE_BYTES_MAX}", message.len()));
                }
                Ok(Out::Message(message))
            }
            other => Err(format!("`action` is `{}`; it is `data send` or `closing`", crate::state::clip(other))),
        }
    }
}

impl Sockets {
    /// No connections yet, but perhaps ends of those of a process before this one.
    pub fn new(limits: SocketLimits, left: Vec<ConnectionRecord>) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::default(),
            limits,
            untold: Mutex::new(left.into_iter().map(|record| (record, true)).collect()),
            stop: watch::Sender::new(false),
            counts: SocketCounts::default(),
        })
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.lock().len()
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        self.stop.send_replace(true);
    }

    /// A place for a connection to an API. `None`: there is none left.
    pub fn place(self: &Arc<Self>, api: &str) -> Option<Place> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).expect("the system's random generator works once the system is up");
        let id = STANDARD.encode(random);
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        let mut open = self.open.lock();
        if open.len() >= self.limits.connections_max || *self.stop.borrow() {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        open.insert(id.clone(), Link { api: api.to_owned(), sender });
        Some(Place { id, receiver, sockets: Arc::clone(self) })
    }

    /// What functions ask for at an API's push address.
    pub async fn push(&self, api: &str, body: &[u8]) -> Pushed {
        let push: Push = match serde_json::from_slice(body) {
            Ok(push) => push,
            Err(error) => {
                return (
                    400,
                    400,
                    format!("the body is not {{\"websocket\":{{\"action\",\"secConnectionID\",…}}}}: {error}"),
                );
            }
        };
        let out = match push.out() {
            Ok(out) => out,
            Err(why) => return (400, 400, why),
        };
        let found =
            self.open.lock().get(&push.websocket.id).filter(|link| link.api == api).map(|link| link.sender.clone());
        let Some(sender) = found else {
            return (404, 404, "there is no such connection; it has ended, or belongs to another API".into());
        };
        match tokio::time::timeout(SEND_PATIENCE, sender.send(out)).await {
            Ok(Ok(())) => (200, 0, "ok".into()),
            Ok(Err(_)) => (404, 404, "the connection has ended".into()),
            Err(_) => (429, 429, "the connection takes no more for the moment; try again later".into()),
        }
    }

    /// Tells of ends that could not be told at once, until all has stopped.
    pub async fn settle(&self, gateway: &Gateway, caller: &dyn Caller) {
        loop {
            let waiting = std::mem::take(&mut *self.untold.lock());
            for (record, again) in waiting {
                self.end(gateway, caller, record, again).await;
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }

    /// Tells the end of a connection, and forgets it when that is durable.
    async fn end(&self, gateway: &Gateway, caller: &dyn Caller, record: ConnectionRecord, again: bool) {
        match caller.tell(&record, again).await {
            Ok(()) => {}
            Err(Untold::Never(why)) => {
                tracing::warn!(function = %record.cleanup, why, "the end of a WebSocket is told to nobody");
            }
            Err(Untold::Later(why)) => {
                tracing::warn!(function = %record.cleanup, why, "the end of a WebSocket is told later");
                self.untold.lock().push((record, true));
                return;
            }
        }
        if let Err(error) = gateway.connection_ended(&record.id).await {
            // It is told once more after the next start, under the same id.
            tracing::error!(%error, "a WebSocket that has ended could not be forgotten");
        }
    }
}

/// What a connection carries messages with.
pub struct Carrier {
    /// The configuration, where the connection is noted.
    pub gateway: Arc<Gateway>,
    /// Runs functions.
    pub caller: Arc<dyn Caller>,
    /// Gets each message.
    pub transport: FunctionRef,
    /// What is said of the connection in each event.
    pub context: Value,
    /// What there is to tell at its end.
    pub record: Option<ConnectionRecord>,
}

impl Carrier {
    fn event(&self, id: &str, message: Message) -> Option<String> {
        let (kind, data) = match message {
            Message::Text(text) => ("text", text.to_string()),
            Message::Binary(bytes) => ("binary", STANDARD.encode(bytes)),
            _ => return None,
        };
        let websocket = json!({ "action": "data recv", "secConnectionID": id, "dataType": kind, "data": data });
        Some(json!({ "requestContext": self.context, "websocket": websocket }).to_string())
    }
}

/// The event of a connection that begins or ends.
pub fn state_event(context: &Value, websocket: Value) -> String {
    json!({ "requestContext": context, "websocket": websocket }).to_string()
}

/// What a transport function returned, when that is a push to its own connection: the same as if it had posted it. Ours.
fn replied(value: &[u8], id: &str) -> Option<Out> {
    let push: Push = serde_json::from_slice(value).ok()?;
    if push.websocket.id != id {
        return None;
    }
    push.out().inspect_err(|why| tracing::debug!(why, "a transport function's return value is no push")).ok()
}

type Busy = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Carries a connection until it ends, and tells its end. `stream`: after the handshake; `None`: it never came to be one.
pub async fn carry<S: AsyncRead + AsyncWrite + Unpin>(mut place: Place, stream: Option<S>, mut carrier: Carrier) {
    let sockets = Arc::clone(&place.sockets);
    if let Some(stream) = stream {
        sockets.counts.opened.fetch_add(1, Ordering::Relaxed);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        exchange(&mut place, socket, &carrier).await;
    }
    drop(place);
    if let Some(record) = carrier.record.take() {
        sockets.end(&carrier.gateway, &*carrier.caller, record, false).await;
    }
}

fn close(code: CloseCode, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(place: &mut Place, socket: WebSocketStream<S>, carrier: &Carrier) {
    let sockets = Arc::clone(&place.sockets);
    let (mut sink, mut source) = socket.split();
    let mut stop = sockets.stop.subscribe();
    let life_over = Instant::now() + sockets.limits.life;
    let mut silent_since = Instant::now();
    let mut busy: Option<Busy> = None;
    let mut last = None;
    loop {
        let idle_over = silent_since + sockets.limits.idle;
        let mut out = tokio::select! {
            out = place.receiver.recv() => Some(out.unwrap_or(Out::Close)),
            done = async { busy.as_mut().expect("polled only while there is one").await }, if busy.is_some() => {
                busy = None;
                match done {
                    Ok(value) => replied(&value, &place.id),
                    Err(why) => {
                        tracing::debug!(function = %carrier.transport, why, "a transport function failed");
                        None
                    }
                }
            }
            message = source.next(), if busy.is_none() => {
                silent_since = Instant::now();
                match message {
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                        sockets.counts.received.fetch_add(1, Ordering::Relaxed);
                        if let Some(event) = carrier.event(&place.id, message) {
                            let (caller, function) = (Arc::clone(&carrier.caller), carrier.transport.clone());
                            busy = Some(Box::pin(async move { caller.call(&function, event).await }));
                        }
                        None
                    }
                    // The library has answered a close and ends the stream after it; it answers pings itself.
                    Some(Ok(_)) => None,
                    Some(Err(WsError::Capacity(_))) => {
                        last = Some(close(CloseCode::Size, "a message is larger than 1 MiB"));
                        break;
                    }
                    Some(Err(_)) | None => break,
                }
            }
            () = tokio::time::sleep_until(idle_over.min(life_over)) => {
                // While a function is at work the connection is not idle.
                if busy.is_some() && Instant::now() < life_over {
                    silent_since = Instant::now();
                    continue;
                }
                let reason = if Instant::now() >= life_over { "the connection has lasted its time" } else { "the connection was idle" };
                last = Some(close(CloseCode::Away, reason));
                break;
            }
            _ = stop.wait_for(|stopping| *stopping) => {
                last = Some(close(CloseCode::Restart, "the platform is stopping"));
                break;
            }
        };
        match out.take() {
            None => {}
            Some(Out::Close) => {
                last = Some(close(CloseCode::Normal, ""));
                break;
            }
            Some(Out::Message(message)) => {
                silent_since = Instant::now();
                match tokio::time::timeout(SEND_PATIENCE, sink.send(message)).await {
                    Ok(Ok(())) => drop(sockets.counts.sent.fetch_add(1, Ordering::Relaxed)),
                    // A visitor who takes nothing is gone, or as good as gone.
                    _ => break,
                }
            }
        }
    }
    // A message that is with the function is not taken back; its end is waited for, so that the end of the connection comes after it.
    if let Some(busy) = busy {
        let _ = busy.await;
    }
    if let Some(message) = last {
        let _ = tokio::time::timeout(SEND_PATIENCE, sink.send(message)).await;
        // The visitor's answer to it, so that the last bytes are not lost with the connection.
        let rest = async { while source.next().await.is_some_and(|m| m.is_ok()) {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    }
}

/// What a register function answered: accepted, perhaps with a protocol; or a refusal with its sentence.
pub fn registered(value: &[u8]) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "errNo")]
        number: i64,
        #[serde(default, rename = "errMsg")]
        message: String,
        #[serde(default)]
        websocket: AnswerSocket,
    }
    #[derive(Default, Deserialize)]
    struct AnswerSocket {
        #[serde(default, rename = "secWebSocketProtocol")]
        protocol: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(value).map_err(|_| {
        "the register function did not answer {\"errNo\":0,\"errMsg\":\"ok\",\"websocket\":{…}}".to_owned()
    })?;
    if answer.number != 0 {
        return Err(format!(
            "refused by the register function: {} {}",
            answer.number,
            crate::state::clip(&answer.message)
        ));
    }
    // Demonstrations repeat all that the visitor offers; one is chosen.
    let first = answer.websocket.protocol.and_then(|p| p.split(',').next().map(|p| p.trim().to_owned()));
    Ok(first.filter(|p| !p.is_empty()))
}

/// The `Sec-WebSocket-Accept` of a handshake's key. Source: RFC 6455 §4.2.2.
pub fn accept_key(key: &[u8]) -> String {
    tokio_tungstenite::tungstenite::handshake::derive_accept_key(key)
}

/// Bodies of pushes are no larger than this, in bytes: a message in base64, and its frame.
pub const PUSH_BYTES_MAX: usize = MESSAGE_BYTES_MAX * 4 / 3 + 4096;

/// A push's answer.
pub fn push_answer((status, number, message): Pushed) -> (u16, Bytes) {
    (status, json!({ "errNo": number, "errMsg": message }).to_string().into())
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
