//! Signatures with key pairs: `Authorization: hmac id="…", algorithm="hmac-sha1", headers="x-date source", signature="…"`.
//!
//! What is signed is the named headers, `name: value` a line, in the order in which they are named; a date is one of them. The body is not
//! signed. Source: API Gateway, "Key pair authentication" and "Signature generation instructions", which also has the messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::NaiveDateTime;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use subtle::ConstantTimeEq;

/// How far the date of a request may be from the clock, in milliseconds. Source: the same, 15 minutes.
pub const SKEW_MS: u64 = 15 * 60 * 1000;
/// Most headers that may be signed. Ours.
const HEADERS_MAX: usize = 32;

/// A signature as it was sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// Id of the key.
    pub id: &'a str,
    algorithm: &'a str,
    headers: &'a str,
    signature: &'a str,
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// 401 without a signature, else 403.
    pub status: u16,
    /// What the caller is told.
    pub message: String,
}

impl Denied {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// Reads the header. Errors: what the caller is told.
pub fn read(headers: &HeaderMap) -> Result<Signed<'_>, Denied> {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else {
        return Err(Denied::new(401, "HMAC signature cannot be verified, a validate authorization header is required"));
    };
    let invalid = || Denied::new(403, "authorization headers is invalidate");
    let text = value.to_str().map_err(|_| invalid())?.trim();
    let fields = text.strip_prefix("hmac").filter(|rest| rest.starts_with(' ')).ok_or_else(invalid)?;
    let mut found = Signed { id: "", algorithm: "", headers: "", signature: "" };
    for field in fields.split(',') {
        let (name, value) = field.split_once('=').ok_or_else(invalid)?;
        let value = value.trim().strip_prefix('"').and_then(|v| v.strip_suffix('"')).ok_or_else(invalid)?;
        match name.trim() {
            "id" => found.id = value,
            "algorithm" => found.algorithm = value,
            "headers" => found.headers = value,
            "signature" => found.signature = value,
            _ => return Err(invalid()),
        }
    }
    if found.id.is_empty() || found.signature.is_empty() {
        return Err(Denied::new(403, "id or signature missing"));
    }
    Ok(found)
}

/// A date as HTTP writes it (`Mon, 19 Mar 2018 12:08:40 GMT`), in milliseconds since the epoch.
fn date_ms(text: &str) -> Option<u64> {
    let parsed = NaiveDateTime::parse_from_str(text.trim(), "%a, %d %b %Y %H:%M:%S GMT").ok()?;
    u64::try_from(parsed.and_utc().timestamp_millis()).ok()
}

/// Checks a signature against the secret of the key that it names. Errors: what the caller is told.
pub fn check(signed: &Signed<'_>, headers: &HeaderMap, secret: &str, now_ms: u64) -> Result<(), Denied> {
    let names: Vec<String> = signed.headers.split_whitespace().map(str::to_ascii_lowercase).collect();
    if names.len() > HEADERS_MAX {
        return Err(Denied::new(403, "authorization headers is invalidate"));
    }
    let mut lines = Vec::new();
    let mut dated = false;
    for name in &names {
        let absent =
            || Denied::new(403, format!("HMAC signature cannot be verified, a valid {name} header is required"));
        let mut values = headers.get_all(name.as_str()).iter();
        let value =
            values.next().and_then(|v| v.to_str().ok()).filter(|_| values.next().is_none()).ok_or_else(absent)?;
        if matches!(name.as_str(), "date" | "x-date") {
            let at = date_ms(value).ok_or_else(absent)?;
            if at.abs_diff(now_ms) > SKEW_MS {
                return Err(Denied::new(403, "HMAC signature cannot be verified, a valid date header is required"));
            }
            dated = true;
        }
        lines.push(format!("{name}: {}", value.trim()));
    }
    if !dated {
        return Err(Denied::new(403, "HMAC signature cannot be verified, a valid date header is required"));
    }
    let text = lines.join("\n");
    let wrong = || Denied::new(403, "HMAC signature does not match");
    let sent = STANDARD.decode(signed.signature).map_err(|_| wrong())?;
    let own = match signed.algorithm {
        "hmac-sha1" => mac::<Hmac<sha1::Sha1>>(secret, &text),
        "hmac-sha256" => mac::<Hmac<sha2::Sha256>>(secret, &text),
        _ => {
            return Err(Denied::new(
                403,
                "HMAC signature cannot be verified, the algorithm is hmac-sha1 or hmac-sha256",
            ));
        }
    };
    if bool::from(own.ct_eq(&sent)) { Ok(()) } else { Err(wrong()) }
}

