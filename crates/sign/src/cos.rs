//! The signature of the COS XML API: `q-sign-algorithm=sha1`, in the `Authorization` header or in the query. Pure.
//!
//! Source: "Request signature" in COS's documents, and what `cos-python-sdk-v5` and `cos-nodejs-sdk-v5` send.
//!
//! The key that signs is derived from the secret and a span of time, so a signature carries its own end. It covers the method, the decoded path,
//! and the headers and parameters that the request lists; what it does not list, it does not cover. The SDKs list whatever they send. A
//! presigned URL is handed to third parties, so there whoever verifies must also look at [`CosVerified::covers`].

use std::borrow::Cow;

use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;

use crate::credential::CredentialSource;

/// How far ahead of ours a client's clock may be, in seconds. Ours; S3 allows as much.
pub const COS_SKEW_S: u64 = 900;
/// Longest `Authorization`, or query with a signature, that is looked at, in bytes. Ours.
const TEXT_BYTES_MAX: usize = 16 * 1024;
/// Most headers, and most parameters, that a signature lists. Ours.
const LISTED_MAX: usize = 100;

/// What the verifier needs to see of a request.
#[derive(Clone, Copy)]
pub struct CosRequest<'a> {
    /// The method as on the wire.
    pub method: &'a str,
    /// The path as on the wire, percent-encoded.
    pub path: &'a str,
    /// The query as on the wire, without the question mark; empty when there is none.
    pub query: &'a str,
    /// Looks a header up by its lower-case name.
    pub header: &'a (dyn Fn(&str) -> Option<&'a [u8]> + 'a),
    /// Whether the first segment of the path is the bucket: some SDKs then leave it out of what they sign.
    pub path_style: bool,
}

/// A request whose signature is right.
#[derive(Clone, Debug)]
pub struct CosVerified {
    /// Who signed.
    pub secret_id: String,
    /// Whether the signature was in the query.
    pub presigned: bool,
    params: Vec<String>,
    headers: Vec<String>,
}

impl CosVerified {
    /// Whether the signature covers the query parameter `name` (lower case).
    pub fn covers(&self, name: &str) -> bool {
        self.params.iter().any(|p| p == name)
    }

    /// Whether the signature covers the header `name` (lower case).
    pub fn covers_header(&self, name: &str) -> bool {
        self.headers.iter().any(|h| h == name)
    }
}

/// Why a COS signature is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CosSignError {
    /// It cannot be read.
    #[error("the signature is malformed: {0}")]
    Malformed(&'static str),
    /// No such secret id.
    #[error("the secret id does not exist")]
    UnknownSecretId,
    /// Its time is over, or has not come.
    #[error("the signature has expired or is not valid yet; check the clock, or sign again")]
    Expired,
    /// It does not match.
    #[error(
        "the signature does not match: check the secret key, and that host, path and signed headers reach the server as they were signed"
    )]
    Mismatch,
    /// The temporary key's token is missing, wrong or over.
    #[error("the security token is missing, wrong or has expired")]
    Token,
}

/// Whether a request says that it is signed in COS's way.
pub fn is_cos_signed(authorization: Option<&[u8]>, query: &str) -> bool {
    authorization.is_some_and(|a| a.trim_ascii_start().starts_with(b"q-sign-algorithm"))
        || query.contains("q-sign-algorithm=")
}

