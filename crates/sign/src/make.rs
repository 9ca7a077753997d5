//! The signing side: what the command line and tests send.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::error::SignError;
use crate::form::encode_into;
use crate::tc3::{self, ALGORITHM};
use crate::verify::{RequestView, Style};
use crate::{date, keycache, v1};

/// A call to be signed with TC3-HMAC-SHA256.
#[derive(Clone, Copy, Debug)]
pub struct Tc3Request<'a> {
    /// Who signs.
    pub secret_id: &'a str,
    /// The secret.
    pub secret_key: &'a str,
    /// The token of a temporary credential.
    pub token: Option<&'a str>,
    /// The value of the `Host` header.
    pub host: &'a str,
    /// The service in the scope: `scf`.
    pub service: &'a str,
    /// `X-TC-Action`.
    pub action: &'a str,
    /// `X-TC-Version`.
    pub version: &'a str,
    /// `X-TC-Region`.
    pub region: Option<&'a str>,
    /// Seconds since the Unix epoch.
    pub timestamp_s: u64,
    /// `None`: a POST with the body below. `Some`: a GET with this encoded query, and the body must be empty.
    pub query: Option<&'a str>,
    /// The `Content-Type` header.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a Bytes,
}

/// The headers to send with a TC3 request, `Host` among them, names in lower case. The path is `/`.
///
/// # Errors
/// [`SignError::InvalidAuthorization`] when the secret id or the service cannot stand in the header.
pub fn sign_tc3(request: &Tc3Request<'_>) -> Result<Vec<(&'static str, String)>, SignError> {
    const SIGNED: &str = "content-type;host";
    let timestamp = request.timestamp_s.to_string();
    let date = date::utc_date(request.timestamp_s);
    let view = RequestView {
        method: if request.query.is_some() { "GET" } else { "POST" },
        path: "/",
        query: request.query.unwrap_or_default(),
        header: &|name| match name {
            "content-type" => Some(request.content_type.as_bytes()),
            "host" => Some(request.host.as_bytes()),
            _ => None,
        },
        body: request.body,
    };
    let key = keycache::derive(request.secret_key, &date, request.service);
    let signature = tc3::signature(&view, SIGNED, request.host, key, &timestamp, (&date, request.service))?;
    let authorization = format!(
        "{ALGORITHM} Credential={}/{date}/{}/tc3_request, SignedHeaders={SIGNED}, Signature={}",
        request.secret_id,
        request.service,
        hex::encode(signature)
    );
    tc3::Authorization::parse(authorization.as_bytes())?;
    let mut headers = vec![
        ("host", request.host.to_owned()),
        ("content-type", request.content_type.to_owned()),
        ("authorization", authorization),
        ("x-tc-action", request.action.to_owned()),
        ("x-tc-version", request.version.to_owned()),
        ("x-tc-timestamp", timestamp),
    ];
    headers.extend(request.region.map(|r| ("x-tc-region", r.to_owned())));
    headers.extend(request.token.map(|t| ("x-tc-token", t.to_owned())));
    Ok(headers)
}

/// The method of a v1 request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum V1Method {
    /// Fields in the query.
    Get,
    /// Fields in a form body.
    Post,
}

/// A call to be signed in the v1 form.
#[derive(Clone, Copy, Debug)]
pub struct V1Request<'a> {
    /// Where the fields go.
    pub method: V1Method,
    /// Who signs.
    pub secret_id: &'a str,
    /// The secret.
    pub secret_key: &'a str,
    /// The token of a temporary credential.
    pub token: Option<&'a str>,
    /// The value of the `Host` header.
    pub host: &'a str,
    /// The path, `/` for API 3.0.
    pub path: &'a str,
    /// The action.
    pub action: &'a str,
    /// The API version.
    pub version: &'a str,
    /// The region.
    pub region: Option<&'a str>,
    /// Seconds since the Unix epoch.
    pub timestamp_s: u64,
    /// A number that no other request of this second has.
    pub nonce: u64,
    /// [`Style::HmacSha1`] (sent without `SignatureMethod`) or [`Style::HmacSha256`].
    pub style: Style,
    /// The action's fields, dotted (see [`crate::flatten`]).
    pub fields: &'a [(String, String)],
}

/// The encoded form (POST) or query (GET) of a v1 request, `Signature` included.
///
/// # Errors
/// [`SignError::InvalidParameter`] when the style is not one of v1.
pub fn sign_v1(request: &V1Request<'_>) -> Result<String, SignError> {
    let (timestamp, nonce) = (request.timestamp_s.to_string(), request.nonce.to_string());
    let mut fields: Vec<(&str, &str)> = request.fields.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    fields.extend([
        ("Action", request.action),
        ("Version", request.version),
        ("SecretId", request.secret_id),
        ("Timestamp", &timestamp),
        ("Nonce", &nonce),
    ]);
    fields.extend(request.region.map(|r| ("Region", r)));
    fields.extend(request.token.map(|t| ("Token", t)));
    match request.style {
        Style::HmacSha1 => {}
        Style::HmacSha256 => fields.push(("SignatureMethod", "HmacSHA256")),
        Style::Tc3 => return Err(SignError::InvalidParameter("TC3-HMAC-SHA256 is not a v1 signature.".into())),
    }
    fields.sort_unstable();
    let method = match request.method {
        V1Method::Get => "GET",
        V1Method::Post => "POST",
    };
    let dialect = v1::Dialect::Api;
    let mac = v1::mac(
        request.style,
        dialect,
        request.secret_key,
        (method, request.host, request.path),
        fields.iter().copied(),
    );
    let signature = BASE64_STANDARD.encode(mac);
    fields.push(("Signature", &signature));
    let mut out = String::new();
    for (i, (name, value)) in fields.iter().enumerate() {
        if i > 0 {
            out.push('&');
        }
        encode_into(&mut out, name);
        out.push('=');
        encode_into(&mut out, value);
    }
    Ok(out)
}
