//! Heads of HTTP/1.1 messages: a request's is written, an answer's is read. Source: RFC 9112.

use super::Bad;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::ext::ReasonPhrase;
use std::io::Write;
use std::mem::MaybeUninit;

/// Longest head of an answer, in bytes; interim answers count each for itself.
pub(crate) const HEAD_BYTES_MAX: usize = 400 * 1024;
/// Most headers of an answer, and most of its trailers.
pub(super) const HEADERS_MAX: usize = 100;

/// What is asked of a server.
pub(crate) struct Asked<'a> {
    pub method: &'a Method,
    /// In origin form.
    pub target: &'a http::Uri,
    pub headers: &'a HeaderMap,
    /// The platform's own headers as they are written. Others of these names are left out.
    pub own: &'a [u8],
    pub request_id: &'a str,
}

/// How the body of a request is framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none. `said`: its length is named all the same.
    Nothing { said: bool },
    /// So many bytes.
    Length(u64),
    /// In chunks, with these trailers.
    Chunked { trailers: Vec<HeaderName> },
}

/// Fields that must not come after a body. Source: RFC 9110 §6.5.1.
const NO_TRAILERS: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::CONNECTION,
    header::COOKIE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

impl Framing {
    /// For a body of which `exact` bytes are known to come, `None` when nobody knows; `ended`: there is nothing to come.
    pub(super) fn of(headers: &HeaderMap, ended: bool, exact: Option<u64>) -> Self {
        if ended {
            return Self::Nothing { said: headers.contains_key(header::CONTENT_LENGTH) };
        }
        match length_in(headers).ok().flatten().or(exact) {
            Some(length) => Self::Length(length),
            None => {
                let named = headers.get_all(header::TRAILER).iter().filter_map(|v| v.to_str().ok());
                let names = named.flat_map(|v| v.split(',')).filter_map(|n| n.trim().parse().ok());
                Self::Chunked { trailers: names.filter(|n| !NO_TRAILERS.contains(n)).collect() }
            }
        }
    }
}