/// Decides whether `request` is signed by one of `credentials` at `now_ms` (milliseconds since the Unix epoch).
///
/// # Errors
/// [`CosSignError`].
pub fn verify_cos(
    request: &CosRequest<'_>,
    credentials: &dyn CredentialSource,
    now_ms: u64,
) -> Result<CosVerified, CosSignError> {
    let header = (request.header)("authorization").map(|a| a.trim_ascii());
    let (text, presigned) = match header {
        Some(text) if text.starts_with(b"q-sign-algorithm") => {
            (std::str::from_utf8(text).map_err(|_| CosSignError::Malformed("it is not text"))?, false)
        }
        _ => (request.query, true),
    };
    if text.len() > TEXT_BYTES_MAX || request.query.len() > TEXT_BYTES_MAX {
        return Err(CosSignError::Malformed("it is too long"));
    }
    let field = |name: &'static str| {
        text.split('&')
            .find_map(|pair| pair.trim().split_once('=').filter(|(n, _)| *n == name))
            .map(|(_, value)| decode(value))
            .ok_or(CosSignError::Malformed(name))
    };
    if field("q-sign-algorithm")? != "sha1" {
        return Err(CosSignError::Malformed("q-sign-algorithm is not sha1"));
    }
    let (id, sign_time, key_time) = (field("q-ak")?, field("q-sign-time")?, field("q-key-time")?);
    let (header_list, param_list, signature) =
        (field("q-header-list")?, field("q-url-param-list")?, field("q-signature")?);
    within(&sign_time, now_ms / 1000)?;
    within(&key_time, now_ms / 1000)?;
    let credential = credentials.find(&id).ok_or(CosSignError::UnknownSecretId)?;

    let headers: Vec<&str> = header_list.split(';').filter(|n| !n.is_empty()).collect();
    let listed: Vec<String> = param_list.split(';').filter(|n| !n.is_empty()).map(str::to_ascii_lowercase).collect();
    if headers.len() > LISTED_MAX || listed.len() > LISTED_MAX {
        return Err(CosSignError::Malformed("it lists too much"));
    }
    let sent: Vec<(String, String)> = pairs(request.query);
    let mut params: Vec<(String, &str)> = Vec::new();
    for name in &listed {
        // Lists hold names as they are or percent-encoded; both are seen.
        let found = sent.iter().find(|(n, _)| n == name || encode(n.as_bytes()).to_ascii_lowercase() == *name);
        let (name, value) = found.ok_or(CosSignError::Mismatch)?;
        params.push((encode(name.as_bytes()).to_ascii_lowercase(), value));
    }
    let path = decode(request.path);
    let mut paths = vec![path.as_ref()];
    if request.path_style {
        paths.push(path.get(1..).and_then(|p| p.find('/').map(|at| &p[at..])).unwrap_or("/"));
    }
    let host = (request.header)("host").and_then(|h| std::str::from_utf8(h).ok()).unwrap_or("");
    let bare = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map(|(h, _)| h);
    let proven = std::iter::once(host).chain(bare).any(|host| {
        let values = headers.iter().map(|name| {
            let name = name.to_ascii_lowercase();
            let value = if name == "host" { Some(host.as_bytes()) } else { (request.header)(&name) };
            (name, value.unwrap_or(b""))
        });
        let values: Vec<(String, &[u8])> = values.collect();
        paths.iter().any(|path| {
            let expected = signature_of(
                (&credential.secret_key, &key_time, &sign_time),
                (request.method, path),
                params.iter().map(|(n, v)| (n.as_str(), v.as_bytes())),
                values.iter().map(|(n, v)| (n.as_str(), *v)),
            );
            bool::from(expected.as_bytes().ct_eq(signature.as_bytes()))
        })
    });
    if !proven {
        return Err(CosSignError::Mismatch);
    }
    let name = "x-cos-security-token";
    let in_query = sent.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_bytes());
    check_session_token(&credential, (request.header)(name).or(in_query), now_ms)?;
    Ok(CosVerified {
        secret_id: id.into_owned(),
        presigned,
        params: listed,
        headers: headers.iter().map(|h| h.to_ascii_lowercase()).collect(),
    })
}

/// Holds a temporary key against the session token that came with a request; a permanent one is always fine.
///
/// # Errors
/// [`CosSignError::Token`].
pub fn check_session_token(
    credential: &crate::Credential,
    token: Option<&[u8]>,
    now_ms: u64,
) -> Result<(), CosSignError> {
    if let Some(wanted) = &credential.token
        && !token.is_some_and(|token| bool::from(token.ct_eq(wanted.as_bytes())))
    {
        return Err(CosSignError::Token);
    }
    if credential.expires_at_ms.is_some_and(|end| now_ms >= end) {
        return Err(CosSignError::Token);
    }
    Ok(())
}

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct CosToSign<'a> {
    /// Public half of the key pair.
    pub secret_id: &'a str,
    /// Secret half.
    pub secret_key: &'a str,
    /// From when to when it is valid, in seconds since the Unix epoch.
    pub span_s: (u64, u64),
    /// The method: `GET`.
    pub method: &'a str,
    /// The path, decoded: `/a b.txt`.
    pub path: &'a str,
    /// Query parameters, decoded.
    pub params: &'a [(&'a str, &'a str)],
    /// Headers to be covered, `host` among them.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The text of the `Authorization` header; a presigned URL has the same text as its query, with `;` in it encoded if one likes.
