//! The way of a request: whose it is, which language it speaks, and what every answer has.

use crate::access::{Hosts, Keys, Proven, Within, now_ms};
use crate::cors;
use crate::cos;
use crate::outbox::Cause;
use crate::s3::Api;
use crate::store::Store;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use mayfly_sign::{CosRequest, CosSignError, CredentialSource, is_cos_signed, verify_cos};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::service::{S3Service, S3ServiceBuilder};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A body, in either direction.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// How long a document may take to arrive and be answered.
const DOCUMENT_TIME: Duration = Duration::from_secs(60);
/// How long a document waits until others have been read.
const DOCUMENT_WAIT: Duration = Duration::from_secs(5);
/// How far the time of a signature may be from ours, in seconds.
const SKEW_S_MAX: u64 = 900;
/// Headers of a request that its notices show: most, and their bytes together.
const NOTED_MAX: (usize, usize) = (40, 4096);

/// What the service must be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Region that it says it is in.
    pub region: String,
    /// Account number (APPID).
    pub app_id: String,
    /// The platform's domains, for `<bucket>.<domain>`, in lower case.
    pub domains: Vec<String>,
}

/// What the service has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    /// Requests signed in COS's way.
    pub cos_requests: u64,
    /// All others.
    pub s3_requests: u64,
    /// Answers of 400 to 499.
    pub client_errors: u64,
    /// Answers of 500 and above.
    pub server_errors: u64,
}

#[derive(Debug, Default)]
struct Counters {
    cos: AtomicU64,
    s3: AtomicU64,
    client_errors: AtomicU64,
    server_errors: AtomicU64,
}

/// Answers requests for objects, in the COS XML API and in S3.
pub struct Objects {
    s3: S3Service,
    store: Store,
    keys: Keys,
    hosts: Hosts,
    documents: Semaphore,
    /// Those of functions.
    documents_within: Semaphore,
    counters: Counters,
}

/// What is known of a request before it is answered.
struct About {
    request_id: String,
    method: Method,
    resource: String,
    bucket: Option<String>,
    origin: Option<String>,
    cos: bool,
    service: bool,
}

impl Objects {
    /// Answers from `store`, for whoever has one of `credentials`.
    pub fn new(store: Store, credentials: Arc<dyn CredentialSource>, settings: Settings) -> Self {
        let keys = Keys(credentials);
        let hosts = Hosts { domains: settings.domains.into() };
        let api = Api { store: store.clone(), region: settings.region.into(), owner: settings.app_id.into() };
        let mut config = S3Config::default();
        config.xml_max_body_size = store.limits.document_bytes_max;
        config.post_object_max_file_size = store.limits.form_bytes_max;
        config.form_max_field_size = 64 << 10;
        config.form_max_fields_size = 512 << 10;
        config.form_max_parts = 100;
        let mut builder = S3ServiceBuilder::new(api);
        builder.set_auth(keys.clone());
        builder.set_access(keys.clone());
        builder.set_host(hosts.clone());
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let documents = Semaphore::new(store.limits.documents_max);
        let documents_within = Semaphore::new(store.limits.documents_max.div_ceil(2));
        Self { s3: builder.build(), store, keys, hosts, documents, documents_within, counters: Counters::default() }
    }

