//! One process that runs invocations: the line to it, what it prints, and the sandbox around it.

use crate::error::Refusal;
use crate::go::GoLine;
use crate::inside::Inside;
use crate::output::{Output, Printed};
use crate::pool::Lease;
use crate::runtime_api::RuntimeApi;
use crate::start::TemplateProcess;
use mayfly_base::loops::{Registered, Roaming, here};
use mayfly_guest::{FrameError, Hello, Kind, PROTOCOL, put_invoke, take_frame};
use mayfly_model::{ColdStart, RequestId, Status};
use mayfly_sandbox::{Instance, SandboxError};
use mayfly_store::CodeTree;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// A process that nobody has bound to a function yet.
pub struct Waiting {
    /// The sandbox.
    pub instance: Arc<dyn Instance>,
    /// The line to the process.
    pub line: Line,
    /// What it prints.
    pub output: Output,
    /// What it has of the platform's services; for functions with a role.
    pub inside: Option<Inside>,
}

/// How the node speaks to the process.
pub enum Line {
    /// Frames on a stream.
    Shim(Shim),
    /// HTTP, at the process's own asking.
    Custom(RuntimeApi),
    /// Calls to a program in Go.
    Go(Box<GoLine>),
}

/// Why a line gave no answer.
#[derive(Debug)]
pub enum Lost {
    /// The line was closed before the whole event was sent, or read at the other end: the function has not begun.
    Unsent,
    /// The process ended or closed the line.
    Closed,
    /// It said something that is not in the protocol.
    Frame(FrameError),
    /// The deadline passed.
    Deadline,
}

impl Waiting {
    /// Takes over a new sandbox, and waits for its process's HELLO if there is a shim in it.
    pub async fn greet(mut instance: Box<dyn Instance>, patience: Duration) -> Result<Self, SandboxError> {
        let failed = |reason: String| SandboxError::Failed { what: "greet a new process", reason };
        let missing = || failed("its sandbox came without its descriptors".into());
        let output = Output::new(instance.take_output().ok_or_else(missing)?).map_err(|e| failed(e.to_string()))?;
        let (stream, listener) = (instance.take_stream(), instance.take_listener());
        let line = match (stream, listener) {
            (Some(stream), _) => Line::Shim(Shim::new(stream.into()).map_err(|e| failed(e.to_string()))?),
            (None, Some(listener)) => {
                Line::Custom(RuntimeApi::start(listener.into()).map_err(|e| failed(e.to_string()))?)
            }
            (None, None) => return Err(missing()),
        };
        let mut waiting = Self { instance: Arc::from(instance), line, output, inside: None };
        if let Line::Shim(_) = waiting.line {
            let mut printed = Printed::default();
            let (kind, payload) = waiting
                .listen(&mut printed, Instant::now() + patience)
                .await
                .map_err(|lost| failed(format!("no HELLO: {lost:?}; it printed: {}", printed.into_text().0)))?;
            if kind != Kind::Hello {
                let said = String::from_utf8_lossy(&payload[..payload.len().min(1024)]).into_owned();
                return Err(failed(format!("{kind:?} came for HELLO: {said}")));
            }
            let hello: Hello = mayfly_guest::payload(kind, &payload).map_err(|e| failed(e.to_string()))?;
            if hello.protocol != PROTOCOL {
                return Err(failed(format!("it speaks protocol {}", hello.protocol)));
            }
        }
        Ok(waiting)
    }

    /// False when the process is known to be gone.
    pub fn is_alive(&mut self) -> bool {
        match &mut self.line {
            Line::Shim(shim) => shim.is_open(),
            Line::Custom(_) => !self.output.ended(),
            Line::Go(line) => line.is_open(),
        }
    }

    /// True when it should take no further work, because its keys are old.
    pub fn is_old(&self) -> bool {
        self.inside.as_ref().is_some_and(Inside::is_old)
    }

    /// Waits for the next frame, taking what is printed meanwhile. Safe to drop while waiting.
    pub async fn listen(&mut self, printed: &mut Printed, deadline: Instant) -> Result<(Kind, Vec<u8>), Lost> {
        let Line::Shim(shim) = &mut self.line else { return Err(Lost::Closed) };
        let exchange = shim.exchange(&mut self.output, printed);
        match tokio::time::timeout_at(deadline.into(), exchange).await {
            Ok(result) => result,
            Err(_) => Err(Lost::Deadline),
        }
    }
}