pub fn sign_cos(what: &CosToSign<'_>) -> String {
    let listed = |of: &[(&str, &str)]| {
        let mut out: Vec<(String, String)> =
            of.iter().map(|(n, v)| (encode(n.as_bytes()).to_ascii_lowercase(), (*v).to_owned())).collect();
        out.sort();
        out
    };
    let (params, headers) = (listed(what.params), listed(what.headers));
    let time = format!("{};{}", what.span_s.0, what.span_s.1);
    let signature = signature_of(
        (what.secret_key, &time, &time),
        (what.method, what.path),
        params.iter().map(|(n, v)| (n.as_str(), v.as_bytes())),
        headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())),
    );
    let names = |of: &[(String, String)]| of.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>().join(";");
    format!(
        "q-sign-algorithm=sha1&q-ak={}&q-sign-time={time}&q-key-time={time}&q-header-list={}&q-url-param-list={}&q-signature={signature}",
        what.secret_id,
        names(&headers),
        names(&params),
    )
}

fn signature_of<'p>(
    (secret_key, key_time, sign_time): (&str, &str, &str),
    (method, path): (&str, &str),
    params: impl Iterator<Item = (&'p str, &'p [u8])>,
    headers: impl Iterator<Item = (&'p str, &'p [u8])>,
) -> String {
    let join = |pairs: &mut dyn Iterator<Item = (&'p str, &'p [u8])>| {
        let mut out: Vec<(&str, String)> = pairs.map(|(n, v)| (n, encode(v))).collect();
        out.sort();
        out.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&")
    };
    let (mut params, mut headers) = (params, headers);
    let http = format!("{}\n{path}\n{}\n{}\n", method.to_ascii_lowercase(), join(&mut params), join(&mut headers));
    let to_sign = format!("sha1\n{sign_time}\n{}\n", hex::encode(Sha1::digest(http.as_bytes())));
    let key = hmac(secret_key.as_bytes(), key_time.as_bytes());
    hmac(key.as_bytes(), to_sign.as_bytes())
}

fn hmac(key: &[u8], text: &[u8]) -> String {
    let mut mac = <Hmac<Sha1> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    hex::encode(mac.finalize().into_bytes())
}

fn within(span: &str, now_s: u64) -> Result<(), CosSignError> {
    let malformed = CosSignError::Malformed("its time is not `start;end`");
    let (start, end) = span.split_once(';').ok_or(malformed)?;
    let (start, end): (u64, u64) = (start.parse().map_err(|_| malformed)?, end.parse().map_err(|_| malformed)?);
    if start > now_s.saturating_add(COS_SKEW_S) || end < now_s {
        return Err(CosSignError::Expired);
    }
    Ok(())
}

/// Parameters of a query, decoded, names in lower case.
fn pairs(query: &str) -> Vec<(String, String)> {
    let parts = query.split('&').filter(|p| !p.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name).to_ascii_lowercase(), decode(value).into_owned())
        })
        .collect()
}

/// Percent-encodes all but letters, digits and `-_.~`.
fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Percent-decodes; what is no escape stays, and what is no UTF-8 becomes what matches nothing.
fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digit = pair.and_then(|p| std::str::from_utf8(p).ok()).and_then(|p| u8::from_str_radix(p, 16).ok());
        out.push(digit.unwrap_or(bytes[at]));
        at += if digit.is_some() { 3 } else { 1 };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
#[path = "cos_tests.rs"]
mod tests;