    /// Figures.
    pub fn stats(&self) -> ServiceStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServiceStats {
            cos_requests: get(&self.counters.cos),
            s3_requests: get(&self.counters.s3),
            client_errors: get(&self.counters.client_errors),
            server_errors: get(&self.counters.server_errors),
        }
    }

    /// The store that it answers from.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Answers one request of the client at `peer`.
    pub async fn call(&self, request: Request<Body>, peer: SocketAddr) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let about = self.about(&parts);
        (if about.cos { &self.counters.cos } else { &self.counters.s3 }).fetch_add(1, Ordering::Relaxed);
        let within = parts.extensions.remove::<Within>();
        parts.extensions = http::Extensions::new();
        let mut cause = cause(&about, &parts.headers, peer);
        if let Some(within) = &within {
            cause.lineage = within.lineage;
            parts.extensions.insert(within.clone());
        }
        parts.extensions.insert(cause);
        let answer = if parts.method == Method::OPTIONS {
            self.preflight(&about, &parts.headers).await
        } else {
            match self.prove(&about, &mut parts) {
                Ok(()) => self.carry_out(Request::from_parts(parts, body), within).await,
                Err((status, code, message)) => error(status, code, &message),
            }
        };
        self.finish(answer, &about).await
    }

    fn about(&self, parts: &http::request::Parts) -> About {
        let text = |name: HeaderName| parts.headers.get(name).and_then(|v| v.to_str().ok());
        let host = text(header::HOST).or(parts.uri.authority().map(|a| a.as_str())).unwrap_or("");
        let virtual_bucket = self.hosts.bucket(host).map(str::to_owned);
        let first = parts.uri.path().trim_start_matches('/').split('/').next().filter(|s| !s.is_empty());
        let authorization = parts.headers.get(header::AUTHORIZATION).map(|v| v.as_bytes());
        About {
            request_id: request_id(),
            method: parts.method.clone(),
            resource: parts.uri.path().chars().take(1200).collect(),
            service: virtual_bucket.is_none() && first.is_none(),
            bucket: virtual_bucket.or_else(|| first.map(str::to_owned)),
            origin: text(header::ORIGIN).map(str::to_owned),
            cos: is_cos_signed(authorization, parts.uri.query().unwrap_or("")),
        }
    }

    /// Verifies a COS signature and puts the request into S3's words. Others are verified by `s3s`.
    fn prove(&self, about: &About, parts: &mut http::request::Parts) -> Result<(), (u16, &'static str, String)> {
        if !about.cos {
            return fresh(&parts.headers);
        }
        let host = parts.headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("");
        let query = parts.uri.query().unwrap_or("");
        let view = CosRequest {
            method: parts.method.as_str(),
            path: parts.uri.path(),
            query,
            header: &|name| parts.headers.get(name).map(|v| v.as_bytes()),
            path_style: self.hosts.bucket(host).is_none(),
        };
        let verified = verify_cos(&view, &*self.keys.0, now_ms()).map_err(|error| {
            let code = match error {
                CosSignError::Malformed(_) => "InvalidArgument",
                CosSignError::UnknownSecretId => "InvalidAccessKeyId",
                CosSignError::Expired => "AccessDenied",
                CosSignError::Mismatch => "SignatureDoesNotMatch",
                CosSignError::Token => "InvalidToken",
            };
            (if code == "InvalidArgument" { 400 } else { 403 }, code, error.to_string())
        })?;
        if let Some(within) = parts.extensions.get::<Within>()
            && !within.admits(&verified.secret_id, &*self.keys.0)
        {
            return Err((403, "InvalidAccessKeyId", CosSignError::UnknownSecretId.to_string()));
        }
        cos::check_presigned(&verified, &parts.headers, query).map_err(|_| {
            let message = "The signature of this URL does not cover what the request asks for; sign the parameters and headers too.";
            (403, "AccessDenied", message.to_owned())
        })?;
        parts.uri = cos::translate_uri(&parts.uri);
        cos::translate_headers(&mut parts.headers);
        parts.extensions.insert(Proven);
        Ok(())
    }

    async fn carry_out(&self, request: Request<Body>, within: Option<Within>) -> Response<Body> {
        let document = is_document(&request);
        let answered = async {
            let request = request.map(s3s::Body::http_body_unsync);
            match self.s3.call(request).await {
                Ok(answer) => answer.map(UnsyncBoxBody::new),
                Err(failed) => {
                    tracing::error!(error = ?failed, "a request for objects could not be answered");
                    error(500, "InternalError", "An internal error occurred. Try again; the server's log says more.")
                }
            }
        };
        if !document {
            return answered.await;
        }
        // Functions have half of the places for documents, and each a few.
        let own = async {
            let Some(within) = within else { return Some(None) };
            let own = within.documents.acquire_owned().await.ok()?;
            Some(Some((own, self.documents_within.acquire().await.ok()?)))
        };
        let Ok(Some(_own)) = tokio::time::timeout(DOCUMENT_WAIT, own).await else {
            return error(503, "SlowDown", "Too many documents of functions are being read; try again later.");
        };
        // Documents are read into memory, so only so many at a time.
        let Ok(Ok(_permit)) = tokio::time::timeout(DOCUMENT_WAIT, self.documents.acquire()).await else {
            return error(503, "SlowDown", "Too many documents are being read; try again later.");
        };
        match tokio::time::timeout(DOCUMENT_TIME, answered).await {
            Ok(answer) => answer,
            Err(_) => error(400, "RequestTimeout", "The request's body came too slowly."),
        }
    }

    async fn rules_of(&self, about: &About) -> Vec<crate::entry::CorsRule> {
        match &about.bucket {
            Some(bucket) => self.store.bucket(bucket).await.map(|b| b.cors).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// What a browser asks before it sends a request for a page from elsewhere.
    async fn preflight(&self, about: &About, headers: &HeaderMap) -> Response<Body> {
        let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        let method = text(header::ACCESS_CONTROL_REQUEST_METHOD);
        let (Some(origin), Some(method)) = (&about.origin, method) else {
            return error(400, "BadRequest", "A preflight request has Origin and Access-Control-Request-Method.");
        };
        let asked = text(header::ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or("");
        let asked: Vec<String> = asked.split(',').map(|h| h.trim().to_owned()).filter(|h| !h.is_empty()).collect();
        match cors::allow(&self.rules_of(about).await, origin, method, &asked) {
            Some(allowed) => {
                let mut answer = Response::new(Body::default());
                *answer.headers_mut() = allowed;
                answer
            }
            None => error(403, "AccessForbidden", "The bucket's CORS configuration does not allow this."),
        }
    }

    /// Gives an answer what every one has, and errors what clients want of them.
    async fn finish(&self, mut answer: Response<Body>, about: &About) -> Response<Body> {
        let status = answer.status();
        if status.is_client_error() {
            self.counters.client_errors.fetch_add(1, Ordering::Relaxed);
        } else if status.is_server_error() {
            self.counters.server_errors.fetch_add(1, Ordering::Relaxed);
        }
        if status == StatusCode::NOT_MODIFIED {
            *answer.body_mut() = Body::default();
            answer.headers_mut().remove(header::CONTENT_TYPE);
            answer.headers_mut().remove(header::CONTENT_LENGTH);
        } else if status.is_client_error() || status.is_server_error() {
            answer = rewritten(answer, |text| explained(text, about)).await;
        } else if about.cos && about.service {
            answer = rewritten(answer, |text| cos::translate_buckets(&text)).await;
        }
        if about.cos {
            cos::translate_answer(answer.headers_mut());
        }
        if let (Some(origin), false) = (&about.origin, about.method == Method::OPTIONS)
            && let Some(allowed) = cors::allow(&self.rules_of(about).await, origin, about.method.as_str(), &[])
        {
            answer.headers_mut().extend(allowed);
        }
        if let Ok(id) = HeaderValue::try_from(&about.request_id) {
            answer.headers_mut().insert("x-cos-request-id", id.clone());
            answer.headers_mut().insert("x-amz-request-id", id);
        }
        answer
    }
}

/// A request that AWS's signature in its headers opens is good for 15 minutes: else whoever has seen one could send it for ever. `s3s` verifies
/// the signature, and looks at the clock only where it is in the address.
fn fresh(headers: &HeaderMap) -> Result<(), (u16, &'static str, String)> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    if !text("authorization").is_some_and(|a| a.starts_with("AWS")) {
        return Ok(());
    }
    let refused = |code, message: &str| Err((403, code, message.to_owned()));
    let Some(time) = text("x-amz-date").or_else(|| text("date")) else {
        return refused("AccessDenied", "A signed request says when it was signed: x-amz-date or Date is missing.");
    };
    let Some(seconds) = signed_at(time) else {
        return refused("AccessDenied", "The date of the request cannot be read: x-amz-date is as 20260102T030405Z.");
    };
    if i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX).abs_diff(seconds) > SKEW_S_MAX {
        let message = "The request was signed more than 15 minutes before or after now; is the clock right?";
        return refused("RequestTimeTooSkewed", message);
    }
    Ok(())
}

