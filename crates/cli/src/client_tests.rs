//! The client against a server that verifies signatures as the platform does.

use super::*;
use crate::api::{Code, CreateFunction, GetFunction, ListFunctions};
use std::net::TcpListener;

#[path = "../tests/support/server.rs"]
mod server;
use server::{SECRET_ID, SECRET_KEY, Server, failure};

fn client(authority: &str, key: &str) -> Client {
    let credentials = Credentials { secret_id: SECRET_ID.into(), secret_key: key.into(), token: None };
    Client::new(Endpoint { authority: authority.into() }, credentials, Some("ap-guangzhou".into()))
}

fn get(name: &str) -> GetFunction {
    GetFunction { function_name: name.into(), namespace: "default".into(), qualifier: None }
}

#[test]
fn calls_are_signed_and_answers_read() {
    let server = Server::start(|action, params| match (action, params["FunctionName"].as_str()) {
        ("GetFunction", Some("hello")) => {
            r#"{"Response":{"FunctionName":"hello","MemorySize":128,"Later":[1.00],"RequestId":"r-1"}}"#.into()
        }
        ("GetFunction", Some("lost")) => failure("ResourceNotFound.Function", "No such function."),
        ("GetFunction", _) => failure("ResourceNotFound.Namespace", "No."),
        _ => r#"{"Response":{"Functions":[{"FunctionName":"a"}],"TotalCount":1,"RequestId":"r-4"}}"#.into(),
    });
    let client = client(&server.authority, SECRET_KEY);
    let answer = client.call(&get("hello")).unwrap();
    assert_eq!((answer.body.function_name.as_str(), answer.body.memory_size), ("hello", 128));
    assert!(answer.raw.contains(r#""Later":[1.00]"#), "{}", answer.raw);
    assert!(client.find(&get("lost"), "ResourceNotFound.Function").unwrap().is_none());
    let error = client.find(&get("other"), "ResourceNotFound.Function").unwrap_err();
    assert_eq!(error.kind, Kind::Api("ResourceNotFound.Namespace".into()));
    assert_eq!(error.message, "ResourceNotFound.Namespace: No (request r-error)");
    assert!(error.hint.contains("namespaces create"));
    let page = client.call(&ListFunctions { namespace: "default".into(), ..Default::default() }).unwrap();
    assert_eq!(page.body.functions.len(), 1);
    let seen = server.take();
    assert_eq!(seen[0].0, "GetFunction");
    assert_eq!(seen[0].1, serde_json::json!({"FunctionName": "hello", "Namespace": "default"}));
    assert_eq!(seen[3].0, "ListFunctions");
}

#[test]
fn a_large_package_arrives_whole_and_its_progress_is_told() {
    let server = Server::start(|_, _| r#"{"Response":{"RequestId":"r-1"}}"#.into());
    let zip = "QUJD".repeat(1 << 20);
    let request =
        CreateFunction { function_name: "big".into(), code: Code { zip_file: zip.clone() }, ..Default::default() };
    let mut steps = Vec::new();
    client(&server.authority, SECRET_KEY).call_with_progress(&request, &mut |sent| steps.push(sent)).unwrap();
    assert!(steps.is_sorted() && steps.len() > 10);
    assert!(*steps.last().unwrap() > zip.len() as u64);
    assert_eq!(server.take()[0].1["Code"]["ZipFile"].as_str().unwrap().len(), zip.len());
}

#[test]
fn a_wrong_key_is_an_api_error_with_a_hint() {
    let server = Server::start(|_, _| unreachable!("nothing is rightly signed"));
    let error = client(&server.authority, "another").call(&get("hello")).unwrap_err();
    assert_eq!(error.kind, Kind::Api("AuthFailure.SignatureFailure".into()));
    assert!(error.hint.contains("secret key"));
    assert!(server.take().is_empty());
}

#[test]
fn what_is_no_platform_is_unreachable() {
    for answer in ["<html>hi</html>", "{}", r#"{"Response":5}"#, r#"{"Response":{"MemorySize":"x"}}"#] {
        let server = Server::start(|_, _| answer.into());
        let error = client(&server.authority, SECRET_KEY).call(&get("hello")).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{answer}");
        assert!(!error.hint.is_empty());
    }
}

#[test]
fn nobody_there_is_said_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client(&free.to_string(), "k").call(&get("hello")).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.message.starts_with("nothing listens at http://127.0.0.1:"), "{error}");
    assert!(error.hint.contains("mayfly up"));
}
