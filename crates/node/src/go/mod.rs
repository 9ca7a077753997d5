//! Functions in Go: programs built on SCF's Go library (`tencentyun/scf-go-lib`, `cloudfunction.Start`), or on AWS's, whose protocol is
//! the same: the program serves Go's `net/rpc` on a TCP port of its own, and the platform calls `Function.Ping` and `Function.Invoke`.
//!
//! The program is the function's own and nothing of ours runs in the sandbox: the node connects to its loopback from outside.

mod gob;

use crate::error::Refusal;
use crate::output::{Output, Printed};
use crate::pool::Pool;
use crate::start::{append_output, find_program};
use crate::worker::{Line, Lost, Waiting, format_id, send_queued};
use crate::{Inner, environment};
use gob::{Decoder, GobError, StructWriter, Value, id};
use mayfly_base::loops::Roaming;
use mayfly_guest::{FrameError, Kind};
use mayfly_model::{RequestId, Status, VersionSpec, limits};
use mayfly_sandbox::Instance;
use mayfly_store::CodeTree;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};

/// The port that the program is told to serve. (28902 is where sandboxes of this kind have the runtime API.)
pub const PROGRAM_PORT: u16 = 28903;
/// Pauses between looks whether the program listens yet.
const LISTEN_PAUSE_MIN: Duration = Duration::from_micros(500);
const LISTEN_PAUSE_MAX: Duration = Duration::from_millis(2);
/// Frames of a stack that are told.
const FRAMES_MAX: usize = 64;

const REQUEST: i64 = 65;
const INVOKE_REQUEST: i64 = 66;
const TIMESTAMP: i64 = 67;
const PING_REQUEST: i64 = 68;

/// The fields of `messages.InvokeRequest`, by number. Go matches fields by name; those that a program's library does not know it skips.
const INVOKE_FIELDS: [(&str, i64); 16] = [
    ("Payload", id::BYTES),
    ("RequestId", id::STRING),
    ("TraceId", id::STRING),
    ("Deadline", TIMESTAMP),
    ("InvokedFunctionUnique", id::STRING),
    ("InvokedFunctionArn", id::STRING),
    ("ClientContext", id::BYTES),
    ("Namespace", id::STRING),
    ("FunctionName", id::STRING),
    ("FunctionVersion", id::STRING),
    ("MemoryLimitInMb", id::INT),
    ("TimeLimitInMs", id::INT),
    ("Environment", id::STRING),
    ("TencentcloudRegion", id::STRING),
    ("TencentcloudAppID", id::STRING),
    ("TencentcloudUin", id::STRING),
];

/// Starts the function's program in `process` and waits until it answers.
pub(crate) async fn launch(
    inner: &Inner,
    pool: &Pool,
    process: &mut Waiting,
    printed: &mut Printed,
    trees: &[Arc<CodeTree>],
) -> Result<(), Refusal> {
    let config = &pool.spec.config;
    let name = config.handler.as_str();
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Refusal::new(Status::HANDLER_NOT_FOUND, "The handler is no file of the package"));
    }
    let program = find_program(name, trees)?;
    let environment = environment::build(&pool.spec, &inner.options, process.inside.as_ref());
    let facts = Facts::new(&pool.spec, inner, &environment);
    let environment = environment.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    process.instance.launch(vec![program], environment).await.map_err(|e| Refusal::internal(&e))?;
    let limit_s = config.init_timeout_s;
    let limit = Duration::from_secs(u64::from(limit_s));
    let greeted = tokio::time::timeout(limit, greet(&process.instance, &mut process.output, printed, facts)).await;
    let mut refusal = match greeted {
        Ok(Ok(line)) => {
            process.line = Line::Go(Box::new(line));
            return Ok(());
        }
        _ if process.instance.ran_out_of_memory() => Refusal::new(
            Status::MEMORY_LIMIT,
            format!("Memory limit of {} MB exceeded during initialisation; the process was killed", config.memory_mb),
        ),
        Ok(Err(refusal)) => refusal,
        Err(_) => Refusal::new(
            Status::INIT_TIMEOUT,
            format!("The program did not call `cloudfunction.Start` within the limit of {limit_s} seconds"),
        ),
    };
    process.output.drain(printed);
    append_output(&mut refusal, printed);
    Err(refusal)
}

async fn greet(
    instance: &Arc<dyn Instance>,
    output: &mut Output,
    printed: &mut Printed,
    facts: Facts,
) -> Result<GoLine, Refusal> {
    let ended = || Refusal::new(Status::INIT_ERROR, "The program ended before it called `cloudfunction.Start`");
    let connecting = connect(instance);
    tokio::pin!(connecting);
    let stream = loop {
        tokio::select! {
            biased;
            stream = &mut connecting => break stream?,
            more = output.pump(printed) => if !more {
                return Err(ended());
            },
        }
    };
    let mut line = GoLine::new(stream, facts);
    line.ping();
    match line.exchange(output, printed).await {
        Ok(_) => Ok(line),
        Err(Lost::Frame(_)) => {
            let message = "What the program serves is not the protocol of `cloudfunction.Start`";
            Err(Refusal::new(Status::INIT_ERROR, message))
        }
        Err(_) => Err(ended()),
    }
}