/// Seconds since the Unix epoch, from either of the forms that clients write.
fn signed_at(text: &str) -> Option<i64> {
    let time = match (text.len(), text.is_ascii()) {
        (16, true) if text.ends_with('Z') => {
            let (day, time) = text.split_once('T')?;
            let (year, month, day) = (day.get(..4)?, day.get(4..6)?, day.get(6..8)?);
            let iso = format!("{year}-{month}-{day}T{}:{}:{}Z", time.get(..2)?, time.get(2..4)?, time.get(4..6)?);
            Timestamp::parse(TimestampFormat::DateTime, &iso)
        }
        _ => {
            // The library knows GMT only by that name.
            let text = text.trim_end_matches("+0000").trim_end();
            let text = if text.ends_with("GMT") { text.to_owned() } else { format!("{text} GMT") };
            Timestamp::parse(TimestampFormat::HttpDate, &text)
        }
    };
    crate::s3::seconds(&time.ok()?)
}

/// Whether a request's body is read into memory: all but objects and parts are.
fn is_document(request: &Request<Body>) -> bool {
    let names = request.uri().query().unwrap_or("").split('&').map(|pair| pair.split('=').next().unwrap_or(""));
    let of_signatures = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.is_empty()
            || name.starts_with("x-")
            || matches!(&*name, "uploadid" | "partnumber" | "awsaccesskeyid" | "signature" | "expires")
    };
    match *request.method() {
        Method::POST => true,
        Method::PUT => names.into_iter().any(|name| !of_signatures(name)),
        _ => false,
    }
}

