//! The client against servers whose every byte is written down.

use super::*;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

type Parked = Arc<Mutex<Option<Connection<DuplexStream>>>>;

/// What came back, with the body read to its end.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// The body broke off.
    cut: Option<String>,
}

struct Client {
    connection: Option<Connection<DuplexStream>>,
    parked: Parked,
    method: Method,
    headers: HeaderMap,
    again: bool,
}

impl Client {
    fn new(stream: DuplexStream) -> Self {
        Self {
            connection: Some(Connection::new(stream)),
            parked: Parked::default(),
            method: Method::GET,
            headers: HeaderMap::new(),
            again: true,
        }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// Whether the connection has come home to serve another request.
    fn is_home(&self) -> bool {
        self.parked.lock().unwrap().is_some()
    }

    async fn send(&mut self, body: StreamBody) -> Result<Response<Reading>, Failure> {
        self.send_as(body, false).await.map(|answered| match answered {
            Answered::Response(response) | Answered::Upgraded(response, _) => response,
        })
    }

    async fn send_as(&mut self, body: StreamBody, upgrading: bool) -> Result<Answered<DuplexStream>, Failure> {
        let mut connection =
            self.connection.take().or_else(|| self.parked.lock().unwrap().take()).expect("one is left");
        assert!(connection.is_open());
        let target: Uri = "/a?b=c".parse().unwrap();
        let asked = Asked {
            method: &self.method,
            target: &target,
            headers: &self.headers,
            own: b"x-scf-name: f\r\n",
            request_id: "an-id",
        };
        let parked = Arc::clone(&self.parked);
        let home = move |connection| *parked.lock().unwrap() = Some(connection);
        connection.send(&asked, body, self.again, upgrading, home).await
    }

    async fn ask(&mut self, body: StreamBody) -> Result<Got, String> {
        match self.send(body).await {
            Ok(response) => Ok(read(response).await),
            Err(Failure::Broken { why } | Failure::NotBegun { why, .. }) => Err(why),
        }
    }
}

async fn read(response: Response<Reading>) -> Got {
    let (head, mut body) = response.into_parts();
    let mut got =
        Got { status: head.status.as_u16(), headers: head.headers, body: Vec::new(), trailers: None, cut: None };
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => got.body.extend_from_slice(&data),
            Ok(Err(frame)) => got.trailers = frame.into_trailers().ok(),
            Err(e) => got.cut = Some(e.to_string()),
        }
    }
    assert!(body.is_end_stream() && body.frame().await.is_none());
    got
}

/// Whether a head's end is in it.
fn ends(seen: &[u8]) -> bool {
    seen.windows(4).any(|w| w == b"\r\n\r\n")
}

/// A server that reads no more than the first byte of a request, and answers.
fn hasty(mut stream: DuplexStream, answer: &'static [u8]) -> tokio::task::JoinHandle<DuplexStream> {
    tokio::spawn(async move {
        stream.read_exact(&mut [0]).await.unwrap();
        stream.write_all(answer).await.unwrap();
        stream
    })
}

/// A server that reads a head, sends `answer` in pieces of `step` bytes, and closes if it is told to.
fn scripted(answer: &[u8], step: usize, close: bool) -> (DuplexStream, tokio::task::JoinHandle<Vec<u8>>) {
    let (ours, mut theirs) = duplex(1 << 20);
    let answer = answer.to_vec();
    let task = tokio::spawn(async move {
        let mut seen = Vec::new();
        while !ends(&seen) && theirs.read_buf(&mut seen).await.unwrap() > 0 {}
        for piece in answer.chunks(step) {
            if theirs.write_all(piece).await.is_err() {
                return seen;
            }
            tokio::task::yield_now().await;
        }
        if close {
            theirs.shutdown().await.unwrap();
        }
        let _ = theirs.read_to_end(&mut seen).await;
        seen
    });
    (ours, task)
}

