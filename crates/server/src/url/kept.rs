//! Requests to HTTP functions that failed: what is kept of them, and making them again. See `docs/failures.md`.
//!
//! A request streams through the platform. Of one whose function keeps failures (`capture`), a copy of the body is made on the way, up to
//! [`BODY_MAX`]; it is kept when the request has ended as a failure, and dropped when it has not.

use super::grpc;
use super::headers::join_all;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use mayfly_base::{Clock, SystemClock};
use mayfly_control::RouteTarget;
use mayfly_control::endings::{Endings, FailedVisit};
use mayfly_model::{InvocationRecord, InvokeOutcome, RequestId, Status};
use mayfly_node::service::{Ended, StreamBody, whole};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Longest body of a request that is kept, in bytes.
const BODY_MAX: usize = 1 << 20;
/// Longest part of an answer that a replay's result shows, in bytes.
const ANSWER_MAX: usize = 256 << 10;
/// Failures that are being kept at once; further ones are counted as not kept.
static KEEPING: Semaphore = Semaphore::const_new(64);

/// A request, as JSON text that can be looked at and edited.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    http_method: String,
    /// With the query.
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_base64_encoded: bool,
    /// The body was too long to be kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    body_is_missing: bool,
}

#[derive(Default)]
struct Copy {
    bytes: Vec<u8>,
    too_long: bool,
}

/// Copies a request on its way.
struct Recorder {
    described: Described,
    body: Arc<Mutex<Copy>>,
}

impl Recorder {
    /// Of a request as its function sees it.
    fn new(head: &Parts) -> Self {
        let described = Described {
            http_method: head.method.to_string(),
            path: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: join_all(&head.headers),
            body: String::new(),
            is_base64_encoded: false,
            body_is_missing: false,
        };
        Self { described, body: Arc::default() }
    }

    /// The body, copied as it is read.
    fn watch(&self, body: StreamBody) -> StreamBody {
        let copy = Arc::clone(&self.body);
        let see = move |frame: hyper::body::Frame<Bytes>| {
            if let Some(data) = frame.data_ref() {
                let mut copy = copy.lock();
                if copy.bytes.len() + data.len() > BODY_MAX {
                    *copy = Copy { bytes: Vec::new(), too_long: true };
                } else if !copy.too_long {
                    copy.bytes.extend_from_slice(data);
                }
            }
            frame
        };
        body.map_frame(see).boxed_unsync()
    }

    /// Keeps the request if it failed. `source`: what it came by.
    fn keep(self, endings: Arc<Endings>, target: Arc<RouteTarget>, source: &'static str, accepted_ms: u64) -> Ended {
        Box::new(move |record, answer| {
            // Most end well: of those nothing is written out.
            if !record.status.is_failure() && !answer.is_some_and(|status| status.is_server_error()) {
                return;
            }
            let outcome = outcome(record, answer, None);
            // Who goes away before the answer has no failure to ask for.
            if !outcome.status.is_failure() || outcome.status == Status::CANCELED {
                return;
            }
            let (Ok(permit), Ok(runtime)) = (KEEPING.try_acquire(), Handle::try_current()) else {
                endings.count_unkept();
                return;
            };
            let (qualifier, copy) = (record.qualifier.clone(), std::mem::take(&mut *self.body.lock()));
            let mut described = self.described;
            let note = match copy.too_long {
                true => format!(
                    "The body had more than {BODY_MAX} bytes and was not kept: replay it with an event of your own."
                ),
                false => String::new(),
            };
            described.body_is_missing = copy.too_long;
            match String::from_utf8(copy.bytes) {
                Ok(text) => described.body = text,
                Err(error) => {
                    described.body = STANDARD.encode(error.as_bytes());
                    described.is_base64_encoded = true;
                }
            }
            runtime.spawn(async move {
                let request = serde_json::to_vec(&described).unwrap_or_default();
                let visit = FailedVisit { request, qualifier, source, accepted_ms, outcome, note };
                endings.keep_visit(&target, visit).await;
                drop(permit);
            });
        })
    }
}

