//! What an event function sees of a request to its URL, and what its return value means. Sources: SCF, "Function URL" and "API Gateway
//! trigger" (integrated response).

use super::address::Address;
use super::headers::{Visitor, join_all};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use mayfly_gateway::StreamBody;
use mayfly_node::service::whole;
use serde_json::{Map, Value, json};

/// The event, as JSON text.
pub fn from_request(head: &Parts, address: &Address, visitor: &Visitor, body: &Bytes) -> Vec<u8> {
    let mut headers = join_all(&head.headers);
    if let Some(authority) = head.uri.authority() {
        headers.entry("host".to_owned()).or_insert_with(|| authority.as_str().to_owned());
    }
    headers.insert("x-scf-remote-addr".to_owned(), visitor.peer.ip().to_string());
    let mut event = json!({
        "headers": headers,
        "httpMethod": head.method.as_str(),
        "path": address.target.path(),
        "queryString": query(address.target.query().unwrap_or("")),
    });
    match std::str::from_utf8(body) {
        Ok(text) => event["body"] = text.into(),
        Err(_) => {
            event["body"] = STANDARD.encode(body).into();
            event["isBase64Encoded"] = true.into();
        }
    }
    event.to_string().into_bytes()
}

/// A key that comes once has a text, one that comes several times a list.
fn query(text: &str) -> Map<String, Value> {
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

/// The response that a return value stands for: what an object with a `statusCode` says, or 200 with the value itself as JSON.
pub fn to_response(value: Vec<u8>) -> Response<StreamBody> {
    let described = match serde_json::from_slice(&value) {
        Ok(Value::Object(object)) if object.contains_key("statusCode") => Some(object),
        _ => None,
    };
    match described {
        None => {
            let mut response = Response::new(whole(value));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Some(object) => described_response(object).unwrap_or_else(|why| {
            let text = json!({ "errno": 502, "error": format!("Invalid scf response format: {why}") }).to_string();
            let mut response = Response::new(whole(text));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }),
    }
}

fn described_response(mut object: Map<String, Value>) -> Result<Response<StreamBody>, String> {
    let status = match object.get("statusCode") {
        Some(Value::Number(n)) => n.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let status = status.and_then(|s| u16::try_from(s).ok()).and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.filter(|s| s.as_u16() >= 200).ok_or("statusCode is not a number from 200 to 999")?;
    let text = match object.remove("body") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let encoded = matches!(object.get("isBase64Encoded"), Some(Value::Bool(true)))
        || object.get("isBase64Encoded") == Some(&json!("true"));
    let body = if encoded {
        STANDARD.decode(text.trim()).map_err(|e| format!("body is not base64: {e}"))?
    } else {
        text.into_bytes()
    };
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for field in ["headers", "multiValueHeaders"] {
        if let Some(Value::Object(given)) = object.remove(field) {
            for (name, value) in given {
                add(headers, &name, value)?;
            }
        }
    }
    headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Headers that the platform makes itself, from the body and the connection.
const OWN: [HeaderName; 4] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE];

fn add(headers: &mut HeaderMap, name: &str, value: Value) -> Result<(), String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not a header's name"))?;
    if OWN.contains(&name) {
        return Ok(());
    }
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    for value in values {
        let text = match value {
            Value::String(text) => text,
            Value::Null => continue,
            other => other.to_string(),
        };
        let value = HeaderValue::from_bytes(text.as_bytes())
            .map_err(|_| format!("the value of header `{name}` has forbidden characters"))?;
        headers.append(name.clone(), value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use http_body_util::BodyExt;

    fn event(uri: &str, body: &'static [u8]) -> Value {
        let request = Request::post(uri).header("host", "h").header("x-a", "1").header("x-a", "2");
        let head = request.body(()).unwrap().into_parts().0;
        let address = Address::of(&head, "fn.localhost").expect("a function's URL");
        let visitor = Visitor { peer: "192.0.2.1:5".parse().unwrap(), secure: false };
        serde_json::from_slice(&from_request(&head, &address, &visitor, &Bytes::from_static(body))).unwrap()
    }

    #[test]
    fn a_request_becomes_an_event() {
        assert_eq!(
            event("/fn/default/f/a%20b?k=v&two=1&two=2&e", b"h\xc3\xa9"),
            json!({
                "headers": { "host": "h", "x-a": "1, 2", "x-scf-remote-addr": "192.0.2.1" },
                "httpMethod": "POST", "path": "/a%20b", "queryString": { "k": "v", "two": ["1", "2"], "e": "" }, "body": "hé"
            })
        );
        let binary = event("/fn/default/f", b"\xff\x00");
        assert_eq!((&binary["body"], &binary["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
    }

    async fn answer(value: Value) -> (u16, HeaderMap, String) {
        let response = to_response(value.to_string().into_bytes());
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), head.headers, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_return_value_becomes_a_response() {
        let (status, headers, body) = answer(json!({ "a": 1 })).await;
        assert_eq!(
            (status, &headers["content-type"], body.as_str()),
            (200, &HeaderValue::from_static("application/json"), "{\"a\":1}")
        );
        let (status, headers, body) = answer(json!({
            "statusCode": 201, "isBase64Encoded": true, "body": "aGk=",
            "headers": { "Content-Type": "text/html", "X-Two": ["a", "b"], "Content-Length": "99", "X-N": 5 }
        }))
        .await;
        assert_eq!(
            (status, body.as_str(), &headers["content-type"]),
            (201, "hi", &HeaderValue::from_static("text/html"))
        );
        assert_eq!(headers.get_all("x-two").iter().count(), 2);
        assert!(headers.get("content-length").is_none());
        for bad in [
            json!({ "statusCode": 99 }),
            json!({ "statusCode": "x" }),
            json!({ "statusCode": 200, "headers": { "a\n": "b" } }),
            json!({ "statusCode": 200, "headers": { "a": "b\r\nc: d" } }),
            json!({ "statusCode": 200, "isBase64Encoded": true, "body": "*" }),
        ] {
            assert_eq!(answer(bad.clone()).await.0, 502, "{bad}");
        }
    }
}