/// Asks a server that answers so, in one piece and byte by byte; both must come to the same.
async fn asked(answer: &[u8], close: bool) -> (Result<Got, String>, bool) {
    asked_with(answer, close, Method::GET).await
}

async fn asked_with(answer: &[u8], close: bool, method: Method) -> (Result<Got, String>, bool) {
    let mut last: Option<(String, bool, Result<Got, String>)> = None;
    for step in [answer.len().max(1), 1, 7] {
        let (stream, _server) = scripted(answer, step, close);
        let mut client = Client::new(stream).method(method.clone());
        let got = client.ask(crate::service::nothing()).await;
        // What is left over may not have arrived yet when the connection goes home. It is found before the next request.
        let mut home = client.parked.lock().unwrap().take();
        let mut open = home.is_some();
        if let Some(connection) = &mut home {
            for _ in 0..answer.len() + 8 {
                tokio::task::yield_now().await;
                open &= close || connection.is_open();
            }
        }
        let text = format!("{got:?}");
        if let Some((before, was_home, _)) = &last {
            assert_eq!((&text, open), (before, *was_home), "in pieces of {step}");
        }
        last = Some((text, open, got));
    }
    let (_, home, got) = last.expect("three rounds were made");
    (got, home)
}

#[tokio::test]
async fn answers_come_through_however_they_are_cut() {
    let (got, home) = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello", false).await;
    let got = got.unwrap();
    assert_eq!((got.status, &got.body[..], home), (200, &b"hello"[..], true));
    assert_eq!(got.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(got.cut, None);

    let chunked = b"HTTP/1.1 203 \r\ntransfer-encoding: Chunked\r\n\r\n5;name=\"v;\"\r\nhello\r\n0006 \r\n world\r\n0\r\nA: b\r\nC:d\r\n\r\n";
    let (got, home) = asked(chunked, false).await;
    let got = got.unwrap();
    assert_eq!((got.status, &got.body[..], home), (203, &b"hello world"[..], true));
    let trailers = got.trailers.unwrap();
    assert_eq!((trailers["a"].as_bytes(), trailers["c"].as_bytes()), (&b"b"[..], &b"d"[..]));
    assert!(!got.headers.contains_key("transfer-encoding"));

    let (got, home) = asked(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", true).await;
    let got = got.unwrap();
    assert_eq!((&got.body[..], got.cut, home), (&b"until the end"[..], None, false));

    // Lines may end without their CR, and empty lines in front are passed over.
    let (got, home) = asked(b"\r\n\nHTTP/1.1 200 OK\ncontent-length: 2\n\nok", false).await;
    assert_eq!((&got.unwrap().body[..], home), (&b"ok"[..], true));
}

#[tokio::test]
async fn answers_without_bodies_end_with_their_heads() {
    for (answer, method) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Method::GET),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", Method::GET),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", Method::HEAD),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Method::HEAD),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Method::POST),
    ] {
        let (got, home) = asked_with(answer, false, method).await;
        let got = got.unwrap();
        assert!(got.body.is_empty() && got.cut.is_none() && home, "{got:?}");
    }
    let (got, _) = asked_with(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", false, Method::HEAD).await;
    assert_eq!(got.unwrap().headers["content-length"], "99");
}

#[tokio::test]
async fn what_servers_call_their_statuses_is_kept() {
    let (stream, _server) = scripted(b"HTTP/1.1 299 Rather Good\r\ncontent-length: 0\r\n\r\n", 1, false);
    let response = Client::new(stream).send(crate::service::nothing()).await.ok().unwrap();
    let reason = response.extensions().get::<hyper::ext::ReasonPhrase>().unwrap();
    assert_eq!(reason.as_bytes(), b"Rather Good");
}

#[tokio::test]
async fn interim_answers_are_passed_over_but_not_for_ever() {
    let mut answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".to_vec();
    answer.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let (got, home) = asked(&answer, false).await;
    assert_eq!((got.unwrap().status, home), (200, true));

    let flood = b"HTTP/1.1 102 Processing\r\n\r\n".repeat(INTERIM_MAX + 1);
    let (got, home) = asked(&flood, false).await;
    assert_eq!((got.unwrap_err(), home), (Bad::Interim.to_string(), false));
}