/// A request's body, and who hears of its end, when failures of its function are kept. `source`: what it came by.
pub fn watched(
    endings: &Arc<Endings>,
    target: &Arc<RouteTarget>,
    head: &Parts,
    body: StreamBody,
    (source, upgrading): (&'static str, bool),
) -> (StreamBody, Option<Ended>) {
    // A conversation, or one that lives of its trailers, could not be made again.
    if upgrading || grpc::content_type(&head.headers).is_some() || !endings.captures(target) {
        return (body, None);
    }
    let recorder = Recorder::new(head);
    let body = recorder.watch(body);
    (body, Some(recorder.keep(Arc::clone(endings), Arc::clone(target), source, SystemClock.now_ms())))
}

/// How a request ended, as an invocation. An answer of 500 or above is a run error. `shown`: what is said of a success.
pub fn outcome(record: &InvocationRecord, answer: Option<StatusCode>, shown: Option<Vec<u8>>) -> InvokeOutcome {
    let failed_answer = answer.filter(|status| status.is_server_error());
    let (status, body) = match (record.status, failed_answer) {
        (Status::OK | Status::USER_EXCEPTION | Status::CANCELED, Some(_)) => {
            let message = format!("The function answered {}", record.ret_msg);
            (Status::USER_EXCEPTION, error(Status::USER_EXCEPTION, &message, record.request_id))
        }
        (Status::OK, None) => (Status::OK, shown.unwrap_or_default()),
        (status, _) if record.ret_msg.starts_with('{') => (status, record.ret_msg.clone().into_bytes()),
        (status, _) => (status, error(status, &format!("The answer broke off: {}", record.ret_msg), record.request_id)),
    };
    InvokeOutcome {
        request_id: record.request_id,
        status,
        body,
        duration_us: record.duration_us,
        memory_bytes: record.memory_bytes,
        cold_start: record.cold_start,
        log: Some(record.render()),
    }
}

fn error(status: Status, message: &str, id: RequestId) -> Vec<u8> {
    let document =
        json!({ "errorCode": 1, "errorMessage": message, "requestId": id.to_string(), "statusCode": status.0 });
    document.to_string().into_bytes()
}

/// A kept request, to be made again.
///
/// # Errors
/// Why it cannot be made, for whoever edited it.
pub fn again(event: &[u8]) -> Result<Request<StreamBody>, String> {
    let described: Described = serde_json::from_slice(event)
        .map_err(|e| format!("the event is no request of an HTTP function (httpMethod, path, headers, body): {e}"))?;
    if described.body_is_missing {
        return Err("the request's body was too long to be kept; replay it with an event of your own".to_owned());
    }
    let body = match described.is_base64_encoded {
        true => STANDARD.decode(described.body.trim()).map_err(|e| format!("body is not base64: {e}"))?,
        false => described.body.into_bytes(),
    };
    let mut made = Request::new(whole(body));
    *made.method_mut() = Method::from_bytes(described.http_method.as_bytes())
        .map_err(|_| format!("`{}` is no method", described.http_method))?;
    let uri: Uri = described.path.parse().map_err(|_| format!("`{}` is no path", described.path))?;
    if !described.path.starts_with('/') || uri.authority().is_some() {
        return Err(format!("`{}` is no path", described.path));
    }
    *made.uri_mut() = uri;
    for (name, value) in &described.headers {
        let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(name), Ok(value)) = parsed else { return Err(format!("header `{name}` is malformed")) };
        if !super::headers::is_the_platforms_own(&name) {
            made.headers_mut().append(name, value);
        }
    }
    Ok(made)
}

/// The answer to a replay as its result: what an event function would have returned for it.
pub async fn answered(response: Response<StreamBody>) -> Vec<u8> {
    let (head, mut body) = response.into_parts();
    let (mut bytes, mut cut) = (Vec::new(), 0u64);
    // To its end, though only its beginning is kept: the function is to run as it did.
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        let room = data.len().min(ANSWER_MAX - bytes.len());
        bytes.extend_from_slice(&data[..room]);
        cut += (data.len() - room) as u64;
    }
    let mut value = json!({ "statusCode": head.status.as_u16(), "headers": join_all(&head.headers) });
    match String::from_utf8(bytes) {
        Ok(text) => value["body"] = text.into(),
        Err(error) => {
            value["body"] = STANDARD.encode(error.as_bytes()).into();
            value["isBase64Encoded"] = true.into();
        }
    }
    if cut > 0 {
        value["bodyCutBytes"] = cut.into();
    }
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn recorded(body: Vec<u8>) -> Described {
        let head = Request::put("/a/b?c=%20").header("x-a", "1").header("x-a", "2").body(()).unwrap().into_parts().0;
        let recorder = Recorder::new(&head);
        recorder.watch(whole(body)).collect().await.unwrap();
        let copy = std::mem::take(&mut *recorder.body.lock());
        let mut described = recorder.described;
        described.body_is_missing = copy.too_long;
        described.body = STANDARD.encode(copy.bytes);
        described.is_base64_encoded = true;
        described
    }

    #[tokio::test]
    async fn a_request_is_made_again_as_it_was() {
        let described = recorded(b"h\xffi".to_vec()).await;
        let text = serde_json::to_string(&described).unwrap();
        let made = again(text.as_bytes()).unwrap();
        assert_eq!((made.method(), made.uri().to_string()), (&Method::PUT, "/a/b?c=%20".to_owned()));
        assert_eq!(made.headers()["x-a"], "1, 2");
        assert_eq!(made.into_body().collect().await.unwrap().to_bytes(), b"h\xffi"[..]);
        let long = serde_json::to_string(&recorded(vec![0; BODY_MAX + 1]).await).unwrap();
        assert!(long.len() < 1000 && again(long.as_bytes()).unwrap_err().contains("too long"));
    }

    #[test]
    fn edited_requests_are_checked() {
        for bad in [
            "{}",
            "no json",
            r#"{"httpMethod":"G T","path":"/"}"#,
            r#"{"httpMethod":"GET","path":"http://elsewhere/"}"#,
            r#"{"httpMethod":"GET","path":"x"}"#,
            r#"{"httpMethod":"GET","path":"/","headers":{"a\n":"b"}}"#,
            r#"{"httpMethod":"GET","path":"/","headers":{"a":"b\r\nc: d"}}"#,
            r#"{"httpMethod":"GET","path":"/","body":"*","isBase64Encoded":true}"#,
            r#"{"httpMethod":"GET","path":"/","more":1}"#,
        ] {
            assert!(again(bad.as_bytes()).is_err(), "{bad}");
        }
        let own = r#"{"httpMethod":"GET","path":"/","headers":{"x-scf-name":"another","X_SCF_UIN":"1"}}"#;
        assert!(again(own.as_bytes()).unwrap().headers().is_empty());
    }

    #[tokio::test]
    async fn a_long_answer_is_cut_in_the_result_only() {
        let result = answered(Response::new(whole(vec![b'a'; ANSWER_MAX + 7]))).await;
        let value: serde_json::Value = serde_json::from_slice(&result).unwrap();
        assert_eq!((value["bodyCutBytes"].as_u64(), value["body"].as_str().map(str::len)), (Some(7), Some(ANSWER_MAX)));
    }
}
