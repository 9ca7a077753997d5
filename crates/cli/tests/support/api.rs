//! What the tests of the API gateway share: its API, requests without a client that follows or retries, a function that echoes.

// Each test binary takes the part that it needs.
#![allow(dead_code)]

use mayfly_testkit::{Platform, Setup};
use serde_json::{Value, json};
use std::time::Duration;

/// Answers with what it was asked, under its own name.
pub const ECHO: &str = r#"
import json, os
def main_handler(event, context):
    if event.get("path", "").endswith("/plain"):
        return {"plain": True}
    body = {"me": os.environ["SCF_FUNCTIONNAME"], "event": event}
    return {"isBase64Encoded": False, "statusCode": 200, "headers": {"Content-Type": "application/json", "X-Own": "yes"}, "body": json.dumps(body)}
"#;

pub fn platform() -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).start()
}

pub fn echo(p: &Platform, name: &str) {
    p.create(name, "Python3.9", "index.main_handler", &[("index.py", ECHO)], json!({}));
}

/// Calls an action of API Gateway's API.
pub fn api(p: &Platform, action: &str, parameters: Value) -> Value {
    p.try_call_of(("apigateway", "2018-08-08"), action, &parameters).expect("the platform answers")
}

pub fn must(p: &Platform, action: &str, parameters: Value) -> Value {
    let response = api(p, action, parameters);
    assert!(response.get("Error").is_none(), "{action}: {}", response["Error"]);
    response
}

pub fn fails(p: &Platform, action: &str, parameters: Value) -> String {
    let response = api(p, action, parameters);
    response["Error"]["Code"].as_str().unwrap_or_else(|| panic!("{action} succeeded: {response}")).to_owned()
}

pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: Value,
}

pub fn ask_with(p: &Platform, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(60)));
    let agent = ureq::Agent::new_with_config(config.build());
    let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", p.address));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body.to_owned()).expect("a good request")).expect("the platform answers");
    let text = response.body_mut().read_to_string().expect("text");
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status: response.status().as_u16(), headers: response.headers().clone(), body }
}

pub fn ask(p: &Platform, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask_with(p, "GET", path, headers, "")
}

pub fn service(p: &Platform, name: &str) -> String {
    must(p, "CreateService", json!({ "ServiceName": name, "Protocol": "http&https" }))["ServiceId"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Creates an API that an event function answers, and returns its id. `more` is merged into the request.
pub fn route(p: &Platform, service: &str, method: &str, path: &str, function: &str, more: Value) -> String {
    let mut request = json!({
        "ServiceId": service, "ServiceType": "SCF", "ServiceTimeout": 30, "Protocol": "HTTP",
        "RequestConfig": { "Path": path, "Method": method }, "ServiceScfFunctionName": function,
        "ServiceScfFunctionNamespace": "default", "ServiceScfFunctionQualifier": "$LATEST", "ServiceScfIsIntegratedResponse": true,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        request[key] = value.clone();
    }
    must(p, "CreateApi", request)["Result"]["ApiId"].as_str().unwrap().to_owned()
}

pub fn release(p: &Platform, service: &str) {
    must(p, "ReleaseService", json!({ "ServiceId": service, "EnvironmentName": "release", "ReleaseDesc": "" }));
}
