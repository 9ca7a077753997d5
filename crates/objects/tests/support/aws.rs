//! Requests signed in AWS's way (version 4), bodies in chunks and trailers included.

use super::{HOST, now_s, whole};
use http::Request;
use mayfly_objects::Body;
use sha2::{Digest as _, Sha256};

const REGION: &str = "ap-x";

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// Each chunk and the trailer are signed.
    Signed,
    /// Only the headers are.
    Unsigned,
}

/// A body in chunks, with a checksum after it.
#[derive(Clone, Debug)]
pub struct Trailed<'a> {
    pub chunks: Chunks,
    /// `crc32`, `crc32c`, `sha256` …
    pub algorithm: &'a str,
    /// The checksum as it is sent, in base64.
    pub sum: String,
    /// A chunk's signature is wrong, or the trailer's.
    pub forged: Option<Forged>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forged {
    Chunk,
    Trailer,
}

pub fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let pad = |with: u8| block.map(|b| b ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The time as AWS writes it: `20260102T030405Z`.
fn stamp(seconds: u64) -> String {
    // Days since 1970 into a date: Howard Hinnant's `civil_from_days`.
    let z = i64::try_from(seconds / 86_400).unwrap() + 719_468;
    let era = z / 146_097;
    let of_era = z - era * 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{h:02}{m:02}{s:02}Z")
}

struct Signer {
    stamp: String,
    scope: String,
    key: [u8; 32],
}

impl Signer {
    fn new() -> Self {
        let stamp = stamp(now_s());
        let day = &stamp[..8];
        let key = hmac(b"AWS4secret", day.as_bytes());
        let key = hmac(&hmac(&hmac(&key, REGION.as_bytes()), b"s3"), b"aws4_request");
        Self { scope: format!("{day}/{REGION}/s3/aws4_request"), stamp, key }
    }

    fn sign(&self, kind: &str, rest: &str) -> String {
        hex::encode(hmac(&self.key, format!("{kind}\n{}\n{}\n{rest}", self.stamp, self.scope).as_bytes()))
    }
}

/// A `PUT` of `body` to `path`, in chunks of 64 KiB.
pub fn put(path: &str, body: &[u8], how: &Trailed<'_>) -> Request<Body> {
    let signer = Signer::new();
    let payload = match how.chunks {
        Chunks::Signed => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
        Chunks::Unsigned => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    };
    let trailer = format!("x-amz-checksum-{}", how.algorithm);
    let mut headers = vec![
        ("content-encoding", "aws-chunked".to_owned()),
        ("host", HOST.to_owned()),
        ("x-amz-content-sha256", payload.to_owned()),
        ("x-amz-date", signer.stamp.clone()),
        ("x-amz-decoded-content-length", body.len().to_string()),
        ("x-amz-trailer", trailer.clone()),
    ];
    let names: Vec<&str> = headers.iter().map(|(n, _)| *n).collect();
    let lines: String = headers.iter().map(|(n, v)| format!("{n}:{v}\n")).collect();
    let canonical = format!("PUT\n{path}\n\n{lines}\n{}\n{payload}", names.join(";"));
    let seed = signer.sign("AWS4-HMAC-SHA256", &hash(canonical.as_bytes()));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDtest/{}, SignedHeaders={}, Signature={seed}",
        signer.scope,
        names.join(";")
    );
    headers.push(("authorization", authorization));

    let (mut sent, mut before) = (Vec::new(), seed);
    let last: &[u8] = &[];
    for (i, chunk) in body.chunks(64 << 10).chain([last]).enumerate() {
        sent.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if how.chunks == Chunks::Signed {
            before = signer.sign("AWS4-HMAC-SHA256-PAYLOAD", &format!("{before}\n{}\n{}", hash(b""), hash(chunk)));
            let shown = if how.forged == Some(Forged::Chunk) && i == 0 { hash(b"forged") } else { before.clone() };
            sent.extend_from_slice(format!(";chunk-signature={shown}").as_bytes());
        }
        sent.extend_from_slice(b"\r\n");
        sent.extend_from_slice(chunk);
        if !chunk.is_empty() {
            sent.extend_from_slice(b"\r\n");
        }
    }
    sent.extend_from_slice(format!("{trailer}:{}\r\n", how.sum).as_bytes());
    if how.chunks == Chunks::Signed {
        let text = hash(format!("{trailer}:{}\n", how.sum).as_bytes());
        let mut signature = signer.sign("AWS4-HMAC-SHA256-TRAILER", &format!("{before}\n{text}"));
        if how.forged == Some(Forged::Trailer) {
            signature = hash(b"forged");
        }
        sent.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
    }
    sent.extend_from_slice(b"\r\n");

    let mut request = Request::builder().method("PUT").uri(path).header("content-length", sent.len());
    for (name, value) in headers {
        request = request.header(name, value);
    }
    request.body(whole(sent)).unwrap()
}

/// A reflected CRC of 32 bits, bit by bit.
pub fn crc(polynomial: u32, bytes: &[u8]) -> [u8; 4] {
    let mut state = u32::MAX;
    for byte in bytes {
        state ^= u32::from(*byte);
        for _ in 0..8 {
            state = state >> 1 ^ if state & 1 == 1 { polynomial } else { 0 };
        }
    }
    (!state).to_be_bytes()
}
