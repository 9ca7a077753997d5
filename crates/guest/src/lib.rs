//! The frames between a node and the runtime shim inside a sandbox (see `docs/runtime-protocol.md`).
//!
//! Only layout and meaning live here; reading and writing sockets is the node's work.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version both sides must speak.
pub const PROTOCOL: u32 = 1;
/// Length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 8;
/// Longest payload of a frame, in bytes: an event or a return value of 6 MB with room for escapes and the meta part.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Kinds of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Host: load this function.
    Bind = 0x01,
    /// Host: run the handler once.
    Invoke = 0x02,
    /// Shim: I am up.
    Hello = 0x81,
    /// Shim: the function is loaded.
    Ready = 0x82,
    /// Shim: loading or the handler failed.
    Error = 0x83,
    /// Shim: the handler's return value.
    Result = 0x84,
}

/// Why a frame was refused. The connection, and with it the instance, is finished after any of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind byte means nothing in this version.
    #[error("frame of unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// The payload is longer than [`PAYLOAD_BYTES_MAX`].
    #[error("frame of {0} bytes is over the limit")]
    TooLong(usize),
    /// Reserved bytes are not zero.
    #[error("reserved bytes of a frame header are not zero")]
    Reserved,
    /// The payload is not what the kind calls for.
    #[error("payload of a {0:?} frame cannot be read: {1}")]
    Payload(Kind, String),
}

/// The header of a frame with `payload_len` bytes of payload.
pub fn header(kind: Kind, payload_len: usize) -> [u8; HEADER_BYTES] {
    let len = u32::try_from(payload_len).expect("payload lengths are checked against PAYLOAD_BYTES_MAX").to_le_bytes();
    [len[0], len[1], len[2], len[3], kind as u8, 0, 0, 0]
}

/// Reads a header: the kind and the length of the payload that follows, in bytes.
pub fn parse_header(bytes: [u8; HEADER_BYTES]) -> Result<(Kind, usize), FrameError> {
    let kind = match bytes[4] {
        0x01 => Kind::Bind,
        0x02 => Kind::Invoke,
        0x81 => Kind::Hello,
        0x82 => Kind::Ready,
        0x83 => Kind::Error,
        0x84 => Kind::Result,
        other => return Err(FrameError::UnknownKind(other)),
    };
    if bytes[5..] != [0, 0, 0] {
        return Err(FrameError::Reserved);
    }
    let len = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    if len > PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLong(len));
    }
    Ok((kind, len))
}

/// Appends one whole frame to `out`.
pub fn put_frame(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    out.extend_from_slice(&header(kind, payload.len()));
    out.extend_from_slice(payload);
}

/// Takes one whole frame off the front of `buffer`, if it is there. Returns its kind, the range of its payload within
/// `buffer`, and the length of the whole frame.
pub fn take_frame(buffer: &[u8]) -> Result<Option<(Kind, std::ops::Range<usize>, usize)>, FrameError> {
    let Some(head) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let (kind, len) = parse_header(*head)?;
    let end = HEADER_BYTES + len;
    if buffer.len() < end {
        return Ok(None);
    }
    Ok(Some((kind, HEADER_BYTES..end, end)))
}

/// Payload of [`Kind::Bind`].
#[derive(Debug, Serialize)]
pub struct Bind<'a> {
    /// `file.function`.
    pub handler: &'a str,
    /// Directory of the code inside the sandbox.
    pub code: &'a str,
    /// The whole environment of the process.
    pub environment: &'a BTreeMap<String, String>,
    /// Fields of SCF's context that do not change between invocations.
    pub context: Context<'a>,
    /// Longest return value, in bytes of JSON text.
    pub result_bytes_max: usize,
    /// The node wants to fork instances from this process.
    pub template: bool,
    /// 64 hexadecimal digits of randomness to mix in.
    pub entropy: String,
}

/// The fields of SCF's context that are fixed for an instance.
#[derive(Debug, Serialize)]
pub struct Context<'a> {
    /// Memory limit, in MB.
    pub memory_limit_in_mb: u32,
    /// Run-time limit, in milliseconds.
    pub time_limit_in_ms: u64,
    /// Name of the function.
    pub function_name: &'a str,
    /// `$LATEST` or the version's number.
    pub function_version: &'a str,
    /// Namespace of the function.
    pub namespace: &'a str,
    /// Region of the platform.
    pub tencentcloud_region: &'a str,
    /// Account of the platform.
    pub tencentcloud_appid: &'a str,
    /// Owner of the account.
    pub tencentcloud_uin: &'a str,
    /// The environment, once more, for SCF's `environment` and `environ`.
    pub environ: &'a BTreeMap<String, String>,
}

