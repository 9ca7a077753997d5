//! Sockets that live in a sandbox's network and are used from outside.
//!
//! A socket belongs to the network namespace it was made in, whoever uses it later. So one thread goes there, makes the socket and
//! comes back; connecting to `127.0.0.1` with it reaches the sandbox's own loopback, past all links, addresses and rules. No process
//! in the sandbox takes part, and nothing in there can use the way backwards. Listening with one lets the sandbox reach what serves it, and
//! nothing else.

use crate::sys;
use crate::wire::{NAMES_PORT, SERVICES_ADDRESS, SERVICES_PORT};
use std::fs::File;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, OnceLock, mpsc};
use tokio::sync::oneshot;

/// Sockets that may be asked for and not made yet. Each takes microseconds.
const QUEUE: usize = 4096;

struct Order {
    net: Arc<OwnedFd>,
    make: fn() -> io::Result<Vec<OwnedFd>>,
    answer: oneshot::Sender<io::Result<Vec<OwnedFd>>>,
}

/// A TCP socket made in the network namespace `net`.
pub async fn socket_in(net: Arc<OwnedFd>) -> io::Result<OwnedFd> {
    let made = order(net, || socket().map(|fd| vec![fd])).await?;
    made.into_iter().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// What listens for the platform's services in the network namespace `net`: HTTP, and names.
pub async fn listen_in(net: Arc<OwnedFd>) -> io::Result<(TcpListener, UdpSocket)> {
    let mut made = order(net, listeners).await?.into_iter();
    match (made.next(), made.next()) {
        (Some(http), Some(names)) => Ok((http.into(), names.into())),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

async fn order(net: Arc<OwnedFd>, make: fn() -> io::Result<Vec<OwnedFd>>) -> io::Result<Vec<OwnedFd>> {
    static DOOR: OnceLock<Result<mpsc::SyncSender<Order>, String>> = OnceLock::new();
    let door = DOOR.get_or_init(|| open().map_err(|e| e.to_string()));
    let door = door.as_ref().map_err(|e| io::Error::other(e.clone()))?;
    let (answer, made) = oneshot::channel();
    door.try_send(Order { net, make, answer })
        .map_err(|_| io::Error::other("too many connections are made at once"))?;
    made.await.map_err(io::Error::other)?
}

/// Starts the thread.
fn open() -> io::Result<mpsc::SyncSender<Order>> {
    let (orders, inbox) = mpsc::sync_channel::<Order>(QUEUE);
    std::thread::Builder::new().name("sandbox-door".into()).spawn(move || {
        let Ok(home) = File::open("/proc/thread-self/ns/net") else { return };
        for Order { net, make, answer } in inbox {
            let made = enter(&net).and_then(|()| make());
            // Staying would keep the namespace, and everything in it, alive.
            if let Err(error) = enter(&home) {
                // A thread in a stranger's network is of no use; later orders fail, and the log says why.
                tracing::error!(%error, "the door to sandboxes cannot come home");
                return;
            }
            // Whoever asked may have gone away; the socket closes then.
            let _ = answer.send(made);
        }
    })?;
    Ok(orders)
}

fn enter(namespace: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: takes a descriptor and a flag; it concerns this thread only.
    sys::check(i64::from(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })).map(drop)
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers; the descriptor is new and ours.
    unsafe {
        let fd = sys::check(i64::from(libc::socket(libc::AF_INET, kind, 0)))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

fn listeners() -> io::Result<Vec<OwnedFd>> {
    let http = TcpListener::bind((SERVICES_ADDRESS, SERVICES_PORT))?;
    let names = UdpSocket::bind((SERVICES_ADDRESS, NAMES_PORT))?;
    http.set_nonblocking(true)?;
    names.set_nonblocking(true)?;
    Ok(vec![http.into(), names.into()])
}
