//! What event functions see of a request to an API. Source: SCF, "API Gateway trigger", event message and integrated request.

use crate::door::Admitted;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// A request, as far as its event tells of it.
pub struct Request<'a> {
    /// The request's head.
    pub head: &'a Parts,
    /// Its path without the environment.
    pub path: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// Its id.
    pub request_id: &'a str,
    /// Who sent it.
    pub source: IpAddr,
}

/// Headers as one object: several of a name are joined.
pub fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let mut found = Map::new();
    for name in headers.keys() {
        let separator = if name == header::COOKIE { "; " } else { ", " };
        let values: Vec<String> =
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
        found.insert(name.as_str().to_owned(), values.join(separator).into());
    }
    found
}

/// A query: a key that comes once has a text, one that comes several times a list.
pub fn query(text: &str) -> Map<String, Value> {
    let mut found = Map::new();
    for (key, value) in form_urlencoded::parse(text.as_bytes()) {
        match found.get_mut(&*key) {
            None => {
                found.insert(key.into_owned(), value.into_owned().into());
            }
            Some(Value::Array(list)) => list.push(value.into_owned().into()),
            Some(one) => *one = json!([one.take(), value]),
        }
    }
    found
}

/// True when an integrated response names its content type itself.
pub fn says_content_type(value: &[u8]) -> bool {
    let Ok(Value::Object(object)) = serde_json::from_slice(value) else { return false };
    ["headers", "multiValueHeaders"].iter().any(|field| {
        let given = object.get(*field).and_then(Value::as_object);
        given.is_some_and(|h| h.keys().any(|name| name.eq_ignore_ascii_case("content-type")))
    })
}

/// What the gateway says of a request beside the request itself.
pub fn context(admitted: &Admitted, request: &Request<'_>) -> Value {
    json!({
        "serviceId": admitted.api.service,
        "serviceName": admitted.service_name,
        "path": admitted.api.path.trim_start_matches('='),
        "httpMethod": request.head.method.as_str(),
        "requestId": request.request_id,
        "identity": admitted.identity,
        "sourceIp": request.source.to_string(),
        "stage": admitted.stage,
    })
}

/// The event, as JSON text.
pub fn of_request(admitted: &Admitted, request: &Request<'_>) -> Vec<u8> {
    let mut all = headers(&request.head.headers);
    if let Some(authority) = request.head.uri.authority() {
        all.entry("host").or_insert_with(|| authority.as_str().into());
    }
    let mut event = json!({
        "requestContext": context(admitted, request),
        "headers": all,
        "body": "",
        "pathParameters": admitted.path_parameters,
        "queryStringParameters": admitted.query_parameters,
        "headerParameters": admitted.header_parameters,
        "stageVariables": { "stage": admitted.stage },
        "path": request.path,
        "queryString": query(request.head.uri.query().unwrap_or("")),
        "httpMethod": request.head.method.as_str(),
    });
    match std::str::from_utf8(request.body) {
        Ok(text) if !admitted.api.base64 => event["body"] = text.into(),
        _ => {
            event["body"] = STANDARD.encode(request.body).into();
            event["isBase64Encoded"] = true.into();
        }
    }
    event.to_string().into_bytes()
}

/// The content type of answers that say none.
pub fn content_type(response_type: &str) -> &'static str {
    match response_type {
        "HTML" => "text/html; charset=utf-8",
        "TEXT" | "TEST" => "text/plain; charset=utf-8",
        "XML" => "application/xml",
        "BINARY" => "application/octet-stream",
        _ => "application/json",
    }
}

/// True when a return value says what the response is to be: an object with `statusCode`, and nothing but text, numbers and switches
/// where those belong.
pub fn is_integrated(value: &[u8]) -> bool {
    let Ok(Value::Object(object)) = serde_json::from_slice(value) else { return false };
    let status = object
        .get("statusCode")
        .is_some_and(|s| s.as_u64().or_else(|| s.as_str()?.parse().ok()).is_some_and(|s| (200..1000).contains(&s)));
    status && object.get("headers").is_none_or(|h| h.is_object() || h.is_null())
}
