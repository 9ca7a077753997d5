//! What an instance prints: taken from its pipe while an invocation runs, up to a limit.

use mayfly_base::loops::Roaming;
use mayfly_model::limits::LOG_INVOCATION_BYTES_MAX;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// Most bytes taken from a pipe after the limit before the printer has to wait: a flood slows its own function, not the node.
const FLOOD_CHUNK: usize = 1024 * 1024;
/// The printer's wait after each such chunk.
const FLOOD_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// The read end of an instance's pipe.
pub struct Output {
    pipe: Option<Roaming<AsyncFd<OwnedFd>>>,
    /// Bytes discarded since the last pause.
    flood: usize,
}

/// Waits for output that somebody else takes.
pub struct Watcher(AsyncFd<OwnedFd>);

impl Watcher {
    /// Waits until there is something to take, or the end.
    pub async fn readable(&self) {
        // An error shows on the next read.
        if let Ok(mut ready) = self.0.readable().await {
            ready.clear_ready();
        }
    }
}

/// What was printed since the last invocation.
#[derive(Debug, Default)]
pub struct Printed {
    /// The bytes kept.
    pub bytes: Vec<u8>,
    /// How many more there were.
    pub cut: u64,
}

impl Printed {
    /// The text, with what is not UTF-8 replaced.
    pub fn into_text(self) -> (String, u64) {
        let text = String::from_utf8(self.bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        (text, self.cut)
    }

    /// True when nothing was printed.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.cut == 0
    }

    fn add(&mut self, chunk: &[u8]) -> bool {
        let room = LOG_INVOCATION_BYTES_MAX - self.bytes.len();
        let kept = chunk.len().min(room);
        self.bytes.extend_from_slice(&chunk[..kept]);
        self.cut += (chunk.len() - kept) as u64;
        kept < chunk.len()
    }
}

impl Output {
    /// Takes over the pipe.
    pub fn new(pipe: OwnedFd) -> io::Result<Self> {
        // SAFETY: sets a flag on an open descriptor.
        let flags = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETFL) };
        // SAFETY: as above.
        if flags < 0 || unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor belongs to the AsyncFd from here on and stays open as long as it is registered.
        let pipe = unsafe { AsyncFd::register_with_interest(pipe, tokio::io::Interest::READABLE) }
            .map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self { pipe: Some(Roaming::new(pipe)), flood: 0 })
    }

    fn descriptor(&self) -> Option<&OwnedFd> {
        self.pipe.as_ref()?.as_is().map(AsyncFd::get_ref)
    }

    fn read(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: reads into a buffer of that length.
        let n = unsafe { libc::read(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
    }

    /// Waits for output and takes it. `false`: every writer has closed the pipe. Safe to drop while waiting.
    pub async fn pump(&mut self, into: &mut Printed) -> bool {
        if self.flood >= FLOOD_CHUNK {
            tokio::time::sleep(FLOOD_PAUSE).await;
            self.flood = 0;
        }
        let Some(pipe) = &mut self.pipe else { return std::future::pending().await };
        let mut buffer = [0u8; 16384];
        let pipe = pipe.here();
        while let Ok(pipe) = &pipe {
            let Ok(mut ready) = pipe.readable().await else { break };
            match ready.try_io(|fd| Self::read(fd.get_ref(), &mut buffer)) {
                Ok(Ok(0)) => break,
                Ok(Ok(n)) => {
                    if into.add(&buffer[..n]) {
                        self.flood += n;
                    }
                    return true;
                }
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(_)) => break,
                Err(_would_block) => {}
            }
        }
        self.pipe = None;
        false
    }

    /// Another handle on the pipe, to wait on while somebody else may read.
    pub fn watcher(&self) -> io::Result<Watcher> {
        let pipe = self.descriptor().ok_or(io::ErrorKind::BrokenPipe)?.try_clone()?;
        // SAFETY: the descriptor belongs to the AsyncFd from here on and stays open as long as it is registered.
        let pipe = unsafe { AsyncFd::register_with_interest(pipe, tokio::io::Interest::READABLE) };
        pipe.map(Watcher).map_err(|e| io::Error::other(e.to_string()))
    }

    /// Takes what is there now, a pipe's fill at most. `false`: every writer has closed the pipe.
    pub fn take(&mut self, into: &mut Printed) -> bool {
        let Some(pipe) = self.descriptor() else { return false };
        let mut buffer = [0u8; 16384];
        for _ in 0..4 {
            match Self::read(pipe, &mut buffer) {
                Ok(0) => {
                    self.pipe = None;
                    return false;
                }
                Ok(n) => drop(into.add(&buffer[..n])),
                Err(_) => return true,
            }
        }
        true
    }

    /// True once every writer has closed the pipe.
    pub fn ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// Takes what is there now, without waiting: what was printed before the answer that has just come. At most what a
    /// pipe can hold, so that somebody who prints on and on cannot hold the answer up.
    pub fn drain(&mut self, into: &mut Printed) {
        const PIPE_BYTES: usize = 64 * 1024;
        let Some(pipe) = self.descriptor() else { return };
        let mut buffer = [0u8; 16384];
        let mut taken = 0;
        while taken < PIPE_BYTES {
            match Self::read(pipe, &mut buffer) {
                Ok(n) if n > 0 => {
                    into.add(&buffer[..n]);
                    taken += n;
                }
                _ => return,
            }
        }
    }
}