/// Payload of [`Kind::Hello`].
#[derive(Clone, Debug, Deserialize)]
pub struct Hello {
    /// Must equal [`PROTOCOL`].
    pub protocol: u32,
    /// Family of the runtime.
    pub runtime: String,
    /// Version of the interpreter, for people.
    pub version: String,
}

/// Payload of [`Kind::Ready`].
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Time that the function's own module-level code took, in microseconds.
    pub init_us: u64,
    /// Present when BIND asked for a template.
    pub fork: Option<ForkVerdict>,
}

/// Whether forking this initialised process is sound.
#[derive(Clone, Debug, Deserialize)]
pub struct ForkVerdict {
    /// True: the process is now a forker and takes no INVOKE.
    pub sound: bool,
    /// Otherwise why not, for people.
    #[serde(default)]
    pub why: Vec<String>,
}

/// Payload of [`Kind::Error`].
#[derive(Clone, Debug, Deserialize)]
pub struct Failure {
    /// One of SCF's status codes.
    #[serde(rename = "statusCode")]
    pub status_code: u16,
    /// Class of the exception, if the language has one.
    #[serde(rename = "errorType", default)]
    pub error_type: String,
    /// The exception's message.
    #[serde(rename = "errorMessage", default)]
    pub error_message: String,
    /// The user's part of the stack, as the language prints it.
    #[serde(rename = "stackTrace", default)]
    pub stack_trace: String,
}

/// Reads the JSON payload of a frame.
pub fn payload<'a, T: Deserialize<'a>>(kind: Kind, bytes: &'a [u8]) -> Result<T, FrameError> {
    serde_json::from_slice(bytes).map_err(|e| FrameError::Payload(kind, e.to_string()))
}

/// Appends an INVOKE frame. `request_id` is a UUID in text, `deadline_ms` milliseconds since the epoch.
pub fn put_invoke(out: &mut Vec<u8>, request_id: &str, deadline_ms: u64, event: &[u8]) {
    use std::io::Write;
    let at = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES + 4]);
    write!(out, "{{\"request_id\":\"{request_id}\",\"deadline_ms\":{deadline_ms},\"trigger\":null}}")
        .expect("writing to a Vec does not fail");
    let meta_len = out.len() - at - HEADER_BYTES - 4;
    let payload_len = 4 + meta_len + event.len();
    out[at..at + HEADER_BYTES].copy_from_slice(&header(Kind::Invoke, payload_len));
    let meta_len = u32::try_from(meta_len).expect("the meta part is short").to_le_bytes();
    out[at + HEADER_BYTES..at + HEADER_BYTES + 4].copy_from_slice(&meta_len);
    out.extend_from_slice(event);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn invoke_frames_have_the_documented_layout() {
        let mut out = Vec::new();
        put_invoke(&mut out, "id", 5, b"{\"a\":1}");
        let (kind, range, len) = take_frame(&out).unwrap().unwrap();
        assert_eq!((kind, len), (Kind::Invoke, out.len()));
        let p = &out[range];
        let meta_len = u32::from_le_bytes(p[..4].try_into().unwrap()) as usize;
        assert_eq!(&p[4..4 + meta_len], br#"{"request_id":"id","deadline_ms":5,"trigger":null}"#);
        assert_eq!(&p[4 + meta_len..], b"{\"a\":1}");
    }

    #[test]
    fn bad_headers_are_refused() {
        assert_eq!(parse_header([0, 0, 0, 0, 9, 0, 0, 0]), Err(FrameError::UnknownKind(9)));
        assert_eq!(parse_header([0, 0, 0, 0, 1, 0, 1, 0]), Err(FrameError::Reserved));
        assert_eq!(parse_header([255, 255, 255, 255, 1, 0, 0, 0]), Err(FrameError::TooLong(u32::MAX as usize)));
    }

    proptest! {
        #[test]
        fn frames_round_trip_and_wait_for_their_end(payload in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..208) {
            let mut out = Vec::new();
            put_frame(&mut out, Kind::Result, &payload);
            let cut = cut.min(out.len());
            if cut < out.len() {
                prop_assert!(take_frame(&out[..cut]).unwrap().is_none());
            }
            let (kind, range, _) = take_frame(&out).unwrap().unwrap();
            prop_assert_eq!(kind, Kind::Result);
            prop_assert_eq!(&out[range], &payload[..]);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = take_frame(&bytes);
        }
    }
}
