//! The v1 form: HmacSHA1 and HmacSHA256.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::credential::CredentialSource;
use crate::error::SignError;
use crate::form::{self, Pair};
use crate::host;
use crate::replay::ReplayGuard;
use crate::verify::{Params, RequestView, Style, Verified, check_time, check_token, optional, required};

/// Fields of the v1 form that belong to the protocol, not to the action; sorted.
pub const COMMON_FIELDS: [&str; 11] = [
    "Action",
    "Language",
    "Nonce",
    "Region",
    "RequestClient",
    "SecretId",
    "Signature",
    "SignatureMethod",
    "Timestamp",
    "Token",
    "Version",
];

/// Which API's habits a v1 request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// API 3.0.
    Api,
    /// CMQ's SDKs: `_` in names is signed as `.`, fields of a POST whose value begins with `@` are not signed, and there is no version.
    Cmq,
}

/// `HmacSHA256` only when the request says so; everything else means `HmacSHA1` (Tencent's common parameters).
pub(crate) fn style_of(signature_method: Option<&str>) -> Style {
    if signature_method == Some("HmacSHA256") { Style::HmacSha256 } else { Style::HmacSha1 }
}

/// The MAC of `METHOD host path ? k=v&…` over sorted fields with their values as they are (not encoded).
pub(crate) fn mac<'p>(
    style: Style,
    dialect: Dialect,
    secret_key: &str,
    (method, host, path): (&str, &str, &str),
    sorted: impl Iterator<Item = (&'p str, &'p str)>,
) -> Vec<u8> {
    fn run<'p, M: Mac + KeyInit>(
        key: &str,
        head: [&str; 4],
        sorted: impl Iterator<Item = (&'p str, &'p str)>,
        mark: &[char],
    ) -> Vec<u8> {
        let mut mac = <M as KeyInit>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
        head.iter().for_each(|part| mac.update(part.as_bytes()));
        for (i, (name, value)) in sorted.enumerate() {
            if i > 0 {
                mac.update(b"&");
            }
            for (i, part) in name.split(mark).enumerate() {
                if i > 0 {
                    mac.update(b".");
                }
                mac.update(part.as_bytes());
            }
            mac.update(b"=");
            mac.update(value.as_bytes());
        }
        mac.finalize().into_bytes().to_vec()
    }
    let head = [method, host, path, "?"];
    let mark: &[char] = if dialect == Dialect::Cmq { &['_'] } else { &[] };
    match style {
        Style::HmacSha1 => run::<Hmac<Sha1>>(secret_key, head, sorted, mark),
        Style::HmacSha256 | Style::Tc3 => run::<Hmac<Sha256>>(secret_key, head, sorted, mark),
    }
}

pub(crate) fn verify(
    request: &RequestView<'_>,
    dialect: Dialect,
    text: &[u8],
    credentials: &dyn CredentialSource,
    replays: &ReplayGuard,
    now_ms: u64,
) -> Result<Verified, SignError> {
    let mut pairs = form::pairs(text)?;
    pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let field = |name: &'static str| {
        let at = pairs.binary_search_by(|(key, _)| key.as_ref().cmp(name)).ok()?;
        Some(pairs[at].1.as_ref()).filter(|v| !v.is_empty())
    };
    let need = |name: &'static str| field(name).ok_or(SignError::Missing(name));

    if field("SecretId").is_none() && field("Signature").is_none() {
        return Err(SignError::Unsigned);
    }
    let (secret_id, signature) = (need("SecretId")?, need("Signature")?);
    let timestamp_s = check_time(need("Timestamp")?, now_ms)?;
    let nonce = need("Nonce")?;
    if nonce.len() > 20 || !nonce.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SignError::InvalidParameter("The `Nonce` is not a positive integer.".into()));
    }
    let style = style_of(field("SignatureMethod"));
    // Clients that forget to encode `+` in the signature send what decodes to a space. It is cut to a length that no
    // right signature has before it costs anything.
    let cleaned: String = signature.chars().take(64).map(|c| if c == ' ' { '+' } else { c }).collect();
    let signature = BASE64_STANDARD.decode(cleaned).map_err(|_| SignError::SignatureFailure)?;
    let host = request.text("host").ok_or(SignError::Missing("Host"))?;
    let credential = credentials.find(secret_id).ok_or(SignError::SecretIdNotFound)?;

    let path = if request.path.is_empty() { "/" } else { request.path };
    let proven = |left_out: &dyn Fn(&str) -> bool| {
        host::candidates(host).any(|host| {
            let signed = pairs.iter().filter(|(key, value)| key != "Signature" && !left_out(value));
            let signed = signed.map(|(k, v)| (k.as_ref(), v.as_ref()));
            let expected = mac(style, dialect, &credential.secret_key, (request.method, host, path), signed);
            bool::from(expected.ct_eq(&signature))
        })
    };
    // CMQ's SDKs took a text that begins with `@` for the name of a file to upload.
    let file = |value: &str| value.starts_with('@');
    let has_file = dialect == Dialect::Cmq && request.method == "POST" && pairs.iter().any(|(_, value)| file(value));
    let signed = proven(&|_| false) || (has_file && proven(&file));
    if !signed {
        return Err(SignError::SignatureFailure);
    }
    check_token(&credential, field("Token"), now_ms)?;
    if !replays.admit(timestamp_s, &signature, now_ms / 1000) {
        return Err(SignError::Replayed);
    }
    let verified = Verified {
        secret_id: secret_id.to_owned(),
        action: required(field("Action"), "Action")?,
        version: match dialect {
            Dialect::Api => required(field("Version"), "Version")?,
            Dialect::Cmq => optional(field("Version"), "Version")?.unwrap_or_default(),
        },
        region: optional(field("Region"), "Region")?,
        language: optional(field("Language"), "Language")?,
        timestamp_s,
        params: Params::Tree(serde_json::Value::Null),
        style,
    };
    let own = pairs.into_iter().filter(|(key, _): &Pair<'_>| COMMON_FIELDS.binary_search(&key.as_ref()).is_err());
    Ok(Verified { params: Params::Tree(form::tree(own)?), ..verified })
}
