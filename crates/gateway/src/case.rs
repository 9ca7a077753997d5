//! Names of headers in the capitals that a client insists on.
//!
//! Names of headers have no case, but some clients look answers' headers up as if they had (`cos-python-sdk-v5` does). The HTTP library writes small letters, and
//! keeps the case of names only from a message that it has read; so it is given one to read.

use http::Extensions;
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::convert::Infallible;
use tokio::io::AsyncWriteExt;

/// How names are to be written. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HeaderCase(Extensions);

impl HeaderCase {
    /// For `names` as they are to be written; all others are in small letters. Names that cannot be ones are left out.
    pub async fn new(names: &[&str]) -> Self {
        let mut text = String::from("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
        let fits =
            |name: &&&str| name.parse::<http::HeaderName>().is_ok() && !name.eq_ignore_ascii_case("content-length");
        for name in names.iter().filter(fits) {
            text.push_str(&format!("{name}: a\r\n"));
        }
        // The one whose value must be a number.
        if let Some(name) = names.iter().find(|name| name.eq_ignore_ascii_case("content-length")) {
            text.push_str(&format!("{name}: 0\r\n"));
        }
        text.push_str("\r\n");
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let seen = Mutex::new(Extensions::new());
        let service = service_fn(|request: http::Request<Incoming>| {
            *seen.lock() = request.extensions().clone();
            async { Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new())) }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        let serving = builder.preserve_header_case(true).serve_connection(TokioIo::new(server), service);
        let (sent, served) = tokio::join!(client.write_all(text.as_bytes()), serving);
        if sent.is_err() || served.is_err() {
            tracing::warn!("the case of headers could not be learnt; they are written in small letters");
        }
        let mut found = std::mem::take(&mut *seen.lock());
        found.remove::<hyper::upgrade::OnUpgrade>();
        Self(found)
    }

    /// Has the names of an answer's headers written so.
    pub fn apply<B>(&self, answer: &mut http::Response<B>) {
        answer.extensions_mut().extend(self.0.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn names_are_written_as_they_were_given() {
        let case = HeaderCase::new(&["ETag", "Content-Length", "x-Odd"]).await;
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let service = service_fn(|_: http::Request<Incoming>| {
            let mut answer = http::Response::new(http_body_util::Full::new(Bytes::from_static(b"body")));
            answer.headers_mut().insert("etag", "1".parse().unwrap());
            answer.headers_mut().insert("x-odd", "2".parse().unwrap());
            answer.headers_mut().insert("x-other", "3".parse().unwrap());
            case.apply(&mut answer);
            async { Ok::<_, Infallible>(answer) }
        });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let asking = async {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            text
        };
        let (text, served) = tokio::join!(asking, serving);
        served.unwrap();
        for line in ["ETag: 1", "x-Odd: 2", "x-other: 3", "Content-Length: 4"] {
            assert!(text.contains(&format!("\r\n{line}\r\n")), "{line}: {text}");
        }
    }
}