fn mac<M: Mac + KeyInit>(secret: &str, text: &str) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Mon, 19 Mar 2018 12:08:40 GMT";
    const AT_MS: u64 = 1_521_461_320_000;

    fn signed(algorithm: &str, names: &str, text: &str) -> String {
        let mac = match algorithm {
            "hmac-sha1" => mac::<Hmac<sha1::Sha1>>("secret", text),
            _ => mac::<Hmac<sha2::Sha256>>("secret", text),
        };
        format!(
            "hmac id=\"AKID\", algorithm=\"{algorithm}\", headers=\"{names}\", signature=\"{}\"",
            STANDARD.encode(mac)
        )
    }

    fn headers(authorization: &str) -> HeaderMap {
        let mut all = HeaderMap::new();
        all.insert("authorization", authorization.parse().unwrap());
        all.insert("x-date", DATE.parse().unwrap());
        all.insert("source", "AndriodApp".parse().unwrap());
        all
    }

    fn verdict(authorization: &str, now_ms: u64) -> Result<(), Denied> {
        let headers = headers(authorization);
        let found = read(&headers)?;
        assert_eq!(found.id, "AKID");
        check(&found, &headers, "secret", now_ms)
    }

    #[test]
    fn a_known_signature_holds() {
        // Computed with Python, hmac.new(b"ZxF2wh-test", ..., hashlib.sha1).
        let all = headers(
            "hmac id=\"AKID\", algorithm=\"hmac-sha1\", headers=\"x-date source\", signature=\"/hWmuYooyDBUvYB3YcaPIQdrIng=\"",
        );
        assert_eq!(check(&read(&all).unwrap(), &all, "ZxF2wh-test", AT_MS), Ok(()));
    }

    #[test]
    fn what_was_signed_is_let_in_and_nothing_else() {
        let text = format!("x-date: {DATE}\nsource: AndriodApp");
        for algorithm in ["hmac-sha1", "hmac-sha256"] {
            assert_eq!(verdict(&signed(algorithm, "x-date source", &text), AT_MS), Ok(()));
            assert_eq!(verdict(&signed(algorithm, "X-Date Source", &text), AT_MS + SKEW_MS), Ok(()));
        }
        let sha1 = |names: &str, text: &str| signed("hmac-sha1", names, text);
        for (authorization, now_ms, part) in [
            (sha1("x-date source", &text), AT_MS + SKEW_MS + 1, "valid date"),
            (sha1("source x-date", &text), AT_MS, "does not match"),
            (sha1("source", "source: AndriodApp"), AT_MS, "valid date"),
            (sha1("x-date x-source", &text), AT_MS, "valid x-source"),
            (sha1("x-date source", &text).replace("hmac-sha1", "none"), AT_MS, "algorithm"),
            (sha1("x-date source", &text).replace("signature=\"", "signature=\"AA"), AT_MS, "does not match"),
            ("hmac id=\"AKID\"".into(), AT_MS, "missing"),
            ("hmac id=AKID, signature=x".into(), AT_MS, "invalidate"),
            ("Bearer x".into(), AT_MS, "invalidate"),
        ] {
            let denied = verdict(&authorization, now_ms).unwrap_err();
            assert!(denied.status == 403 && denied.message.contains(part), "{authorization}: {denied:?}");
        }
        assert_eq!(read(&HeaderMap::new()).unwrap_err().status, 401);
    }
}
