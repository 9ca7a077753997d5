//! TC3-HMAC-SHA256.

use std::array;
use std::sync::Arc;

use hmac::Mac;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credential::CredentialSource;
use crate::error::{SignError, shown};
use crate::keycache::{self, KeyCache, KeyedMac};
use crate::verify::{RequestView, Style, Verified, check_time, check_token, optional, required, tc3_params};
use crate::{date, host};

/// The algorithm's name, first word of the header.
pub(crate) const ALGORITHM: &str = "TC3-HMAC-SHA256";
/// Longest `Authorization` header, in bytes. Ours.
pub const AUTHORIZATION_BYTES_MAX: usize = 4096;
/// Most names in `SignedHeaders`. Ours.
pub const SIGNED_HEADERS_MAX: usize = 32;
/// What a client that does not sign its body hashes instead, and says in `X-TC-Content-SHA256`.
pub(crate) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// A parsed `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization<'a> {
    /// Who signed.
    pub secret_id: &'a str,
    /// The scope's date, `YYYY-MM-DD` (not checked here).
    pub date: &'a str,
    /// The scope's service.
    pub service: &'a str,
    /// `secretId/date/service`: what a signing key belongs to.
    pub scope: &'a str,
    /// The signed header names as sent, separated by semicolons.
    pub signed_headers: &'a str,
    /// The signature.
    pub signature: [u8; 32],
}

fn invalid(why: impl Into<String>) -> SignError {
    SignError::InvalidAuthorization(why.into())
}

impl<'a> Authorization<'a> {
    /// Reads `TC3-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`. The parts may come in any order, with or
    /// without spaces around the commas; unknown and repeated parts are refused.
    ///
    /// # Errors
    /// [`SignError::InvalidAuthorization`] that names the part.
    pub fn parse(header: &'a [u8]) -> Result<Self, SignError> {
        if header.len() > AUTHORIZATION_BYTES_MAX {
            return Err(invalid(format!("it is longer than {AUTHORIZATION_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(header).map_err(|_| invalid("it is not text"))?.trim_ascii();
        let (algorithm, rest) = text.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            return Err(invalid(format!("the algorithm `{}` is not {ALGORITHM}", shown(algorithm))));
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let part = part.trim_ascii();
            let (name, value) =
                part.split_once('=').ok_or_else(|| invalid(format!("`{}` is not `name=value`", shown(part))))?;
            let slot = match name.trim_ascii() {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                other => return Err(invalid(format!("`{}` is not a part of it", shown(other)))),
            };
            if slot.replace(value.trim_ascii()).is_some() {
                return Err(invalid(format!("`{}` is given twice", shown(name))));
            }
        }
        let part = |slot: Option<&'a str>, name: &str| {
            slot.filter(|v| !v.is_empty()).ok_or_else(|| invalid(format!("`{name}` is missing")))
        };
        let credential = part(credential, "Credential")?;
        let mut signature_bytes = [0u8; 32];
        hex::decode_to_slice(part(signature, "Signature")?, &mut signature_bytes)
            .map_err(|_| invalid("`Signature` is not 64 hexadecimal digits"))?;

        let bad_scope = || invalid("`Credential` is not `SecretId/date/service/tc3_request`");
        let scope = credential.strip_suffix("/tc3_request").ok_or_else(bad_scope)?;
        let mut fields = scope.split('/');
        let [Some(secret_id), Some(date), Some(service), None] = array::from_fn(|_| fields.next()) else {
            return Err(bad_scope());
        };
        if [secret_id, date, service].iter().any(|f| f.is_empty() || f.contains(char::is_whitespace)) {
            return Err(bad_scope());
        }
        Ok(Self {
            secret_id,
            date,
            service,
            scope,
            signed_headers: part(signed_headers, "SignedHeaders")?,
            signature: signature_bytes,
        })
    }
}

/// A header that the client signed: its lower-case name and trimmed value.
struct Signed<'a> {
    name: String,
    value: &'a [u8],
}

fn signed_headers<'a>(request: &RequestView<'a>, list: &str) -> Result<Vec<Signed<'a>>, SignError> {
    let mut out: Vec<Signed<'a>> = Vec::with_capacity(4);
    for name in list.split(';') {
        let name = name.trim_ascii().to_ascii_lowercase();
        if out.len() == SIGNED_HEADERS_MAX {
            return Err(invalid(format!("`SignedHeaders` names more than {SIGNED_HEADERS_MAX} headers")));
        }
        if out.iter().any(|s| s.name == name) {
            return Err(invalid(format!("`SignedHeaders` names `{}` twice", shown(&name))));
        }
        let value = (request.header)(&name)
            .ok_or_else(|| invalid(format!("the signed header `{}` is not in the request", shown(&name))))?
            .trim_ascii();
        out.push(Signed { name, value });
    }
    for needed in ["content-type", "host"] {
        if !out.iter().any(|s| s.name == needed) {
            return Err(invalid(format!("`SignedHeaders` must contain `{needed}`")));
        }
    }
    Ok(out)
}

/// Which header values a client put in lower case before it signed. The documents say all; the SDKs sign content-type
/// and host as they send them, and lower only `x-tc-action`.
#[derive(Clone, Copy)]
struct Case {
    lower_core: bool,
    lower_others: bool,
}

fn is_core(name: &str) -> bool {
    matches!(name, "content-type" | "host")
}

