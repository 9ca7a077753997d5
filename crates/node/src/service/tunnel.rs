//! Connections that become something else: WebSockets, passed through byte for byte.

use super::account::Account;
use super::http1::{Answered, Failure, Upgraded};
use super::resident::Line;
use super::{Reply, StreamBody, slot};
use crate::Inner;
use crate::error::Refusal;
use crate::pool::Pool;
use http::Request;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mayfly_base::loops::Roaming;
use mayfly_model::Status;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Bytes carried at a time in one direction. Two such buffers live for each open WebSocket while it moves data.
const CHUNK: usize = 8 * 1024;

/// How long a server may keep its side open and silent after the visitor has closed the other.
const HALF_OPEN: Duration = Duration::from_secs(10);

/// Two connections that are about to be joined.
pub(super) struct Tunnel {
    visitor: OnUpgrade,
    server: Upgraded<Roaming<TcpStream>>,
    idle: Option<Duration>,
}

/// Carries the visitor's request to a server. If it agrees to the change, both connections are handed back; if not, its answer is.
pub(super) async fn open(
    inner: &Arc<Inner>,
    pool: &Arc<Pool>,
    request: Request<StreamBody>,
    visitor: OnUpgrade,
    account: &mut Account,
) -> Result<Reply, Refusal> {
    let (parts, body) = request.into_parts();
    let limit = Duration::from_secs(u64::from(pool.spec.config.timeout_s));
    let mut resident = account.board(slot(inner, pool, account.calls()).await?);
    let stream = match resident.connect().await {
        Ok(stream) => stream,
        Err(e) => {
            // Nothing was sent yet: another instance may do.
            pool.bury(&resident);
            account.leave(&e.to_string());
            resident = account.board(slot(inner, pool, account.calls()).await?);
            match resident.connect().await {
                Ok(stream) => stream,
                Err(e) => return Err(account.leave(&e.to_string())),
            }
        }
    };
    let mut id = [0u8; 36];
    let id = crate::worker::format_id(account.request_id(), &mut id);
    let asked = super::asked(&parts, pool, inner, id);
    let sending = Line::new(Roaming::new(stream)).send(&asked, body, false, true, resident.home());
    let answered = match tokio::time::timeout(limit, sending).await {
        Ok(Ok(answered)) => answered,
        Ok(Err(Failure::NotBegun { why, .. } | Failure::Broken { why })) => return Err(account.leave(&why)),
        Err(_) => {
            let message = format!("Invoking task timed out after {} seconds", limit.as_secs());
            return Err(Refusal::new(Status::TIME_LIMIT, message));
        }
    };
    let (response, server) = match answered {
        Answered::Response(response) => {
            account.answered(&response, &parts.method, parts.uri.path());
            return Ok(Reply::Stream(response));
        }
        Answered::Upgraded(response, server) => (response, server),
    };
    account.answered(&response, &parts.method, parts.uri.path());
    let idle = pool.spec.config.service.and_then(|s| s.websocket_idle_s).map(|s| Duration::from_secs(u64::from(s)));
    Ok(Reply::Tunnel(response, Tunnel { visitor, server, idle }))
}

impl Tunnel {
    /// Joins the two until one of them ends.
    pub(super) fn run(self, mut account: Account) {
        tokio::spawn(async move {
            let Ok(visitor) = self.visitor.await else { return };
            let (status, bytes) = join(TokioIo::new(visitor), self.server, self.idle, HALF_OPEN).await;
            account.end_as(status);
            account.count(bytes);
        });
    }
}

/// Carries bytes both ways until both have ended, one fails, or nothing moves for `idle`, or for `half_open` once the visitor has closed its
/// side. Returns how it ended, and the bytes that went to
/// the visitor.
async fn join<V, S>(visitor: V, server: Upgraded<S>, idle: Option<Duration>, half_open: Duration) -> (Status, usize)
where
    V: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_visitor, mut to_visitor) = tokio::io::split(visitor);
    let (from_server, mut to_server) = tokio::io::split(server.stream);
    // What it has said already comes first.
    let mut from_server = std::io::Cursor::new(server.ahead).chain(from_server);
    let moved = parking_lot::Mutex::new(Instant::now());
    let mut sent = 0;
    let ended = {
        let up = carry(&mut from_visitor, &mut to_server, &moved, None);
        let down = carry(&mut from_server, &mut to_visitor, &moved, Some(&mut sent));
        let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
        tokio::select! {
            // The visitor has closed its side: what the server still has to say may take a moment. A server that never closes its own
            // side must not keep the instance busy for ever.
            result = &mut up => match result {
                Ok(()) => tokio::select! {
                    result = down => result.map_err(|_| Status::WEBSOCKET_CLIENT_BROKE),
                    () = quiet(&moved, Some(half_open)) => Ok(()),
                },
                Err(_) => Err(Status::WEBSOCKET_CLIENT_BROKE),
            },
            result = &mut down => result.map_err(|_| Status::PROCESS_EXIT),
            () = quiet(&moved, idle) => Err(Status::WEBSOCKET_IDLE),
        }
    };
    // Whichever end is still open learns that it is over.
    let _ = to_visitor.shutdown().await;
    let _ = to_server.shutdown().await;
    (ended.err().unwrap_or(Status::OK), sent)
}

