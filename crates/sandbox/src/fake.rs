//! A backend without isolation for tests of the node: each "sandbox" is a task that speaks the shim's side of the protocol and does
//! what its handler's name says.

use crate::{Backend, Binding, Instance, SandboxError};
use async_trait::async_trait;
use mayfly_guest::{Kind, put_frame, take_frame};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The fake. Handlers: `f.echo` answers the event; `f.sleep` sleeps the milliseconds that the event is; `f.throw` fails with 430;
/// `f.exit` ends; `f.initfail` fails to load with 443; `f.initslow` loads for 300 ms; `f.hang` never answers; `f.print` prints the event.
#[derive(Clone, Default)]
pub struct FakeBackend {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    next: AtomicU64,
    alive: AtomicUsize,
    prepared: AtomicUsize,
    forked: AtomicUsize,
    initialised: AtomicUsize,
    stopped: AtomicBool,
    refuse: AtomicBool,
}

impl FakeBackend {
    /// Sandboxes alive now.
    pub fn alive(&self) -> usize {
        self.shared.alive.load(Ordering::SeqCst)
    }

    /// Sandboxes prepared so far.
    pub fn prepared(&self) -> usize {
        self.shared.prepared.load(Ordering::SeqCst)
    }

    /// Sandboxes forked so far.
    pub fn forked(&self) -> usize {
        self.shared.forked.load(Ordering::SeqCst)
    }

    /// Times that a function's module-level code has run.
    pub fn initialised(&self) -> usize {
        self.shared.initialised.load(Ordering::SeqCst)
    }

    /// From now on the machine refuses (or grants again) new sandboxes.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::SeqCst);
    }

    fn make(&self, handler: Option<String>) -> Result<Box<dyn Instance>, SandboxError> {
        if self.shared.stopped.load(Ordering::SeqCst) {
            return Err(SandboxError::Stopped);
        }
        if self.shared.refuse.load(Ordering::SeqCst) {
            return Err(SandboxError::Failed { what: "prepare a sandbox", reason: "told to refuse".into() });
        }
        let failed = |e: std::io::Error| SandboxError::io("prepare a sandbox", &e);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let (output, printer) = crate::sys::pipe().map_err(failed)?;
        let killer = ours.try_clone().map_err(failed)?;
        let shared = Arc::clone(&self.shared);
        shared.alive.fetch_add(1, Ordering::SeqCst);
        let told = Arc::new(parking_lot::Mutex::new(handler));
        let known = Arc::clone(&told);
        std::thread::spawn(move || {
            let _ = Shim { stream: theirs, printer: printer.into(), known, shared: Arc::clone(&shared) }.run();
            shared.alive.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(Box::new(FakeInstance {
            id: self.shared.next.fetch_add(1, Ordering::SeqCst),
            handler: told,
            killer,
            stream: Some(ours.into()),
            output: Some(output),
        }))
    }
}

#[async_trait]
impl Backend for FakeBackend {
    async fn prepare(&self, runtime: &str) -> Result<Box<dyn Instance>, SandboxError> {
        if runtime == "nonesuch" {
            return Err(SandboxError::NoRuntime(runtime.into(), "the fake has none of that name".into()));
        }
        self.shared.prepared.fetch_add(1, Ordering::SeqCst);
        self.make(None)
    }

    async fn fork(&self, template: &dyn Instance) -> Result<Box<dyn Instance>, SandboxError> {
        let template = template.as_any().downcast_ref::<FakeInstance>().ok_or(SandboxError::Stopped)?;
        let handler = template.handler.lock().clone();
        self.shared.forked.fetch_add(1, Ordering::SeqCst);
        self.make(handler)
    }

    fn guarantees(&self) -> Vec<(String, Result<String, String>)> {
        vec![("isolation".into(), Err("this is a fake".into()))]
    }

    async fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
    }
}

struct FakeInstance {
    id: u64,
    handler: Arc<parking_lot::Mutex<Option<String>>>,
    killer: UnixStream,
    stream: Option<OwnedFd>,
    output: Option<OwnedFd>,
}

impl Drop for FakeInstance {
    fn drop(&mut self) {
        self.kill();
    }
}

#[async_trait]
impl Instance for FakeInstance {
    fn id(&self) -> u64 {
        self.id
    }

    async fn bind(&self, _: Binding) -> Result<(), SandboxError> {
        Ok(())
    }

    async fn bind_workspace(&self, _: Binding, _: crate::Workspace) -> Result<OwnedFd, SandboxError> {
        Err(SandboxError::Failed { what: "bind a sandbox to build in", reason: "the fake builds nothing".into() })
    }