/// The cases worth trying: those that differ for these values.
fn cases(headers: &[Signed<'_>]) -> impl Iterator<Item = Case> {
    let has_upper =
        |core: bool| headers.iter().any(|h| is_core(&h.name) == core && h.value.iter().any(u8::is_ascii_uppercase));
    let (core, others) = (has_upper(true), has_upper(false));
    [(false, true, true), (true, true, core), (false, false, others)]
        .into_iter()
        .filter_map(|(lower_core, lower_others, differs)| differs.then_some(Case { lower_core, lower_others }))
}

/// SHA-256 of the canonical request, as hexadecimal text.
fn canonical_hash(request: &RequestView<'_>, headers: &[Signed<'_>], host: &[u8], case: Case, body: &[u8]) -> [u8; 64] {
    let mut out = Vec::with_capacity(512);
    let path = if request.path.is_empty() { "/" } else { request.path };
    // A POST signs an empty query; what stands in its URL has no meaning to the API.
    let query = if request.method == "GET" { request.query } else { "" };
    for line in [request.method, path, query] {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    for header in headers {
        out.extend_from_slice(header.name.as_bytes());
        out.push(b':');
        let start = out.len();
        out.extend_from_slice(if header.name == "host" { host } else { header.value });
        if if is_core(&header.name) { case.lower_core } else { case.lower_others } {
            out[start..].make_ascii_lowercase();
        }
        out.push(b'\n');
    }
    out.push(b'\n');
    for (i, header) in headers.iter().enumerate() {
        if i > 0 {
            out.push(b';');
        }
        out.extend_from_slice(header.name.as_bytes());
    }
    out.push(b'\n');
    out.extend_from_slice(body);
    hex_of(&Sha256::digest(&out))
}

/// 32 bytes as lower-case hexadecimal text, without an allocation.
pub(crate) fn hex_of(digest: &[u8]) -> [u8; 64] {
    let mut out = [b'0'; 64];
    hex::encode_to_slice(digest, &mut out).expect("a SHA-256 digest is 32 bytes");
    out
}

/// The MAC over the string to sign.
fn sign(key: KeyedMac, timestamp: &str, date: &str, service: &str, canonical: &[u8; 64]) -> KeyedMac {
    let mut mac = key;
    for part in [ALGORITHM, "\n", timestamp, "\n", date, "/", service, "/tc3_request\n"] {
        mac.update(part.as_bytes());
    }
    mac.update(canonical);
    mac
}

/// What a signer signs; see [`crate::sign_tc3`].
pub(crate) fn signature(
    request: &RequestView<'_>,
    signed: &str,
    signed_host: &str,
    key: KeyedMac,
    timestamp: &str,
    (date, service): (&str, &str),
) -> Result<[u8; 32], SignError> {
    let headers = signed_headers(request, signed)?;
    let case = Case { lower_core: false, lower_others: true };
    let canonical = canonical_hash(request, &headers, signed_host.as_bytes(), case, &body_hash(request));
    Ok(sign(key, timestamp, date, service, &canonical).finalize().into_bytes().into())
}

fn body_hash(request: &RequestView<'_>) -> [u8; 64] {
    let unsigned = (request.header)("x-tc-content-sha256").is_some_and(|v| v == UNSIGNED_PAYLOAD.as_bytes());
    hex_of(&if unsigned { Sha256::digest(UNSIGNED_PAYLOAD) } else { Sha256::digest(request.body) })
}

pub(crate) fn verify(
    request: &RequestView<'_>,
    header: &[u8],
    services: &[&str],
    credentials: &dyn CredentialSource,
    keys: &KeyCache,
    now_ms: u64,
) -> Result<Verified, SignError> {
    let authorization = Authorization::parse(header)?;
    let timestamp = request.text("x-tc-timestamp").ok_or(SignError::Missing("Timestamp"))?;
    let timestamp_s = check_time(timestamp, now_ms)?;
    if authorization.date != date::utc_date(timestamp_s) {
        return Err(invalid("`Date` in Credential is not the UTC date of the timestamp"));
    }
    let host = request.text("host").ok_or_else(|| invalid("the request has no `Host` header"))?;
    if !services.contains(&authorization.service) && !host::first_label_is(host, authorization.service) {
        return Err(invalid("`Service` in Credential not valid"));
    }
    let headers = signed_headers(request, authorization.signed_headers)?;
    let credential = credentials.find(authorization.secret_id).ok_or(SignError::SecretIdNotFound)?;
    let secret_key: &Arc<str> = &credential.secret_key;

    let known = keys.get(authorization.scope, secret_key);
    let fresh = known.is_none();
    let key = known.unwrap_or_else(|| keycache::derive(secret_key, authorization.date, authorization.service));
    let body = body_hash(request);
    let mut proven = false;
    'tries: for signed_host in host::candidates(host) {
        for case in cases(&headers) {
            let canonical = canonical_hash(request, &headers, signed_host.as_bytes(), case, &body);
            let mac = sign(key.clone(), timestamp, authorization.date, authorization.service, &canonical);
            if bool::from(mac.finalize().into_bytes().ct_eq(&authorization.signature)) {
                proven = true;
                break 'tries;
            }
        }
    }
    if !proven {
        return Err(SignError::SignatureFailure);
    }
    if fresh {
        keys.put(authorization.scope, secret_key, key);
    }
    check_token(&credential, request.text("x-tc-token"), now_ms)?;
    Ok(Verified {
        secret_id: authorization.secret_id.to_owned(),
        action: required(request.text("x-tc-action"), "Action")?,
        version: required(request.text("x-tc-version"), "Version")?,
        region: optional(request.text("x-tc-region"), "Region")?,
        language: optional(request.text("x-tc-language"), "Language")?,
        timestamp_s,
        params: tc3_params(request)?,
        style: Style::Tc3,
    })
}