/// Waits until the program takes a connection.
async fn connect(instance: &Arc<dyn Instance>) -> Result<TcpStream, Refusal> {
    let mut pause = LISTEN_PAUSE_MIN;
    loop {
        let socket = instance.open_socket().await.map_err(|e| Refusal::internal(&e))?;
        let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
        if let Ok(stream) = socket.connect(([127, 0, 0, 1], PROGRAM_PORT).into()).await {
            let _ = stream.set_nodelay(true);
            return Ok(stream);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LISTEN_PAUSE_MAX);
    }
}

/// What every call tells of the function.
struct Facts {
    spec: VersionSpec,
    region: String,
    app_id: String,
    uin: String,
    /// JSON text.
    environment: String,
}

impl Facts {
    fn new(spec: &VersionSpec, inner: &Inner, environment: &std::collections::BTreeMap<String, String>) -> Self {
        let options = &inner.options;
        Self {
            spec: spec.clone(),
            region: options.region.clone(),
            app_id: options.app_id.clone(),
            uin: options.uin.clone(),
            environment: serde_json::to_string(environment).expect("a map of texts can be expressed in JSON"),
        }
    }

    fn write(&self, call: &mut StructWriter<'_>, request_id: &str, deadline_ms: u64, event: &[u8]) {
        let (spec, config) = (&self.spec, &self.spec.config);
        let unique = format!(
            "qcs::scf:{}:uin/{}:namespace/{}/function/{}",
            self.region, self.uin, spec.namespace, spec.function
        );
        let arn = format!("arn:aws:lambda:{}:{}:function:{}", self.region, self.uin, spec.function);
        let ms = i64::try_from(deadline_ms).unwrap_or(i64::MAX);
        call.bytes(0, event)
            .bytes(1, request_id.as_bytes())
            .nested(3, |deadline| {
                deadline.int(0, ms / 1000).int(1, ms % 1000 * 1_000_000);
            })
            .bytes(4, unique.as_bytes())
            .bytes(5, arn.as_bytes())
            .bytes(7, spec.namespace.as_str().as_bytes())
            .bytes(8, spec.function.as_str().as_bytes())
            .bytes(9, spec.key.version.as_bytes())
            .int(10, i64::from(config.memory_mb))
            .int(11, i64::from(config.timeout_s) * 1000)
            .bytes(12, self.environment.as_bytes())
            .bytes(13, self.region.as_bytes())
            .bytes(14, self.app_id.as_bytes())
            .bytes(15, self.uin.as_bytes());
    }
}

/// The connection to a program. One call at a time.
pub struct GoLine {
    stream: Roaming<TcpStream>,
    input: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    decoder: Decoder,
    /// Number of the call.
    seq: u64,
    /// What is said about the next value: it is a header, or the body that belongs to a header with this error text.
    body_of: Option<String>,
    /// Bytes of a message that is too long, still to come.
    skip: u64,
    /// The program said that it cannot go on.
    ended: bool,
    facts: Facts,
}

/// What a call gave.
type Called = Result<Vec<u8>, Refusal>;

impl GoLine {
    fn new(stream: TcpStream, facts: Facts) -> Self {
        let mut outgoing = Vec::with_capacity(4096);
        gob::put_struct_type(&mut outgoing, "Request", REQUEST, &[("ServiceMethod", id::STRING), ("Seq", id::UINT)]);
        gob::put_struct_type(&mut outgoing, "PingRequest", PING_REQUEST, &[]);
        gob::put_struct_type(&mut outgoing, "InvokeRequest", INVOKE_REQUEST, &INVOKE_FIELDS);
        let timestamp = [("Seconds", id::INT), ("Nanos", id::INT)];
        gob::put_struct_type(&mut outgoing, "InvokeRequest_Timestamp", TIMESTAMP, &timestamp);
        Self {
            stream: Roaming::new(stream),
            input: Vec::with_capacity(4096),
            outgoing,
            sent: 0,
            decoder: Decoder::default(),
            seq: 0,
            body_of: None,
            skip: 0,
            ended: false,
            facts,
        }
    }

    fn call(&mut self, method: &str) {
        self.seq += 1;
        let seq = self.seq;
        gob::put_struct(&mut self.outgoing, REQUEST, |request| {
            request.bytes(0, method.as_bytes()).uint(1, seq);
        });
    }

    fn ping(&mut self) {
        self.call("Function.Ping");
        gob::put_struct(&mut self.outgoing, PING_REQUEST, |_| {});
    }

    /// Puts an event on its way; [`Self::exchange`] does the sending.
    pub fn begin(&mut self, request_id: RequestId, deadline_ms: u64, event: &[u8]) {
        self.call("Function.Invoke");
        let mut text = [0u8; 36];
        let request_id = format_id(request_id, &mut text);
        gob::put_struct(&mut self.outgoing, INVOKE_REQUEST, |call| {
            self.facts.write(call, request_id, deadline_ms, event);
        });
    }

