//! The one way in: which style a request is signed in, and what it says once the signature is proven.

use bytes::Bytes;
use serde_json::Value;

use crate::credential::{Credential, CredentialSource};
use crate::error::{SignError, shown};
use crate::keycache::KeyCache;
use crate::replay::ReplayGuard;
use crate::v1::Dialect;
use crate::{form, tc3, v1};

/// How far a request's timestamp may be from the server's time, in seconds. Source: Tencent's API documents, "the
/// difference between the timestamp and the server time cannot exceed 5 minutes".
pub const SKEW_S: u64 = 300;

/// Longest action, version, region or language, in bytes. Ours.
const COMMON_BYTES_MAX: usize = 128;

/// What the verifier needs to see of an HTTP request. Nothing is copied.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// The method as on the wire: `POST`.
    pub method: &'a str,
    /// The path without query: `/`.
    pub path: &'a str,
    /// The query as sent, without the question mark; empty when there is none.
    pub query: &'a str,
    /// Looks a header up by its lower-case name. With `http::HeaderMap`:
    /// `&|name| map.get(name).map(|v| v.as_bytes())`.
    pub header: &'a (dyn Fn(&str) -> Option<&'a [u8]> + 'a),
    /// The whole body.
    pub body: &'a Bytes,
}

impl<'a> RequestView<'a> {
    /// A header as trimmed text. `None` when it is absent or not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        (self.header)(name).and_then(|v| std::str::from_utf8(v.trim_ascii()).ok())
    }

    /// The media type of the body without parameters; empty when there is none.
    pub(crate) fn media_type(&self) -> &'a str {
        self.text("content-type").unwrap_or_default().split(';').next().unwrap_or_default().trim_ascii()
    }
}

/// How a request was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Style {
    /// TC3-HMAC-SHA256, in headers.
    Tc3,
    /// The v1 form with HMAC-SHA1.
    HmacSha1,
    /// The v1 form with HMAC-SHA256.
    HmacSha256,
}

/// The action's parameters as they came.
#[derive(Clone, Debug, PartialEq)]
pub enum Params {
    /// A JSON body, unread (it may not be JSON at all).
    Json(Bytes),
    /// An object of dotted fields; every leaf is a string, to be coerced by the action's model.
    Tree(Value),
}

/// A request whose signature is right.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who signed.
    pub secret_id: String,
    /// `X-TC-Action` or `Action`.
    pub action: String,
    /// `X-TC-Version` or `Version`.
    pub version: String,
    /// `X-TC-Region` or `Region`.
    pub region: Option<String>,
    /// `X-TC-Language` or `Language`.
    pub language: Option<String>,
    /// When the client says it signed, in seconds since the Unix epoch.
    pub timestamp_s: u64,
    /// The parameters.
    pub params: Params,
    /// How it was signed.
    pub style: Style,
}

/// Verifies requests. One for the server; share it.
pub struct Verifier {
    services: &'static [&'static str],
    keys: KeyCache,
    replays: ReplayGuard,
}

impl Verifier {
    /// Signing keys kept: a key serves one secret id for a day, so this is about the number of busy callers.
    const KEYS: usize = 1024;
    /// v1 requests remembered against replay: ten minutes at more than 400 requests per second.
    const REPLAYS: usize = 262_144;