#[tokio::test]
async fn garbage_behind_an_answer_ends_the_connection() {
    for garbage in [&b"x"[..], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] {
        for answer in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..],
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ] {
            let (got, home) = asked(&[answer, garbage].concat(), false).await;
            assert_eq!((&got.unwrap().body[..], home), (&b"ok"[..], false));
        }
    }
}

#[tokio::test]
async fn connections_that_are_said_to_close_are_not_used_again() {
    for head in ["HTTP/1.1 200 OK\r\nconnection: x, Close", "HTTP/1.0 200 OK\r\nx: y"] {
        let (got, home) = asked(format!("{head}\r\ncontent-length: 2\r\n\r\nok").as_bytes(), false).await;
        assert_eq!((&got.unwrap().body[..], home), (&b"ok"[..], false), "{head}");
    }
    let (got, home) = asked(b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 2\r\n\r\nok", false).await;
    assert_eq!((&got.unwrap().body[..], home), (&b"ok"[..], true));
}

#[tokio::test]
async fn lengths_that_do_not_hold_are_told() {
    // Two that are the same are one.
    let (got, home) = asked(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2, 2\r\n\r\nok", false).await;
    let got = got.unwrap();
    assert_eq!((got.headers.get_all("content-length").iter().count(), home), (1, true));
    for bad in ["2\r\ncontent-length: 3", "2, 3", "+2", "-1", "", "2a", "99999999999999999999", "0x2"] {
        let (got, home) = asked(format!("HTTP/1.1 200 OK\r\ncontent-length: {bad}\r\n\r\nok").as_bytes(), true).await;
        assert_eq!((got.unwrap_err(), home), (Bad::Length.to_string(), false), "{bad}");
    }
    // Shorter than it says.
    let (got, home) = asked(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok", true).await;
    let got = got.unwrap();
    assert_eq!((&got.body[..], got.cut.as_deref(), home), (&b"ok"[..], Some(&*Bad::CutShort.to_string()), false));
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_or_closed() {
    // The coding holds, the length goes, and so does the connection.
    let both = b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (got, home) = asked(both, false).await;
    let got = got.unwrap();
    assert_eq!((&got.body[..], got.headers.contains_key("content-length"), home), (&b"ok"[..], false, false));
    for (head, bad) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked", Bad::Coding.to_string()),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked", Bad::Coding.to_string()),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity", Bad::Coding.to_string()),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked", Bad::Coding.to_string()),
        ("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked", Bad::Coding.to_string()),
        ("HTTP/1.1 200 OK\r\nx-a: 1\r\n folded: 2", Bad::Head(httparse::Error::HeaderName).to_string()),
        ("HTTP/1.1 200 OK\r\nx-a : 1", Bad::Head(httparse::Error::HeaderName).to_string()),
        ("HTTP/1.1 200 OK\r\nno colon", Bad::Head(httparse::Error::HeaderName).to_string()),
        ("HTTP/1.1 200 OK\r\nx: a\rb", Bad::Head(httparse::Error::HeaderValue).to_string()),
        ("HTTP/1.1 20 OK", Bad::Head(httparse::Error::Status).to_string()),
        ("HTTP/1.1 099 Low", Bad::NotHttp.to_string()),
        ("HTTP/2.0 200 OK", Bad::NotHttp.to_string()),
        ("SSH-2.0-OpenSSH_9", Bad::NotHttp.to_string()),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x", Bad::Changed.to_string()),
    ] {
        let (got, home) = asked(format!("{head}\r\n\r\n2\r\nok\r\n0\r\n\r\n").as_bytes(), true).await;
        assert_eq!((got.unwrap_err(), home), (bad, false), "{head}");
    }
}

#[tokio::test]
async fn malformed_chunks_break_the_answer_off() {
    let huge = format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(20_000));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(4_000));
    let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX_IN_TESTS));
    for (chunks, bad) in [
        ("2\nok\r\n0\r\n\r\n", Bad::Chunk),
        ("2;a\nok\r\n0\r\n\r\n", Bad::Chunk),
        ("2\rx\nok\r\n0\r\n\r\n", Bad::Chunk),
        (" 2\r\nok\r\n0\r\n\r\n", Bad::Chunk),
        ("+2\r\nok\r\n0\r\n\r\n", Bad::Chunk),
        ("0x2\r\nok\r\n0\r\n\r\n", Bad::Chunk),
        ("2 x\r\nok\r\n0\r\n\r\n", Bad::Chunk),
        ("\r\nok\r\n0\r\n\r\n", Bad::Chunk),
        ("fffffffffffffffff\r\nok", Bad::Chunk),
        ("2\r\nokay\r\n0\r\n\r\n", Bad::Chunk),
        ("2\r\nok\n0\r\n\r\n", Bad::Chunk),
        (&huge, Bad::Chunk),
        ("0\r\nno colon\r\n\r\n", Bad::Trailers),
        ("0\r\na: b\r\n folded\r\n\r\n", Bad::Trailers),
        (&trailers, Bad::Trailers),
        (&many, Bad::Trailers),
        ("2\r\nok\r\n", Bad::CutShort),
        ("2\r\no", Bad::CutShort),
        ("2", Bad::CutShort),
        ("2\r\nok\r\n0\r\na: b\r\n", Bad::CutShort),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let (got, home) = asked(answer.as_bytes(), true).await;
        assert_eq!((got.unwrap().cut, home), (Some(bad.to_string()), false), "{chunks:.60}");
    }
}