/// The host's end of the stream to a shim.
pub struct Shim {
    stream: Roaming<UnixStream>,
    input: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Shim {
    fn new(stream: std::os::unix::net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let stream = Roaming::new(UnixStream::from_std(stream)?);
        Ok(Self { stream, input: Vec::with_capacity(4096), outgoing: Vec::with_capacity(1024), sent: 0 })
    }

    /// Puts one frame on its way; [`Self::exchange`] does the sending.
    pub fn queue(&mut self, kind: Kind, payload: &[u8]) {
        mayfly_guest::put_frame(&mut self.outgoing, kind, payload);
    }

    fn is_open(&mut self) -> bool {
        let mut byte = [0; 1];
        // Nothing is due from an idle shim: a byte is as bad as the end of file.
        self.stream
            .as_is()
            .is_some_and(|stream| matches!(stream.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock))
    }

    /// Sends what is queued and waits for one frame. All state is in `self`, so that a dropped call can be taken up again.
    async fn exchange(&mut self, output: &mut Output, printed: &mut Printed) -> Result<(Kind, Vec<u8>), Lost> {
        send_queued(&mut self.stream, (&mut self.outgoing, &mut self.sent), output, printed).await?;
        let stream = self.stream.here().map_err(|_| Lost::Closed)?;
        loop {
            if let Some((kind, range, len)) = take_frame(&self.input).map_err(Lost::Frame)? {
                let payload = self.input[range].to_vec();
                self.input.drain(..len);
                if self.input.capacity() > 1 << 20 {
                    self.input.shrink_to(4096);
                }
                return Ok((kind, payload));
            }
            if self.input.capacity() - self.input.len() < 4096 {
                self.input.reserve(self.input.len().max(16384));
            }
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
                // A Unix socket says "reset" when its other end was closed with bytes unread. All that can be unread is the event:
                // the process ended of itself between two invocations, just as this one was sent.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(Lost::Unsent),
                Err(_) => return Err(Lost::Closed),
            }
        }
    }
}

/// Sends what is queued, taking what is printed meanwhile. `queue` holds the bytes and how many of them have gone; a dropped call can be
/// taken up again.
pub(crate) async fn send_queued<T: Registered + AsyncWrite + Unpin>(
    stream: &mut Roaming<T>,
    queue: (&mut Vec<u8>, &mut usize),
    output: &mut Output,
    printed: &mut Printed,
) -> Result<(), Lost> {
    let (outgoing, sent) = queue;
    while *sent < outgoing.len() {
        tokio::select! {
            biased;
            written = stream.write(&outgoing[*sent..]) => *sent += written.map_err(|_| Lost::Unsent)?,
            _ = output.pump(printed) => {}
        }
    }
    outgoing.clear();
    *sent = 0;
    // One large event must not be held by every instance for ever.
    if outgoing.capacity() > 1 << 20 {
        outgoing.shrink_to(4096);
    }
    Ok(())
}

/// A process in which a function is loaded.
pub struct Worker {
    /// The process.
    pub process: Waiting,
    /// What it printed that no invocation's log has yet: the output of initialisation, first.
    pub printed: Printed,
    /// How it started, until an invocation has reported it.
    pub cold_start: Option<ColdStart>,
    /// When it became idle.
    pub idle_since: Instant,
    /// The event loop that used it last.
    pub home: usize,
    /// Use tick: which of two idle workers was used longer ago.
    pub used: u64,
    memory: (u64, Option<Instant>),
    /// Its place in quota and pool; given up when the worker is dropped.
    pub lease: Lease,
    /// The code must not be collected while it is mounted.
    pub trees: Vec<Arc<CodeTree>>,
    /// What it was forked from. Goes last.
    template: Option<TemplateProcess>,
}

/// How often the peak of memory is looked up at most: the file costs as much as a short function.
pub(crate) const MEMORY_SAMPLE: Duration = Duration::from_millis(50);

impl Worker {
    /// Puts the parts together.
    pub fn new(
        process: Waiting,
        printed: Printed,
        cold_start: ColdStart,
        lease: Lease,
        trees: Vec<Arc<CodeTree>>,
    ) -> Self {
        lease.register(&process.instance);
        Self {
            process,
            printed,
            cold_start: Some(cold_start),
            idle_since: Instant::now(),
            home: here(),
            used: 0,
            memory: (0, None),
            lease,
            trees,
            template: None,
        }
    }

    /// Keeps the process that it was forked from alive as long as itself.
    pub fn forked_from(mut self, template: TemplateProcess) -> Self {
        self.template = Some(template);
        self
    }