/// Writes a request's head.
pub(super) fn write(asked: &Asked<'_>, framing: &Framing, out: &mut Vec<u8>) {
    let target = asked.target.path_and_query().map_or("/", |p| p.as_str());
    put(out, &[asked.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\n"]);
    for (name, value) in asked.headers {
        // A body is framed here; and the platform speaks for itself.
        if *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING || name.as_str().starts_with("x-scf-")
        {
            continue;
        }
        field(out, name, value);
    }
    put(out, &[b"x-scf-request-id: ", asked.request_id.as_bytes(), b"\r\n", asked.own]);
    let length = match framing {
        Framing::Nothing { said } => said.then_some(0),
        Framing::Length(length) => Some(*length),
        Framing::Chunked { .. } => {
            put(out, &[b"transfer-encoding: chunked\r\n"]);
            None
        }
    };
    if let Some(length) = length {
        // Writing to a vector does not fail.
        let _ = write!(out, "content-length: {length}\r\n");
    }
    put(out, &[b"\r\n"]);
}

/// Writes one header.
pub(crate) fn field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    put(out, &[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
}

fn put(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    for piece in pieces {
        out.extend_from_slice(piece);
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// How the body of an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Exact(u64),
    Chunked,
    UntilClose,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub status: StatusCode,
    /// What the server calls the status, where that is not its usual name.
    pub reason: Option<ReasonPhrase>,
    /// Without what concerns the connection only, but for names of other such headers in `Connection`, and with at most one
    /// `Content-Length`, which holds.
    pub headers: HeaderMap,
    pub length: Length,
    /// The connection can serve another request after this answer.
    pub keep_alive: bool,
}

/// Takes a head off the front of `inbox`, if it is there in full. `looked`: where in `inbox` to go on looking for its end; 0 at first.
pub(super) fn take(inbox: &mut BytesMut, looked: &mut usize, method: &Method) -> Result<Option<Head>, Bad> {
    let Some(end) = end_of(inbox, looked) else {
        if inbox.len() >= HEAD_BYTES_MAX {
            return Err(Bad::HeadTooLarge);
        }
        let begin = inbox.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(inbox.len());
        let shared = (inbox.len() - begin).min(BEGINNING.len());
        return if inbox[begin..begin + shared] == BEGINNING[..shared] { Ok(None) } else { Err(Bad::NotHttp) };
    };
    if end > HEAD_BYTES_MAX {
        return Err(Bad::HeadTooLarge);
    }
    *looked = 0;
    parse(inbox.split_to(end).freeze(), method).map(Some)
}

const BEGINNING: &[u8] = b"HTTP/1.";

/// Where the first head ends: after the first line that is empty and not the first. As HTTP allows, a line may end without its CR.
fn end_of(inbox: &[u8], looked: &mut usize) -> Option<usize> {
    let mut from = *looked;
    if from == 0 {
        // Empty lines in front belong to no head, and are passed over.
        from = inbox.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    }
    loop {
        let Some(at) = memchr::memchr(b'\n', &inbox[from..]) else {
            *looked = inbox.len();
            return None;
        };
        let next = from + at + 1;
        match &inbox[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            // The empty line may be about to come.
            [] | [b'\r'] => {
                *looked = next - 1;
                return None;
            }
            _ => from = next,
        }
    }
}

fn parse(bytes: Bytes, method: &Method) -> Result<Head, Bad> {
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut answer, &bytes, &mut slots) {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        Ok(_) => return Err(Bad::Head(httparse::Error::NewLine)),
        Err(httparse::Error::Version) => return Err(Bad::NotHttp),
        Err(e) => return Err(Bad::Head(e)),
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Bad::NotHttp)?;
    let modern = answer.version == Some(1);
    let reason = answer.reason.filter(|r| Some(*r) != status.canonical_reason());
    let reason = reason.and_then(|r| ReasonPhrase::try_from(Bytes::copy_from_slice(r.as_bytes())).ok());
    let kept = answer.headers.iter().filter(|line| !line.name.eq_ignore_ascii_case("keep-alive")).count();
    let mut headers = HeaderMap::with_capacity(kept);
    let (mut closes, mut stays, mut coded) = (!modern, false, false);
    let mut length = Length::UntilClose;
    for line in answer.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Bad::Head(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value));
        let value = value.map_err(|_| Bad::Head(httparse::Error::HeaderValue))?;
        if name == header::TRANSFER_ENCODING {
            length = match value.as_bytes() {
                // A later version's invention in a message of an earlier one: somebody in between may have read it otherwise.
                _ if !modern || coded => return Err(Bad::Coding),
                v if v.eq_ignore_ascii_case(b"chunked") => Length::Chunked,
                v if v.eq_ignore_ascii_case(b"identity") => Length::UntilClose,
                // Nobody has said that it could be read.
                _ => return Err(Bad::Coding),
            };
            coded = true;
            continue;
        }
        if name == header::CONNECTION {
            let mut names_others = false;
            for option in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                let (close, stay) = (option.eq_ignore_ascii_case(b"close"), option.eq_ignore_ascii_case(b"keep-alive"));
                closes |= close;
                stays |= stay;
                names_others |= !close && !stay;
            }
            // What it says of this connection has been read. Other names tell which headers are not to go further.
            if !names_others {
                continue;
            }
        }
        if name == KEEP_ALIVE {
            continue;
        }
        headers.append(name, value);
    }
    let mut keep_alive = if modern { !closes } else { stays };
    if coded {
        // RFC 9112 §6.3: the coding holds, the length goes, and nobody knows what else on this connection was meant otherwise.
        keep_alive &= headers.remove(header::CONTENT_LENGTH).is_none();
    } else if headers.contains_key(header::CONTENT_LENGTH) {
        let bytes = length_in(&headers)?.unwrap_or(0);
        if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
        }
        length = Length::Exact(bytes);
    }
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    if bodiless || *method == Method::HEAD || status.is_informational() {
        length = Length::Exact(0);
    }
    keep_alive &= length != Length::UntilClose;
    Ok(Head { status, reason, headers, length, keep_alive })
}

/// The length that `Content-Length` names; it may be repeated, but not be two.
fn length_in(headers: &HeaderMap) -> Result<Option<u64>, Bad> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        for one in value.as_bytes().split(|b| *b == b',') {
            let one = one.trim_ascii();
            let text = std::str::from_utf8(one).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
            let one = text.and_then(|t| t.parse::<u64>().ok()).ok_or(Bad::Length)?;
            if length.is_some_and(|l| l != one) {
                return Err(Bad::Length);
            }
            length = Some(one);
        }
    }
    Ok(length)
}