/// One more than is taken.
const HEADERS_MAX_IN_TESTS: usize = head::HEADERS_MAX + 1;

#[tokio::test]
async fn huge_heads_are_refused() {
    let endless =
        b"HTTP/1.1 200 OK\r\nx: ".iter().copied().chain(std::iter::repeat_n(b'x', HEAD_MAX)).collect::<Vec<_>>();
    let finished = [&endless[..], b"\r\n\r\n"].concat();
    let blank = vec![b'\n'; HEAD_MAX];
    for answer in [&endless, &finished, &blank] {
        let (stream, _server) = scripted(answer, 10_000, false);
        let why = Client::new(stream).ask(crate::service::nothing()).await.unwrap_err();
        assert_eq!(why, Bad::HeadTooLarge.to_string());
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX_IN_TESTS));
    let (got, _) = asked(many.as_bytes(), false).await;
    assert_eq!(got.unwrap_err(), Bad::Head(httparse::Error::TooManyHeaders).to_string());
    let enough = format!("HTTP/1.1 204 OK\r\n{}\r\n", "a: b\r\n".repeat(head::HEADERS_MAX));
    assert_eq!(asked(enough.as_bytes(), false).await.0.unwrap().headers.len(), head::HEADERS_MAX);
}

const HEAD_MAX: usize = head::HEAD_BYTES_MAX;

#[tokio::test]
async fn a_server_that_says_nothing_has_not_begun_only_if_that_is_sure() {
    // At once.
    let (stream, server) = scripted(b"", 1, true);
    let Err(failure) = Client::new(stream).send(crate::service::nothing()).await else { panic!("no answer came") };
    assert!(matches!(failure, Failure::Broken { .. }), "a connection never used before");
    drop(server);
    // After an answer, on a connection that was kept.
    for (method, again, body) in [(Method::GET, true, false), (Method::POST, false, false), (Method::PUT, false, true)]
    {
        let (ours, mut theirs) = duplex(1 << 16);
        let mut client = Client::new(ours).method(method);
        client.again = again;
        let server = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !ends(&seen) && theirs.read_buf(&mut seen).await.unwrap() > 0 {}
            theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            seen.clear();
            while !ends(&seen) && theirs.read_buf(&mut seen).await.unwrap() > 0 {}
        });
        client.ask(crate::service::nothing()).await.unwrap();
        assert!(client.is_home());
        let body = if body { crate::service::whole("hello") } else { crate::service::nothing() };
        let Err(failure) = client.send(body).await else { panic!("no answer came") };
        match failure {
            Failure::NotBegun { body, .. } => assert!(again && body.is_none()),
            Failure::Broken { .. } => assert!(!again),
        }
        server.await.unwrap();
    }
    // What has begun to answer has begun.
    let (got, _) = asked(b"HTTP/1.1 200 O", true).await;
    assert_eq!(got.unwrap_err(), Bad::CutShort.to_string());
}