    /// False when the program is gone, or said that it cannot go on.
    pub fn is_open(&self) -> bool {
        let mut byte = [0; 1];
        // Nothing is due from an idle program: a byte is as bad as the end.
        let is_open =
            |stream: &TcpStream| matches!(stream.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        !self.ended && self.stream.as_is().is_some_and(is_open)
    }

    /// Sends what is queued and waits for the answer to the call. All state is in `self`, so that a dropped call can be taken up again.
    pub async fn exchange(&mut self, output: &mut Output, printed: &mut Printed) -> Result<Called, Lost> {
        send_queued(&mut self.stream, (&mut self.outgoing, &mut self.sent), output, printed).await?;
        loop {
            if let Some(called) = self.take()? {
                if self.input.capacity() > 1 << 20 {
                    self.input.shrink_to(4096);
                }
                return Ok(called);
            }
            if self.input.capacity() - self.input.len() < 4096 {
                self.input.reserve(self.input.len().max(16384));
            }
            let stream = self.stream.here().map_err(|_| Lost::Closed)?;
            match stream.try_read_buf(&mut self.input) {
                Ok(0) => return Err(Lost::Closed),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        ready = stream.readable() => ready.map_err(|_| Lost::Closed)?,
                        _ = output.pump(printed) => {}
                    }
                }
                // TCP says "reset" when the other end was closed with bytes unread: the event, of which the handler has seen nothing.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(Lost::Unsent),
                Err(_) => return Err(Lost::Closed),
            }
        }
    }

    /// Takes what has come of the answer. `None`: there is more to come.
    fn take(&mut self) -> Result<Option<Called>, Lost> {
        loop {
            if self.skip > 0 {
                let count = self.input.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                self.input.drain(..count);
                self.skip -= count as u64;
                if self.skip > 0 {
                    return Ok(None);
                }
                self.body_of = None;
                return Ok(Some(Err(too_large())));
            }
            let message = match self.decoder.next(&self.input) {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                // Only a return value can be as long as that.
                Err(GobError::TooLong(bytes)) if self.body_of.is_some() => {
                    self.skip = bytes;
                    continue;
                }
                Err(e) => return Err(broken(&e)),
            };
            let length = message.length;
            let called = match message.value {
                None => None,
                Some(value) => match self.body_of.take() {
                    None => {
                        if !matches!(value.get("Seq"), Some(Value::Uint(seq)) if *seq == self.seq) {
                            return Err(broken(&"an answer to another call"));
                        }
                        self.body_of = Some(value.text("Error"));
                        None
                    }
                    Some(error) => Some(read_answer(&value, error, &mut self.ended)),
                },
            };
            self.input.drain(..length);
            if called.is_some() {
                return Ok(called);
            }
        }
    }
}

fn broken(why: &dyn std::fmt::Display) -> Lost {
    Lost::Frame(FrameError::Payload(Kind::Result, why.to_string()))
}

fn too_large() -> Refusal {
    let message = format!("The return value is larger than {} bytes", limits::RESULT_BYTES_MAX);
    Refusal::new(Status::RESPONSE_TOO_LARGE, message)
}

/// What an `InvokeResponse` says. `error` is that of `net/rpc` itself.
fn read_answer(answer: &Value<'_, '_>, error: String, ended: &mut bool) -> Called {
    if !error.is_empty() {
        return Err(Refusal::new(Status::USER_EXCEPTION, error));
    }
    let Some(error) = answer.get("Error") else {
        let payload = answer.bytes("Payload");
        return if payload.len() > limits::RESULT_BYTES_MAX { Err(too_large()) } else { Ok(payload.to_vec()) };
    };
    *ended = matches!(error.get("ShouldExit"), Some(Value::Bool(true)));
    let message = error.text("Message");
    let frames = match error.get("StackTrace") {
        Some(Value::List(frames)) => frames.as_slice(),
        _ => &[],
    };
    let stack = match user_frames(frames) {
        frames if frames.is_empty() => String::new(),
        frames => format!("panic: {message}\n\n{}", frames.concat()),
    };
    Err(Refusal { status: Status::USER_EXCEPTION, message, error_type: error.text("Type"), stack })
}

/// The user's frames, as Go prints them: above them the panic's own machinery is left out, below them what called the handler.
fn user_frames(frames: &[Value<'_, '_>]) -> Vec<String> {
    let is_runtime = |f: &Value<'_, '_>| f.text("Path").starts_with("runtime/");
    let is_caller = |f: &Value<'_, '_>| {
        let path = f.text("Path");
        path.starts_with("reflect/") || path.contains("scf-go-lib") || path.contains("aws-lambda-go")
    };
    // The first frames are the library's, which catches the panic; then comes Go's, which began it.
    let thrown = frames.iter().position(|f| f.text("Label").ends_with("gopanic")).unwrap_or(0);
    let users = frames[thrown..].iter().skip_while(|f| is_runtime(f)).take_while(|f| !is_caller(f)).take(FRAMES_MAX);
    users
        .map(|frame| {
            let line = match frame.get("Line") {
                Some(Value::Int(line)) => *line,
                _ => 0,
            };
            format!("{}(...)\n\t{}:{line}\n", frame.text("Label"), frame.text("Path"))
        })
        .collect()
}
