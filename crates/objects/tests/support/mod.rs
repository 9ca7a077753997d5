//! A store in a folder of its own, and a client that signs in COS's way.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod aws;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use mayfly_objects::{Body, Limits, Objects, Settings, Store};
use mayfly_sign::{CosToSign, Credential, sign_cos};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub const BUCKET: &str = "b-1250000000";
pub const HOST: &str = "127.0.0.1:8701";

/// Limits that do not depend on the disk of the machine.
pub fn limits() -> Limits {
    Limits { disk_free_min: 0, ..Limits::default() }
}

pub struct Scene {
    pub objects: Arc<Objects>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The text between the first `<tag>` and its end.
    pub fn tag(&self, tag: &str) -> String {
        self.tags(tag).into_iter().next().unwrap_or_default()
    }

    pub fn tags(&self, tag: &str) -> Vec<String> {
        let text = self.text();
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let parts = text.split(&open).skip(1);
        parts.filter_map(|p| p.split(&close).next().map(str::to_owned)).collect()
    }

    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().trim_matches('"').to_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self
    }

    #[track_caller]
    pub fn fails(self, status: u16, code: &str) {
        assert_eq!((self.status, self.tag("Code").as_str()), (status, code), "{}", self.text());
    }
}

pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()).map_err(|never| match never {}))
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The signature for a request as it will be sent.
pub fn signature(method: &str, path: &str, query: &[(&str, &str)], headers: &[(&str, &str)]) -> String {
    let mut signed = vec![("host", HOST)];
    signed.extend(headers);
    sign_cos(&CosToSign {
        secret_id: "AKIDtest",
        secret_key: "secret",
        span_s: (now_s() - 10, now_s() + 600),
        method,
        path,
        params: query,
        headers: &signed,
    })
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Scene {
    pub async fn open(root: &Path, limits: Limits) -> Self {
        let store = Store::open(root, limits).await.unwrap();
        let keys = HashMap::from([("AKIDtest".to_owned(), Credential::permanent("secret"))]);
        let settings =
            Settings { region: "ap-x".into(), app_id: "1250000000".into(), domains: vec!["fn.localhost".into()] };
        Self { objects: Arc::new(Objects::new(store, Arc::new(keys), settings)) }
    }

    pub fn store(&self) -> &Store {
        self.objects.store()
    }

    /// Sends a request as it is.
    pub async fn raw(&self, request: Request<Body>) -> http::Response<Body> {
        self.objects.call(request, SocketAddr::from(([127, 0, 0, 1], 1))).await
    }

    /// A signed request.
    pub fn request(
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: Body,
    ) -> Request<Body> {
        let pairs: Vec<String> = query.iter().map(|(n, v)| format!("{n}={}", encode(v).replace('/', "%2F"))).collect();
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{}{}", encode(path), if pairs.is_empty() { "" } else { "?" }, pairs.join("&")))
            .header("host", HOST)
            .header("authorization", signature(method, path, query, headers));
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(body).unwrap()
    }

    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let body = body.into();
        let length = body.len().to_string();
        let mut request = Self::request(method, path, query, headers, whole(body));
        if method != "GET" && method != "HEAD" {
            request.headers_mut().insert("content-length", length.parse().unwrap());
        }
        answered(self.raw(request).await).await
    }

    pub async fn get(&self, key: &str) -> Answer {
        self.ask("GET", &format!("/{BUCKET}/{key}"), &[], &[], "").await
    }

    pub async fn put(&self, key: &str, body: impl Into<Bytes>) -> Answer {
        self.ask("PUT", &format!("/{BUCKET}/{key}"), &[], &[], body).await
    }

    pub async fn make_bucket(&self) {
        self.ask("PUT", &format!("/{BUCKET}"), &[], &[], "").await.ok();
    }
}

pub async fn answered(answer: http::Response<Body>) -> Answer {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

/// Bytes that repeat only after a long time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Every file of data under the store's folder.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root.join("data")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