/// A stream that takes nothing and says nothing.
struct Reset;

impl AsyncRead for Reset {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut tokio::io::ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for Reset {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_never_left_comes_back_whole() {
    let rest = of_pieces([Ok("hello, "), Ok("world")]);
    let known = crate::service::whole("hello, world");
    for (body, exact) in [(rest, None), (known, Some(12)), (crate::service::nothing(), Some(0))] {
        let (method, target, headers) = (Method::POST, Uri::from_static("/"), HeaderMap::new());
        let asked = Asked { method: &method, target: &target, headers: &headers, own: b"", request_id: "" };
        let sent = Connection::new(Reset).send(&asked, body, false, false, drop).await;
        let Err(Failure::NotBegun { body: Some(body), .. }) = sent else { panic!("it had not begun") };
        assert_eq!(body.size_hint().exact(), exact);
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!(&bytes[..], if exact == Some(0) { &b""[..] } else { b"hello, world" });
    }
}

/// A body of these pieces, of which nobody knows how long it is.
fn of_pieces(pieces: impl IntoIterator<Item = Result<&'static str, BodyError>>) -> StreamBody {
    struct Pieces(std::collections::VecDeque<Result<Frame<Bytes>, BodyError>>);
    impl Body for Pieces {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Ready(self.0.pop_front())
        }
    }
    Pieces(pieces.into_iter().map(|p| p.map(|p| Frame::data(Bytes::from(p)))).collect()).boxed_unsync()
}

/// What a server sees of a request.
async fn seen(client: impl FnOnce(Client) -> Client, body: StreamBody) -> String {
    let (stream, server) = scripted(b"HTTP/1.1 204 N\r\nconnection: close\r\n\r\n", 99, false);
    let mut client = client(Client::new(stream));
    // The answer comes before the body is through: it goes on while the connection is held.
    let _ = client.ask(body).await;
    drop(client);
    String::from_utf8(server.await.unwrap()).unwrap()
}

#[tokio::test]
async fn requests_are_framed_by_what_is_known_of_their_bodies() {
    let own = "x-scf-request-id: an-id\r\nx-scf-name: f\r\n";
    let none = seen(|c| c.header("host", "h").header("x-scf-name", "forged"), crate::service::nothing()).await;
    assert_eq!(none, format!("GET /a?b=c HTTP/1.1\r\nhost: h\r\n{own}\r\n"));
    let empty = seen(|c| c.method(Method::POST).header("content-length", "0"), crate::service::nothing()).await;
    assert_eq!(empty, format!("POST /a?b=c HTTP/1.1\r\n{own}content-length: 0\r\n\r\n"));
    let exact = seen(|c| c.method(Method::PUT), crate::service::whole("hello")).await;
    assert_eq!(exact, format!("PUT /a?b=c HTTP/1.1\r\n{own}content-length: 5\r\n\r\nhello"));
    let named = seen(|c| c.method(Method::PUT).header("content-length", "10"), of_pieces([Ok("hello"), Ok("world")]));
    assert_eq!(named.await, format!("PUT /a?b=c HTTP/1.1\r\n{own}content-length: 10\r\n\r\nhelloworld"));
    // A coding of the visitor's connection is not this one's.
    let chunked = seen(|c| c.header("transfer-encoding", "gzip"), of_pieces([Ok("hello"), Ok(""), Ok(", world!...")]));
    let framed = "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nb\r\n, world!...\r\n0\r\n\r\n";
    assert_eq!(chunked.await, format!("GET /a?b=c HTTP/1.1\r\n{own}{framed}"));
}

#[tokio::test]
async fn announced_trailers_follow_the_body() {
    let mut fields = HeaderMap::new();
    for (name, value) in [("x-sum", "1"), ("x-other", "2"), ("host", "3"), ("x-sum", "4")] {
        fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let body = of_pieces([Ok("hi")]);
    let body = body.with_trailers(std::future::ready(Some(Ok::<_, BodyError>(fields)))).boxed_unsync();
    let text = seen(|c| c.header("trailer", "X-Sum, Host"), body).await;
    assert!(text.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\nx-sum: 4\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn bodies_that_lie_about_their_length_are_not_sent_as_told() {
    for (length, pieces) in
        [("4", vec![Ok("hello")]), ("6", vec![Ok("hello")]), ("9", vec![Ok("hello"), Err("gone".into())])]
    {
        let (stream, _server) = scripted(b"", 1, false);
        let mut client = Client::new(stream).method(Method::POST).header("content-length", length);
        let Err(Failure::Broken { .. }) = client.send(of_pieces(pieces)).await else { panic!("{length}") };
        assert!(!client.is_home());
    }
}

/// A body that goes on for ever, and how much of it was taken.
fn endless() -> (StreamBody, Arc<std::sync::atomic::AtomicUsize>) {
    let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    struct Endless(Arc<std::sync::atomic::AtomicUsize>);
    impl Body for Endless {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            self.0.fetch_add(1024, std::sync::atomic::Ordering::Relaxed);
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 1024])))))
        }
    }
    (Endless(Arc::clone(&taken)).boxed_unsync(), taken)
}