    /// A verifier for the named services (`["scf"]`): what a TC3 scope may name besides the first label of the host.
    pub fn new(services: &'static [&'static str]) -> Self {
        Self { services, keys: KeyCache::new(Self::KEYS), replays: ReplayGuard::new(Self::REPLAYS) }
    }

    /// The guard against repeated v1 requests, for its figures.
    pub fn replays(&self) -> &ReplayGuard {
        &self.replays
    }

    /// Decides whether `request` is signed by one of `credentials` at about `now_ms` (milliseconds since the Unix
    /// epoch), and reads its action and parameters.
    ///
    /// The habits of CMQ's SDKs are not accepted here: see [`Verifier::verify_cmq`].
    ///
    /// # Errors
    /// See [`SignError`]. Checks go from cheap to dear: form, time, secret id, signature, token, replay, parameters.
    pub fn verify(
        &self,
        request: &RequestView<'_>,
        credentials: &dyn CredentialSource,
        now_ms: u64,
    ) -> Result<Verified, SignError> {
        if !matches!(request.method, "GET" | "POST") {
            return Err(SignError::UnsupportedMethod);
        }
        if let Some(header) = (request.header)("authorization") {
            return tc3::verify(request, header, self.services, credentials, &self.keys, now_ms);
        }
        match request.method {
            "GET" if !request.query.is_empty() => {
                v1::verify(request, Dialect::Api, request.query.as_bytes(), credentials, &self.replays, now_ms)
            }
            "POST" if request.media_type().eq_ignore_ascii_case("application/x-www-form-urlencoded") => {
                v1::verify(request, Dialect::Api, request.body, credentials, &self.replays, now_ms)
            }
            _ => Err(SignError::Unsigned),
        }
    }

    /// The same for requests of CMQ's SDKs (`/v2/index.php`): v1 forms whose field names have their `_` signed as `.`, without a version
    /// (the answer's is empty then), and, in a POST, with or without a content type. A value that begins with `@` may be unsigned there;
    /// a request with one is still bound to its nonce, so it cannot be sent again with another.
    ///
    /// # Errors
    /// As [`Verifier::verify`].
    pub fn verify_cmq(
        &self,
        request: &RequestView<'_>,
        credentials: &dyn CredentialSource,
        now_ms: u64,
    ) -> Result<Verified, SignError> {
        let text = match request.method {
            "GET" => request.query.as_bytes(),
            "POST" => request.body,
            _ => return Err(SignError::UnsupportedMethod),
        };
        v1::verify(request, Dialect::Cmq, text, credentials, &self.replays, now_ms)
    }
}

/// The parameters of a TC3 request whose signature is right.
pub(crate) fn tc3_params(request: &RequestView<'_>) -> Result<Params, SignError> {
    if request.method == "GET" {
        return form::parse_form(request.query.as_bytes()).map(Params::Tree);
    }
    let media_type = request.media_type();
    let read = ["application/json", "text/plain", "application/octet-stream"];
    if read.iter().any(|t| media_type.eq_ignore_ascii_case(t)) {
        return Ok(Params::Json(request.body.clone()));
    }
    Err(SignError::InvalidRequest(format!(
        "The Content-Type `{}` is not supported with TC3-HMAC-SHA256: send the parameters as application/json.",
        shown(media_type)
    )))
}

/// Reads a timestamp of decimal digits and holds it against the clock.
pub(crate) fn check_time(text: &str, now_ms: u64) -> Result<u64, SignError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let timestamp_s = text.parse::<u64>().ok().filter(|_| digits).ok_or_else(|| {
        SignError::InvalidParameter(format!("The timestamp `{}` is not a number of seconds since 1970.", shown(text)))
    })?;
    let now_s = now_ms / 1000;
    if timestamp_s.abs_diff(now_s) > SKEW_S {
        return Err(SignError::Expired { timestamp_s, now_s });
    }
    Ok(timestamp_s)
}

/// Holds the token of a request against its credential. Called after the signature is proven, so that tokens cannot be
/// tried out by those who lack the secret.
pub(crate) fn check_token(credential: &Credential, sent: Option<&str>, now_ms: u64) -> Result<(), SignError> {
    use subtle::ConstantTimeEq;
    let sent = sent.filter(|t| !t.is_empty());
    match (&credential.token, sent) {
        (None, None) => {}
        (None, Some(_)) => return Err(SignError::Token("this SecretId is permanent and takes no token")),
        (Some(_), None) => return Err(SignError::Token("a temporary SecretId needs the token it was issued with")),
        (Some(token), Some(sent)) => {
            if !bool::from(token.as_bytes().ct_eq(sent.as_bytes())) {
                return Err(SignError::Token("it is not the one issued with this SecretId"));
            }
        }
    }
    if credential.expires_at_ms.is_some_and(|end| end <= now_ms) {
        return Err(SignError::Token("the temporary credential has expired"));
    }
    Ok(())
}

/// A required common parameter.
pub(crate) fn required(value: Option<&str>, name: &'static str) -> Result<String, SignError> {
    optional(value, name)?.ok_or(SignError::Missing(name))
}

/// An optional common parameter; empty is absent.
pub(crate) fn optional(value: Option<&str>, name: &'static str) -> Result<Option<String>, SignError> {
    let Some(value) = value.filter(|v| !v.is_empty()) else { return Ok(None) };
    if value.len() > COMMON_BYTES_MAX {
        return Err(SignError::InvalidParameter(format!("`{name}` is longer than {COMMON_BYTES_MAX} bytes.")));
    }
    Ok(Some(value.to_owned()))
}
