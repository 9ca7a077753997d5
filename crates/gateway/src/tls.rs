//! Encrypted connections: the handshake with its limits, and what is told to those who do not shake hands.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::guard::{Guarded, Phase};
use crate::http2;
use crate::listener::{REFUSAL_TIME, Shared, serve_http1};
use crate::stats::bump;

/// First byte of a TLS handshake. Source: RFC 8446 §5.1.
const HANDSHAKE: u8 = 22;

/// What is said to a client that speaks HTTP without TLS.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 59\r\nconnection: close\r\n\r\nThis port speaks HTTPS. Ask again with https:// in the URL\n";

/// The door for encrypted connections.
pub(crate) struct TlsDoor {
    acceptor: TlsAcceptor,
    /// Handshakes cost a lot and can be begun for nothing: fewer of them than connections.
    handshakes: Arc<Semaphore>,
}

impl TlsDoor {
    pub(crate) fn new(config: Arc<ServerConfig>, handshakes_max: usize) -> Self {
        let handshakes = Arc::new(Semaphore::new(handshakes_max.min(Semaphore::MAX_PERMITS)));
        Self { acceptor: TlsAcceptor::from(config), handshakes }
    }

    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, stream: TcpStream, peer: SocketAddr, shared: &Arc<Shared>) {
        let Ok(place) = self.handshakes.clone().try_acquire_owned() else {
            bump(&shared.stats.refused);
            return;
        };
        let fd = stream.as_raw_fd();
        let handshake = tokio::time::timeout(shared.limits.handshake_time, self.shake_hands(stream, shared));
        let stream = tokio::select! {
            biased;
            done = handshake => done,
            () = shared.stop.triggered() => return,
        };
        drop(place);
        let stream = match stream {
            Ok(Ok(Some(stream))) => stream,
            Ok(Ok(None)) => return,
            Ok(Err(error)) => {
                bump(&shared.stats.handshakes_failed);
                tracing::debug!(%error, %peer, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                bump(&shared.stats.handshakes_failed);
                tracing::debug!(%peer, "a TLS handshake was not done in time");
                return;
            }
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            http2::serve(stream, peer, true, shared).await;
        } else {
            serve_http1(stream, fd, peer, true, shared).await;
        }
    }

    /// `None`: the client does not speak TLS, and has been told.
    async fn shake_hands(&self, mut stream: TcpStream, shared: &Shared) -> io::Result<Option<Encrypted>> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Ok(None);
        }
        if first[0] != HANDSHAKE {
            bump(&shared.stats.handshakes_failed);
            if first[0].is_ascii_uppercase() {
                tell_http(&mut stream).await;
            }
            return Ok(None);
        }
        // Below TLS, since a client that takes nothing is noticed only where the bytes leave. On reading it waits for ever: that has its
        // time-outs above, where requests are told from each other.
        let phase = Arc::new(Phase::new(shared.limits.idle_time));
        phase.busy();
        let stream = Guarded::new(stream, phase, shared.stats.clone(), &shared.limits);
        self.acceptor.accept(stream).await.map(Some)
    }
}

/// An encrypted connection.
pub(crate) type Encrypted = tokio_rustls::server::TlsStream<Guarded<TcpStream>>;

/// Tells a client that it should speak TLS. Reads what it has to say, since closing with unread data would destroy the answer on its way.
async fn tell_http(stream: &mut TcpStream) {
    let work = async {
        stream.write_all(NOT_TLS).await?;
        stream.shutdown().await?;
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        io::Result::Ok(())
    };
    // However it ends, the connection is closed.
    let _ = tokio::time::timeout(REFUSAL_TIME, work).await;
}

#[cfg(test)]
mod tests {
    use super::NOT_TLS;

    #[test]
    fn the_length_is_that_of_the_text() {
        let text = std::str::from_utf8(NOT_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }
}