#[tokio::test]
async fn answers_may_come_before_the_request_is_through() {
    // The server reads nothing and answers; what waits for it must not wait for the request.
    let (ours, theirs) = duplex(4096);
    let (body, taken) = endless();
    let mut client = Client::new(ours).method(Method::POST);
    let server = hasty(theirs, b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig");
    let got = client.ask(body).await.unwrap();
    assert_eq!((got.status, &got.body[..], client.is_home()), (413, &b"big"[..], false));
    assert!(taken.load(std::sync::atomic::Ordering::Relaxed) <= 8192, "no more is taken than the server takes");
    // The connection has ended with it.
    server.await.unwrap().read_to_end(&mut Vec::new()).await.unwrap();

    // The server reads a little, answers, closes.
    let (ours, mut theirs) = duplex(4096);
    let (body, _) = endless();
    let server = tokio::spawn(async move {
        theirs.read_exact(&mut [0; 2048]).await.unwrap();
        theirs.write_all(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    });
    let got = Client::new(ours).method(Method::POST).ask(body).await.unwrap();
    assert_eq!((got.status, &got.body[..]), (401, &b"no"[..]));
    server.await.unwrap();
}

#[tokio::test]
async fn request_and_answer_flow_at_the_same_time() {
    // An echo, with room for neither in between.
    let (ours, mut theirs) = duplex(512);
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        let end = loop {
            theirs.read_buf(&mut seen).await.unwrap();
            if let Some(at) = seen.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
        };
        theirs.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
        seen.drain(..end);
        let mut sent = 0;
        while sent < 100_000 {
            theirs.write_all(&seen).await.unwrap();
            sent += seen.len();
            seen.clear();
            if sent < 100_000 {
                theirs.read_buf(&mut seen).await.unwrap();
            }
        }
        theirs
    });
    let sent: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let mut client = Client::new(ours).method(Method::POST);
    let got = client.ask(crate::service::whole(sent.clone())).await.unwrap();
    assert!(got.body == sent && got.cut.is_none() && client.is_home());
    drop(server.await.unwrap());
}