    /// Puts an event on its way.
    pub fn begin(&mut self, request_id: RequestId, deadline_ms: u64, event: &[u8], limits: (u32, u32)) {
        match &mut self.process.line {
            Line::Shim(shim) => {
                let mut text = [0u8; 36];
                let id = format_id(request_id, &mut text);
                put_invoke(&mut shim.outgoing, id, deadline_ms, event);
            }
            Line::Custom(api) => api.begin(request_id, deadline_ms, event, limits),
            Line::Go(line) => line.begin(request_id, deadline_ms, event),
        }
    }

    /// Waits for the answer to the event. Safe to drop and to take up again.
    pub async fn answer(&mut self, deadline: Instant) -> Result<Result<Vec<u8>, Refusal>, Lost> {
        match &mut self.process.line {
            Line::Shim(_) => {
                let (kind, payload) = self.process.listen(&mut self.printed, deadline).await?;
                match kind {
                    Kind::Result => Ok(Ok(payload)),
                    Kind::Error => {
                        let failure = mayfly_guest::payload(kind, &payload).map_err(Lost::Frame)?;
                        Ok(Err(Refusal::from_shim(failure)))
                    }
                    other => Err(Lost::Frame(FrameError::UnknownKind(other as u8))),
                }
            }
            Line::Go(line) => {
                let exchange = line.exchange(&mut self.process.output, &mut self.printed);
                match tokio::time::timeout_at(deadline.into(), exchange).await {
                    Ok(result) => result,
                    Err(_) => Err(Lost::Deadline),
                }
            }
            Line::Custom(api) => {
                let (output, printed) = (&mut self.process.output, &mut self.printed);
                let answer = async {
                    loop {
                        tokio::select! {
                            biased;
                            answer = api.answer() => return answer,
                            more = output.pump(printed) => if !more {
                                return Err(api.lost());
                            },
                        }
                    }
                };
                match tokio::time::timeout_at(deadline.into(), answer).await {
                    Ok(result) => result,
                    Err(_) => Err(Lost::Deadline),
                }
            }
        }
    }

    /// Takes what was printed up to now.
    pub fn take_printed(&mut self) -> Printed {
        self.process.output.drain(&mut self.printed);
        std::mem::take(&mut self.printed)
    }

    /// Peak memory, in bytes. `exact`: as of now; else it may be a little old.
    pub fn memory_peak_bytes(&mut self, exact: bool) -> u64 {
        if exact || self.memory.1.is_none_or(|at| at.elapsed() > MEMORY_SAMPLE) {
            self.memory = (self.process.instance.memory_peak_bytes(), Some(Instant::now()));
        }
        self.memory.0
    }

    /// What a lost line means for the invocation that ran.
    pub fn explain(&self, lost: &Lost, timeout_s: u32, memory_mb: u32) -> Refusal {
        match lost {
            Lost::Deadline => {
                Refusal::new(Status::TIME_LIMIT, format!("Invoking task timed out after {timeout_s} seconds"))
            }
            _ if self.process.instance.ran_out_of_memory() => Refusal::new(
                Status::MEMORY_LIMIT,
                format!("Memory limit of {memory_mb} MB exceeded; the process was killed"),
            ),
            Lost::Closed | Lost::Unsent => Refusal::new(Status::PROCESS_EXIT, "The process ended before it answered"),
            Lost::Frame(error) => {
                Refusal::new(Status::PROCESS_EXIT, format!("The process broke the line to the platform: {error}"))
            }
        }
    }
}

pub(crate) fn format_id(id: RequestId, buffer: &mut [u8; 36]) -> &str {
    use std::io::Write;
    write!(&mut buffer[..], "{id}").expect("a request id has 36 characters");
    std::str::from_utf8(buffer).expect("a request id is ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Sends an event to a peer that reads `read` bytes of it (`None`: all) and closes the line.
    async fn lost_after(read: Option<usize>) -> Lost {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        let (pipe, _writer) = io::pipe().expect("a pipe");
        let mut output = Output::new(pipe.into()).expect("an output");
        let mut shim = Shim::new(ours).expect("a shim");
        shim.queue(Kind::Invoke, &[7; 100]);
        let length = read.unwrap_or(shim.outgoing.len());
        let peer = std::thread::spawn(move || theirs.read_exact(&mut vec![0; length]));
        let mut printed = Printed::default();
        let lost = shim.exchange(&mut output, &mut printed).await.expect_err("the peer never answers");
        peer.join().expect("the peer reads").expect("as much as was sent");
        lost
    }

    #[tokio::test]
    async fn an_event_that_nobody_read_has_not_begun() {
        assert!(matches!(lost_after(Some(1)).await, Lost::Unsent));
        assert!(matches!(lost_after(Some(107)).await, Lost::Unsent));
        assert!(matches!(lost_after(None).await, Lost::Closed));
    }
}