    async fn launch(&self, _: Vec<String>, _: Vec<String>) -> Result<(), SandboxError> {
        Err(SandboxError::Failed { what: "start the program", reason: "the fake runs none".into() })
    }

    fn take_stream(&mut self) -> Option<OwnedFd> {
        self.stream.take()
    }

    fn take_output(&mut self) -> Option<OwnedFd> {
        self.output.take()
    }

    fn take_listener(&mut self) -> Option<OwnedFd> {
        None
    }

    async fn open_socket(&self) -> Result<OwnedFd, SandboxError> {
        Err(SandboxError::Failed { what: "open a socket in the sandbox", reason: "the fake has no network".into() })
    }

    async fn listen_inside(&self) -> Result<(std::net::TcpListener, std::net::UdpSocket), SandboxError> {
        Err(SandboxError::Failed { what: "listen in the sandbox", reason: "the fake has no network".into() })
    }

    fn terminate(&self) {
        self.kill();
    }

    fn kill(&self) {
        let _ = self.killer.shutdown(std::net::Shutdown::Both);
    }

    fn memory_peak_bytes(&self) -> u64 {
        1 << 20
    }

    fn ran_out_of_memory(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

/// The shim's side.
struct Shim {
    stream: UnixStream,
    printer: std::fs::File,
    known: Arc<parking_lot::Mutex<Option<String>>>,
    shared: Arc<Shared>,
}

impl Shim {
    fn send(&mut self, kind: Kind, payload: &str) -> std::io::Result<()> {
        let mut frame = Vec::new();
        put_frame(&mut frame, kind, payload.as_bytes());
        self.stream.write_all(&frame)
    }

    fn run(mut self) -> std::io::Result<()> {
        self.send(Kind::Hello, r#"{"protocol":1,"runtime":"fake","version":"0"}"#)?;
        let mut handler = self.known.lock().clone();
        if handler.is_some() {
            self.send(Kind::Ready, r#"{"init_us":0,"fork":null}"#)?;
        }
        let mut buffer = Vec::new();
        let mut chunk = [0; 65536];
        loop {
            let n = self.stream.read(&mut chunk)?;
            if n == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&chunk[..n]);
            while let Ok(Some((kind, range, len))) = take_frame(&buffer) {
                let payload = buffer[range].to_vec();
                buffer.drain(..len);
                match kind {
                    Kind::Bind => handler = self.bind(&payload)?,
                    Kind::Invoke => self.invoke(handler.as_deref().unwrap_or(""), &payload)?,
                    _ => return Ok(()),
                }
            }
        }
    }

    fn bind(&mut self, payload: &[u8]) -> std::io::Result<Option<String>> {
        let bind: serde_json::Value = serde_json::from_slice(payload)?;
        let handler = bind["handler"].as_str().unwrap_or("").to_owned();
        self.shared.initialised.fetch_add(1, Ordering::SeqCst);
        if handler == "f.initfail" {
            self.send(Kind::Error, r#"{"statusCode":443,"errorMessage":"told to fail","stackTrace":""}"#)?;
            return Err(std::io::ErrorKind::Other.into());
        }
        if handler == "f.initslow" {
            std::thread::sleep(Duration::from_millis(300));
        }
        *self.known.lock() = Some(handler.clone());
        let fork = if bind["template"] == true { r#"{"sound":true,"why":[]}"# } else { "null" };
        self.send(Kind::Ready, &format!(r#"{{"init_us":0,"fork":{fork}}}"#))?;
        Ok(Some(handler))
    }

    fn invoke(&mut self, handler: &str, payload: &[u8]) -> std::io::Result<()> {
        let meta = u32::from_le_bytes([payload[0], payload[1], payload[2], payload[3]]) as usize;
        let event = String::from_utf8_lossy(&payload[4 + meta..]).into_owned();
        match handler {
            "f.throw" => {
                self.send(Kind::Error, r#"{"statusCode":430,"errorMessage":"told to throw","stackTrace":"at f"}"#)
            }
            "f.exit" => Err(std::io::ErrorKind::Other.into()),
            "f.hang" => Ok(()),
            "f.sleep" => {
                std::thread::sleep(Duration::from_millis(event.parse().unwrap_or(0)));
                self.send(Kind::Result, &event)
            }
            "f.print" => {
                writeln!(self.printer, "{event}")?;
                self.send(Kind::Result, "null")
            }
            _ => self.send(Kind::Result, &event),
        }
    }
}
