//! Refusals as clients of gRPC understand them: a status in the head of a response without body ("Trailers-Only").
//! Source: the gRPC protocol over HTTP/2, "Responses".

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use mayfly_gateway::StreamBody;

/// The content type of a request of gRPC. `None`: it is none.
pub fn content_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(header::CONTENT_TYPE)?;
    let rest = value.as_bytes().strip_prefix(b"application/grpc")?;
    matches!(rest.first(), None | Some(b'+' | b'-' | b';')).then(|| value.clone())
}

/// The status of gRPC for one of HTTP. 404 is what gRPC calls a service or method that is not there.
fn code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "12",
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::PAYLOAD_TOO_LARGE => "8",
        StatusCode::REQUEST_TIMEOUT => "4",
        StatusCode::BAD_REQUEST => "3",
        _ => "14",
    }
}

/// What is not a plain character of ASCII, and `%`, as `%XX`.
fn encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// A refusal that would have had this status and message, and these headers of the platform.
pub fn refusal(
    content_type: HeaderValue,
    status: StatusCode,
    message: &str,
    platforms: &HeaderMap,
) -> Response<StreamBody> {
    let mut response = Response::new(StreamBody::default());
    let headers = response.headers_mut();
    for (name, value) in platforms.iter().filter(|(name, _)| name.as_str().starts_with("x-scf-")) {
        headers.insert(name, value.clone());
    }
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(code(status)));
    if let Ok(message) = HeaderValue::try_from(encoded(message)) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    #[test]
    fn requests_of_grpc_are_told_by_their_content_type() {
        for (text, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc-web+proto", true),
            ("application/grpc; x=y", true),
            ("application/grpcx", false),
            ("application/json", false),
        ] {
            let head = Request::post("/").header("content-type", text).body(()).unwrap().into_parts().0;
            assert_eq!(content_type(&head.headers).is_some(), is, "{text}");
        }
    }

    #[test]
    fn a_refusal_is_one_head() {
        let mut platforms = HeaderMap::new();
        platforms.insert("x-scf-status", HeaderValue::from_static("447"));
        platforms.insert("content-length", HeaderValue::from_static("9"));
        let given = HeaderValue::from_static("application/grpc+proto");
        let response = refusal(given, StatusCode::NOT_FOUND, "no `é` 100%\n", &platforms);
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(headers["grpc-status"], "12");
        assert_eq!(headers["grpc-message"], "no `%C3%A9` 100%25%0A");
        assert_eq!(headers["x-scf-status"], "447");
        assert_eq!(headers.len(), 4);
        for (status, grpc) in [(401, "16"), (413, "8"), (408, "4"), (400, "3"), (502, "14")] {
            assert_eq!(code(StatusCode::from_u16(status).unwrap()), grpc);
        }
    }
}
