//! Bodies of answers, as they are framed. Source: RFC 9112 §6 and §7.

use super::Bad;
use super::head::{HEADERS_MAX, Length};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Longest line before a chunk, in bytes: its size, and extensions that nobody reads.
const CHUNK_LINE_BYTES_MAX: usize = 16 * 1024;
/// All trailers together, in bytes.
const TRAILER_BYTES_MAX: usize = 16 * 1024;

/// What is next in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    /// It has ended.
    End,
    /// More bytes are needed to tell.
    More,
}

/// Reads a body from the bytes of a connection.
#[derive(Debug)]
pub(super) enum Decoder {
    /// So many bytes are left.
    Exact(u64),
    /// Whatever comes.
    UntilClose,
    Chunked(Chunks),
}

/// Where in a chunked body the next byte is.
#[derive(Debug)]
pub(super) enum Chunks {
    /// In the line before a chunk, of which so many bytes have been looked at.
    Line {
        looked: usize,
    },
    /// In a chunk.
    Data {
        left: u64,
    },
    /// In the line's end after a chunk.
    DataEnd,
    /// After the last chunk.
    Trailers,
    Ended,
}

impl Decoder {
    pub(super) fn new(length: Length) -> Self {
        match length {
            Length::Exact(bytes) => Self::Exact(bytes),
            Length::UntilClose => Self::UntilClose,
            Length::Chunked => Self::Chunked(Chunks::Line { looked: 0 }),
        }
    }

    /// What is left of a body whose length was named.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Exact(left) => Some(*left),
            _ => None,
        }
    }

    /// True when the connection's end is the body's, too.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self, Self::UntilClose)
    }

    /// Takes what is next off the front of `inbox`.
    pub(super) fn step(&mut self, inbox: &mut BytesMut) -> Result<Step, Bad> {
        match self {
            Self::Exact(0) => Ok(Step::End),
            Self::Exact(left) => Ok(some(inbox, left)),
            Self::UntilClose => {
                let mut endless = u64::MAX;
                Ok(some(inbox, &mut endless))
            }
            Self::Chunked(chunks) => chunks.step(inbox),
        }
    }
}

/// What there is of the bytes that are left.
fn some(inbox: &mut BytesMut, left: &mut u64) -> Step {
    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(inbox.len());
    if n == 0 {
        return Step::More;
    }
    *left -= n as u64;
    Step::Data(inbox.split_to(n).freeze())
}

impl Chunks {
    fn step(&mut self, inbox: &mut BytesMut) -> Result<Step, Bad> {
        loop {
            match self {
                Self::Line { looked } => {
                    let Some(at) = memchr::memchr(b'\n', &inbox[*looked..]) else {
                        *looked = inbox.len();
                        return if inbox.len() > CHUNK_LINE_BYTES_MAX { Err(Bad::Chunk) } else { Ok(Step::More) };
                    };
                    let end = *looked + at;
                    if end > CHUNK_LINE_BYTES_MAX {
                        return Err(Bad::Chunk);
                    }
                    let size = size_of(&inbox[..end])?;
                    inbox.advance(end + 1);
                    *self = if size == 0 { Self::Trailers } else { Self::Data { left: size } };
                }
                Self::Data { left: 0 } => *self = Self::DataEnd,
                Self::Data { left } => return Ok(some(inbox, left)),
                Self::DataEnd => match &inbox[..] {
                    [b'\r', b'\n', ..] => {
                        inbox.advance(2);
                        *self = Self::Line { looked: 0 };
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(Bad::Chunk),
                },
                Self::Trailers => {
                    let end = match &inbox[..] {
                        [b'\r', b'\n', ..] => 2,
                        bytes => match memchr::memmem::find(bytes, b"\r\n\r\n") {
                            Some(at) => at + 4,
                            None if bytes.len() > TRAILER_BYTES_MAX => return Err(Bad::Trailers),
                            None => return Ok(Step::More),
                        },
                    };
                    if end > TRAILER_BYTES_MAX {
                        return Err(Bad::Trailers);
                    }
                    let bytes = inbox.split_to(end).freeze();
                    *self = Self::Ended;
                    if end > 2 {
                        return trailers(&bytes).map(Step::Trailers);
                    }
                }
                Self::Ended => return Ok(Step::End),
            }
        }
    }
}

/// The size that the line before a chunk names; the line is without its LF.
fn size_of(line: &[u8]) -> Result<u64, Bad> {
    // Who accepts an LF alone here, or a size with a sign or blanks before it, reads another message than who does not.
    let line = line.strip_suffix(b"\r").ok_or(Bad::Chunk)?;
    let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let rest = line[digits..].trim_ascii_start();
    if digits == 0 || digits > 16 || !(rest.is_empty() || rest[0] == b';') || rest.contains(&b'\r') {
        return Err(Bad::Chunk);
    }
    let text = std::str::from_utf8(&line[..digits]).map_err(|_| Bad::Chunk)?;
    u64::from_str_radix(text, 16).map_err(|_| Bad::Chunk)
}

fn trailers(bytes: &Bytes) -> Result<HeaderMap, Bad> {
    let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete((length, lines))) if length == bytes.len() => {
            let mut trailers = HeaderMap::with_capacity(lines.len());
            for line in lines {
                let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Bad::Trailers)?;
                let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value));
                trailers.append(name, value.map_err(|_| Bad::Trailers)?);
            }
            Ok(trailers)
        }
        _ => Err(Bad::Trailers),
    }
}
