//! Abuses of HTTP/2, frame by frame, without TLS and with it. Each ends its own connection, and the gateway goes on serving others.

mod common;

use common::{PATIENCE, Probe, Running, until};
use mayfly_base::Shutdown;
use mayfly_cert::{Identity, server_config};
use mayfly_gateway::{Gateway, GatewayLimits};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

// Types of frames and flags. Source: RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A GET of `/wait`, which is answered only when somebody lets it: method and scheme by their numbers, path and authority as text.
const WAIT: &[u8] = b"\x82\x86\x04\x05/wait\x41\x01a";
/// The same of `/x`, which is answered at once.
const ONE: &[u8] = b"\x82\x86\x04\x02/x\x41\x01a";

/// A frame, with its length as it is, unless `lie` says another.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client says after the preface and its settings.
fn abuses() -> Vec<(&'static str, Vec<u8>)> {
    let open = |stream| frame(HEADERS, END_STREAM | END_HEADERS, stream, WAIT);
    let cancel = |stream| frame(RST_STREAM, 0, stream, &8u32.to_be_bytes());
    let odd = |n: u32| 2 * n + 1;
    // A header of 16 KiB, in a piece that fits a frame.
    let piece = [&b"\x00\x01b\x7f\x81\x7e"[..], &[b'v'; 16_256]].concat();
    let setting = |id: u16, value: u32| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    vec![
        ("rapid reset", (0..20_000).flat_map(|n| [open(odd(n)), cancel(odd(n))].concat()).collect()),
        (
            "a header without end",
            [frame(HEADERS, END_STREAM, 1, ONE), frame(CONTINUATION, 0, 1, &piece).repeat(200)].concat(),
        ),
        (
            "empty continuations without end",
            [frame(HEADERS, END_STREAM, 1, ONE), frame(CONTINUATION, 0, 1, b"").repeat(100_000)].concat(),
        ),
        ("another frame within a header", [frame(HEADERS, 0, 1, ONE), frame(PING, 0, 0, &[0; 8])].concat()),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, ONE)),
        ("a frame too large", [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 100]].concat()),
        ("settings of a wrong length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[])),
        ("settings out of range", frame(SETTINGS, 0, 0, &setting(4, 0x8000_0000))),
        ("a frame size out of range", frame(SETTINGS, 0, 0, &setting(5, 1))),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes())),
        ("a window that grows by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a ping of a wrong length", frame(PING, 0, 0, &[0; 7])),
        ("a promise of a client", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("an even stream", frame(HEADERS, END_STREAM | END_HEADERS, 2, ONE)),
        ("a stream that goes back", [open(5), open(3)].concat()),
        ("data on no stream", frame(DATA, END_STREAM, 0, b"x")),
        ("data on an idle stream", frame(DATA, END_STREAM, 7, b"x")),
        ("an end of an idle stream", cancel(9)),
        ("a broken header block", frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff; 20])),
        ("more padding than frame", frame(DATA, 8, 1, &[200, 0])),
    ]
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

struct Both {
    running: Running,
    secure: SocketAddr,
    connector: TlsConnector,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Both {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let pem = made.cert.pem();
        let identity = Identity::from_pem(pem.as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
        let here = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut gateway = Gateway::bind(here, GatewayLimits::default()).await.unwrap();
        gateway.listen_tls(here, server_config(Arc::new(One(identity.certified)))).await.unwrap();
        let (address, secure, stats) = (gateway.local_addr(), gateway.local_tls_addr().unwrap(), gateway.stats());
        let (probe, shutdown) = (Arc::new(Probe::default()), Shutdown::new());
        let ended = tokio::spawn(gateway.run(
            probe.clone(),
            shutdown.clone(),
            Arc::new(mayfly_base::EventLoops::start().expect("threads")),
        ));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let running = Running { address, probe, shutdown, stats, ended };
        Self { running, secure, connector: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self, tls: bool) -> Box<dyn Stream> {
        if !tls {
            return Box::new(TcpStream::connect(self.running.address).await.unwrap());
        }
        let stream = TcpStream::connect(self.secure).await.unwrap();
        Box::new(self.connector.connect(ServerName::try_from("a.example").unwrap(), stream).await.unwrap())
    }

    /// Asks once, as a client that behaves does, and hears the answer.
    async fn serves(&self, tls: bool) {
        let mut stream = self.connect(tls).await;
        let request =
            [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, END_STREAM | END_HEADERS, 1, ONE)].concat();
        stream.write_all(&request).await.unwrap();
        let answered = async {
            loop {
                let (kind, _, stream_id, _) = read_frame(&mut stream).await.expect("it is not closed");
                if kind == HEADERS && stream_id == 1 {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("an answer in time");
    }
}

async fn read_frame(stream: &mut Box<dyn Stream>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

#[tokio::test]
async fn abuses_end_their_own_connection_and_no_other() {
    let both = Both::start().await;
    for tls in [false, true] {
        for (what, bytes) in abuses() {
            let stream = both.connect(tls).await;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let said = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &bytes].concat();
            let writing = tokio::spawn(async move {
                // It may be closed in the middle of it.
                let _ = writer.write_all(&said).await;
                let _ = writer.flush().await;
                writer
            });
            let heard = async {
                let mut last = None;
                let mut head = [0; 9];
                while reader.read_exact(&mut head).await.is_ok() {
                    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                    let mut payload = vec![0; length];
                    if reader.read_exact(&mut payload).await.is_err() {
                        break;
                    }
                    last = Some(head[3]);
                    if head[3] == GOAWAY {
                        break;
                    }
                }
                last
            };
            let last = tokio::time::timeout(PATIENCE, heard).await;
            let last = last.unwrap_or_else(|_| panic!("{what} (TLS: {tls}): the connection goes on"));
            // Where so much was sent that it could not be read, a reset may overtake the farewell.
            assert!(last == Some(GOAWAY) || bytes.len() > 100_000, "{what} (TLS: {tls}): {last:?}");
            drop((reader, writing.await));
        }
        until("their seats are free", || both.running.stats.connections() == 0).await;
        both.serves(tls).await;
        both.serves(!tls).await;
    }
    assert_eq!(both.running.stats.panics(), 0);
}

#[tokio::test]
async fn floods_that_ask_for_answers_are_bounded() {
    let both = Both::start().await;
    for tls in [false, true] {
        for (what, piece) in [("pings", frame(PING, 0, 0, &[7; 8])), ("settings", frame(SETTINGS, 0, 0, &[]))] {
            let mut stream = both.connect(tls).await;
            stream.write_all(PREFACE).await.unwrap();
            stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            // Nothing is read: what is owed cannot be sent. It must not pile up without end, so at some point no more is taken.
            let flood = piece.repeat(1000);
            let sending = async {
                let mut sent = 0usize;
                loop {
                    match tokio::time::timeout(std::time::Duration::from_millis(500), stream.write_all(&flood)).await {
                        // Closed, or no more is taken.
                        Ok(Err(_)) | Err(_) => return sent,
                        Ok(Ok(())) => sent += flood.len(),
                    }
                    assert!(sent < 256 << 20, "{what} (TLS: {tls}) are taken without end");
                }
            };
            tokio::time::timeout(PATIENCE, sending).await.unwrap_or_else(|_| panic!("{what} (TLS: {tls}): no end"));
            drop(stream);
        }
        both.serves(tls).await;
    }
}