/// Waits until nothing has moved for `idle`.
async fn quiet(moved: &parking_lot::Mutex<Instant>, idle: Option<Duration>) {
    let Some(idle) = idle else { return std::future::pending().await };
    loop {
        let until = *moved.lock() + idle;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &parking_lot::Mutex<Instant>,
    mut count: Option<&mut usize>,
) -> io::Result<()> {
    let mut chunk = Vec::new();
    loop {
        // The buffer exists only while there is something in it: ten thousand silent connections should cost little.
        chunk.clear();
        std::future::poll_fn(|cx| {
            let mut probe = [0u8; CHUNK];
            let mut buffer = tokio::io::ReadBuf::new(&mut probe);
            let result = std::task::ready!(std::pin::Pin::new(&mut *from).poll_read(cx, &mut buffer));
            chunk.extend_from_slice(buffer.filled());
            std::task::Poll::Ready(result)
        })
        .await?;
        if chunk.is_empty() {
            return to.shutdown().await;
        }
        *moved.lock() = Instant::now();
        to.write_all(&chunk).await?;
        if let Some(count) = &mut count {
            **count += chunk.len();
        }
        chunk = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    const LIMIT: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(150);

    /// Joins two connections; what the visitor and the server hold of them, and how it will end.
    fn joined(
        idle: Option<Duration>,
        half_open: Duration,
    ) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<(Status, usize)>) {
        let ((visitor, ours), (server, theirs)) = (duplex(1024), duplex(1024));
        (visitor, server, tokio::spawn(join(ours, Upgraded { stream: theirs, ahead: Bytes::new() }, idle, half_open)))
    }

    #[tokio::test]
    async fn a_server_that_keeps_its_side_open_is_given_a_moment() {
        let (mut visitor, mut server, ended) = joined(None, LIMIT);
        visitor.write_all(b"bye").await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"bye", "the end is carried");
        // What it still has to say is carried as long as it goes on saying it, longer than the limit.
        let begun = Instant::now();
        let mut said = 0;
        while begun.elapsed() < LIMIT * 3 / 2 {
            tokio::time::sleep(PAUSE).await;
            server.write_all(b"so").await.unwrap();
            said += 2;
        }
        let (status, sent) = ended.await.unwrap();
        assert_eq!((status, sent), (Status::OK, said));
        assert!(begun.elapsed() >= LIMIT * 5 / 2, "{:?}", begun.elapsed());
        // Both learn that it is over.
        let mut last = Vec::new();
        visitor.read_to_end(&mut last).await.unwrap();
        assert_eq!(last.len(), said);
        assert!(server.write_all(b"more").await.is_err());
    }

    #[tokio::test]
    async fn silence_ends_a_tunnel_only_where_a_limit_is_set() {
        let (_quiet_visitor, mut quiet_server, quiet) = joined(None, HALF_OPEN);
        let (mut visitor, mut server, ended) = joined(Some(LIMIT), HALF_OPEN);
        let begun = Instant::now();
        // Traffic either way counts.
        let mut said = 0;
        while begun.elapsed() < LIMIT * 3 / 2 {
            visitor.write_all(b"ping").await.unwrap();
            tokio::time::sleep(PAUSE).await;
            server.write_all(b"pong").await.unwrap();
            tokio::time::sleep(PAUSE).await;
            said += 4;
        }
        assert_eq!(ended.await.unwrap(), (Status::WEBSOCKET_IDLE, said));
        assert!(begun.elapsed() >= LIMIT * 5 / 2 - PAUSE, "{:?}", begun.elapsed());
        assert!(!quiet.is_finished(), "without a limit, silence is nothing");
        quiet_server.shutdown().await.unwrap();
        assert_eq!(quiet.await.unwrap(), (Status::OK, 0));
    }
}