/// An answer whose body is a document, changed.
async fn rewritten(answer: Response<Body>, change: impl FnOnce(Bytes) -> Bytes) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    // Made by us, in memory already.
    let bytes = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let bytes = change(bytes);
    parts.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    Response::from_parts(parts, whole(bytes))
}

fn whole(bytes: Bytes) -> Body {
    UnsyncBoxBody::new(http_body_util::Full::new(bytes).map_err(|never| match never {}))
}

/// Adds to an error what it is about.
fn explained(text: Bytes, about: &About) -> Bytes {
    let Some(text) = std::str::from_utf8(&text).ok().and_then(|t| t.strip_suffix("</Error>")) else { return text };
    let mut out = text.to_owned();
    out.push_str(&format!(
        "<Resource>{}</Resource><RequestId>{}</RequestId>",
        escaped(&about.resource),
        about.request_id
    ));
    if about.cos {
        out.push_str("<TraceId></TraceId>");
    }
    out.push_str("</Error>");
    out.into()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

fn error(status: u16, code: &str, message: &str) -> Response<Body> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{}</Message></Error>",
        escaped(message)
    );
    let mut answer = Response::new(whole(text.into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    // Its body may not have been read: the connection is of no more use.
    answer
}

fn request_id() -> String {
    let mut random = [0u8; 12];
    // Without randomness the id is useless, the answer is not.
    let _ = getrandom::fill(&mut random);
    format!("{}_{}", hex::encode(&random[..8]), hex::encode(&random[8..]))
}

/// What notices say of a request.
fn cause(about: &About, headers: &HeaderMap, peer: SocketAddr) -> Cause {
    let mut noted = std::collections::BTreeMap::new();
    let mut bytes = 0;
    for (name, value) in headers {
        let (name, Ok(value)) = (name.as_str(), value.to_str()) else { continue };
        if name == "cookie" || name.ends_with("security-token") || name.starts_with("x-amz-server-side") {
            continue;
        }
        // Who signed may be known; the signature would let others do the same again.
        let value = match name {
            "authorization" if about.cos => value.split("&q-sign-time").next().unwrap_or(""),
            "authorization" => {
                value.split(", Signature=").next().and_then(|v| v.split(",Signature=").next()).unwrap_or("")
            }
            _ => value,
        };
        bytes += name.len() + value.len();
        if noted.len() >= NOTED_MAX.0 || bytes > NOTED_MAX.1 {
            break;
        }
        noted.insert(
            if name == "authorization" { "Authorization".to_owned() } else { name.to_owned() },
            value.to_owned(),
        );
    }
    Cause { request_id: about.request_id.clone(), source_ip: peer.ip().to_string(), headers: noted, ..Cause::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_signatures_are_refused() {
        assert_eq!(signed_at("20260102T030405Z"), Some(1_767_323_045));
        assert_eq!(signed_at("Fri, 02 Jan 2026 03:04:05 GMT"), Some(1_767_323_045));
        assert_eq!(signed_at("Fri, 02 Jan 2026 03:04:05 +0000"), Some(1_767_323_045));
        for bad in ["", "20260102", "20261302T030405Z", "now", "2026-01-02T03:04Z", "Ä0260102T03040Z"] {
            assert_eq!(signed_at(bad), None, "{bad}");
        }
        let with = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
            fresh(&headers.collect()).map_err(|(_, code, _)| code)
        };
        let signed = ("authorization", "AWS4-HMAC-SHA256 Credential=x");
        assert_eq!(with(&[("authorization", "AWS a:b")]), Err("AccessDenied"));
        assert_eq!(with(&[signed, ("date", "yesterday")]), Err("AccessDenied"));
        assert_eq!(with(&[signed, ("x-amz-date", "20200102T030405Z")]), Err("RequestTimeTooSkewed"));
        assert_eq!(with(&[signed, ("x-amz-date", "20990102T030405Z")]), Err("RequestTimeTooSkewed"));
        // Without a signature there, others look.
        assert_eq!(with(&[("date", "Fri, 02 Jan 2026 03:04:05 GMT")]), Ok(()));
    }
}
