//! A machine outside, as functions see it: a network namespace with an address of its own, in which a test listens. The host itself is out of
//! their reach, and so is everything on 127.0.0.1.

// Each test binary takes the part that it needs.
#![allow(dead_code)]

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Addresses of such machines; not those of instances (10.213.0.0/16).
const BLOCK: u32 = u32::from_be_bytes([10, 214, 0, 0]);

/// The machine. Dropping it removes it.
pub struct Outside {
    name: String,
    /// Its address, which `--network-allow ADDRESS/32` opens to functions.
    pub address: Ipv4Addr,
}

fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).status().expect("`ip` runs").success()
}

impl Outside {
    /// Makes one. Needs root.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Two of a kind share a link; processes whose numbers lie next to each other get different ones.
        let host = BLOCK | (pid.wrapping_mul(16).wrapping_add(n) & 0x7fff) << 1;
        let (host, address) = (Ipv4Addr::from(host), Ipv4Addr::from(host + 1));
        // Not `mf…`: links that begin so belong to instances, and no instance reaches another one.
        let name = format!("out{pid:x}x{n:x}");
        for command in [
            format!("netns add {name}"),
            format!("link add {name} type veth peer name eth0 netns {name}"),
            format!("addr add {host}/31 dev {name}"),
            format!("link set {name} up"),
            format!("-n {name} addr add {address}/31 dev eth0"),
            format!("-n {name} link set lo up"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} route add default via {host}"),
        ] {
            assert!(ip(&command), "ip {command}");
        }
        Self { name, address }
    }

    /// Listens on it, on a port of the kernel's choice.
    pub fn listen(&self) -> TcpListener {
        let (path, address) = (format!("/run/netns/{}", self.name), self.address);
        // A thread of its own: it goes over into that namespace, and the socket stays there.
        let listening = std::thread::spawn(move || {
            let namespace = std::fs::File::open(path).expect("the namespace is there");
            // SAFETY: a valid descriptor; only this thread changes over.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", std::io::Error::last_os_error());
            TcpListener::bind((address, 0)).expect("there are free ports")
        });
        listening.join().expect("it listens")
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
    }
}

/// What a function is to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Return.
    Take,
    /// Raise an error.
    Fail,
}

/// A message that a function was called with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handled {
    /// Its partition.
    pub partition: i32,
    /// Its place there.
    pub offset: i64,
    /// What it holds.
    pub body: String,
    /// Which batch it was in, counted from 0 over all.
    pub batch: usize,
    /// What the function was told to do.
    pub verdict: Verdict,
}

type Judge = dyn Fn(&[Handled]) -> Verdict + Send + Sync;

/// Where functions of [`REPORTER`] tell, before they return, which messages they were called with: in this process, which nobody kills.
pub struct Sink {
    outside: Outside,
    listener: TcpListener,
    address: SocketAddr,
    handled: Arc<Mutex<All>>,
    judge: Arc<Mutex<Box<Judge>>>,
}

/// Everything that was told, and which messages these are.
#[derive(Default)]
struct All {
    told: Vec<Handled>,
    known: HashSet<(i32, i64)>,
}

/// Tells a [`Sink`] (`SINK`, `host:port`) what it was called with, and does as that says.
pub const REPORTER: &str = r"
import os, socket
def main_handler(event, context):
    host, port = os.environ['SINK'].rsplit(':', 1)
    lines = []
    for record in event['Records']:
        message = record['Ckafka']
        lines.append('%d %d %s\n' % (message['partition'], message['offset'], message['msgBody']))
    with socket.create_connection((host, int(port)), timeout=20) as sink:
        sink.sendall((''.join(lines) + 'end\n').encode())
        sink.shutdown(socket.SHUT_WR)
        verdict = sink.recv(16)
    if verdict == b'fail':
        raise RuntimeError('told to fail')
    if verdict != b'take':
        raise RuntimeError('the sink is gone')
    return len(lines)
";

impl Sink {
    /// A sink that takes everything.
    pub fn new() -> Self {
        let outside = Outside::new();
        let listener = outside.listen();
        let address = listener.local_addr().expect("it is bound");
        let handled = Arc::new(Mutex::new(All::default()));
        let judge: Arc<Mutex<Box<Judge>>> = Arc::new(Mutex::new(Box::new(|_| Verdict::Take)));
        let (all, judges) = (handled.clone(), judge.clone());
        let accepting = listener.try_clone().expect("descriptors can be doubled");
        std::thread::spawn(move || {
            let mut batch = 0;
            for stream in accepting.incoming().map_while(Result::ok) {
                // One at a time, so that what arrives first is written down first.
                batch += usize::from(one(stream, batch, &all, &judges).is_some());
            }
        });
        Self { outside, listener, address, handled, judge }
    }

    /// `host:port`, for the function's environment.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// What `--network-allow` is to open.
    pub fn block(&self) -> String {
        format!("{}/32", self.outside.address)
    }

    /// Decides over each batch from now on.
    pub fn judge(&self, judge: impl Fn(&[Handled]) -> Verdict + Send + Sync + 'static) {
        *self.judge.lock().unwrap() = Box::new(judge);
    }

    /// Everything that functions were called with so far, as it came.
    pub fn handled(&self) -> Vec<Handled> {
        self.handled.lock().unwrap().told.clone()
    }

    /// How many that are.
    pub fn count(&self) -> usize {
        self.handled.lock().unwrap().told.len()
    }

    /// How many different messages that are.
    pub fn distinct(&self) -> usize {
        self.handled.lock().unwrap().known.len()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // SAFETY: an own, open socket. Its thread's `accept` ends with an error, and the thread with it.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// Takes one report. `None`: it was cut short, and its function has not returned.
fn one(mut stream: TcpStream, batch: usize, all: &Mutex<All>, judge: &Mutex<Box<Judge>>) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    let text = String::from_utf8(text).ok()?;
    let mut messages = Vec::new();
    for line in text.strip_suffix("end\n")?.lines() {
        let mut words = line.splitn(3, ' ');
        let partition = words.next()?.parse().ok()?;
        let offset = words.next()?.parse().ok()?;
        messages.push(Handled { partition, offset, body: words.next()?.to_owned(), batch, verdict: Verdict::Take });
    }
    let verdict = judge.lock().unwrap()(&messages);
    messages.iter_mut().for_each(|m| m.verdict = verdict);
    let mut all = all.lock().unwrap();
    all.known.extend(messages.iter().map(|m| (m.partition, m.offset)));
    all.told.append(&mut messages);
    drop(all);
    stream.write_all(if verdict == Verdict::Take { b"take" } else { b"fail" }).ok()
}