#[tokio::test]
async fn many_requests_go_over_one_connection() {
    let (ours, mut theirs) = duplex(1 << 12);
    let server = tokio::spawn(async move {
        let mut seen = Vec::new();
        for round in 0..20usize {
            while !seen.ends_with(b"\r\n\r\n") {
                assert!(theirs.read_buf(&mut seen).await.unwrap() > 0);
            }
            seen.clear();
            let body = "x".repeat(round * 5_000);
            let answer = match round % 2 {
                0 => format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
                _ => format!(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                    body.len()
                ),
            };
            theirs.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let mut client = Client::new(ours);
    for round in 0..20 {
        let got = client.ask(crate::service::nothing()).await.unwrap();
        assert_eq!((got.body.len(), got.cut), (round * 5_000, None));
        assert!(client.is_home());
    }
    server.await.unwrap();
}

#[tokio::test]
async fn a_change_of_protocol_hands_the_connection_over() {
    let (stream, server) = scripted(b"HTTP/1.1 101 Go\r\nupgrade: echo\r\n\r\nearly bytes", 1000, false);
    let mut client = Client::new(stream).header("connection", "Upgrade").header("upgrade", "echo");
    let Ok(Answered::Upgraded(response, mut upgraded)) = client.send_as(crate::service::nothing(), true).await else {
        panic!("it agreed")
    };
    assert_eq!(
        (response.status(), response.headers()["upgrade"].as_bytes()),
        (StatusCode::SWITCHING_PROTOCOLS, &b"echo"[..])
    );
    assert_eq!(&upgraded.ahead[..], b"early bytes");
    upgraded.stream.write_all(b"raw").await.unwrap();
    drop(upgraded);
    let text = String::from_utf8(server.await.unwrap()).unwrap();
    assert!(text.contains("connection: Upgrade\r\nupgrade: echo\r\n") && text.ends_with("\r\n\r\nraw"), "{text}");
    assert!(!client.is_home());
    // One that does not agree answers as usual, and one that agrees before it has the whole request is broken.
    let (stream, _server) = scripted(b"HTTP/1.1 426 No\r\ncontent-length: 0\r\n\r\n", 1000, false);
    let mut client = Client::new(stream);
    assert!(matches!(client.send_as(crate::service::nothing(), true).await, Ok(Answered::Response(_))));
    assert!(client.is_home());
    let (ours, theirs) = duplex(2048);
    let _server = hasty(theirs, b"HTTP/1.1 101 Go\r\nupgrade: echo\r\n\r\n");
    let sent = Client::new(ours).method(Method::POST).send_as(endless().0, true).await;
    assert!(matches!(sent, Err(Failure::Broken { .. })));
}

#[tokio::test]
async fn who_goes_away_takes_the_connection_along() {
    // While waiting for the head.
    let (ours, mut theirs) = duplex(1 << 12);
    let mut client = Client::new(ours);
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(5), client.ask(crate::service::nothing()));
    assert!(waiting.await.is_err());
    theirs.read_to_end(&mut Vec::new()).await.unwrap();
    // While the body comes.
    let (ours, theirs) = duplex(1 << 12);
    let server = hasty(theirs, b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome");
    let mut client = Client::new(ours);
    let mut response = client.send(crate::service::nothing()).await.ok().unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(9));
    assert_eq!(response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "some");
    assert_eq!(response.body().size_hint().exact(), Some(5));
    drop(response);
    server.await.unwrap().read_to_end(&mut Vec::new()).await.unwrap();
    assert!(!client.is_home());
}

#[tokio::test]
async fn a_piece_that_is_the_last_says_so() {
    // Whoever passes it on need not ask again, and can send its own end along.
    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let (stream, _server) = scripted(answer, 1000, false);
    let mut client = Client::new(stream);
    let mut body = client.send(crate::service::nothing()).await.ok().unwrap().into_body();
    assert_eq!((body.is_end_stream(), body.size_hint().exact()), (false, None));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    assert!(body.is_end_stream() && client.is_home());
}
