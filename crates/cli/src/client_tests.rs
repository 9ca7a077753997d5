//! The client against a server of a few lines, which verifies signatures as the platform does.

use super::*;
use crate::api::{Code, CreateFunction, GetFunction, ListFunctions};
use mayfly_sign::{Credential, Params, RequestView, Verifier};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

/// What the server saw: the action, and the JSON of the request.
type Seen = (String, serde_json::Value);

/// Answers each request with the next of `answers`, if its signature is right, and returns what it saw.
fn serve(answers: Vec<&'static str>) -> (Endpoint, JoinHandle<Vec<Seen>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = Endpoint { authority: listener.local_addr().unwrap().to_string() };
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let verifier = Verifier::new(&["scf"]);
        let credentials = HashMap::from([("AKIDcli".to_owned(), Credential::permanent("cli-secret"))]);
        let mut seen = Vec::new();
        for answer in answers {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end(), "POST / HTTP/1.1");
            let mut headers = HashMap::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let Some((name, value)) = line.trim_end().split_once(':') else { break };
                let twice = headers.insert(name.to_ascii_lowercase(), value.trim().as_bytes().to_vec());
                assert!(twice.is_none(), "{name} is sent twice");
            }
            let length: usize = String::from_utf8_lossy(&headers["content-length"]).parse().unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body = Bytes::from(body);
            let header = |name: &str| headers.get(name).map(Vec::as_slice);
            let view = RequestView { method: "POST", path: "/", query: "", header: &header, body: &body };
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let body = match verifier.verify(&view, &credentials, now.as_millis() as u64) {
                Ok(verified) => {
                    assert_eq!(verified.version, "2018-04-16");
                    let Params::Json(params) = verified.params else { panic!("not JSON") };
                    seen.push((verified.action, serde_json::from_slice(&params).unwrap()));
                    answer.to_owned()
                }
                Err(error) => format!(
                    r#"{{"Response":{{"Error":{{"Code":"AuthFailure.SignatureFailure","Message":"{error}"}},"RequestId":"r-0"}}}}"#
                ),
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
        seen
    });
    (endpoint, thread)
}

fn client(endpoint: Endpoint, key: &str) -> Client {
    let credentials =
        Credentials { secret_id: "AKIDcli".into(), secret_key: key.into(), token: None };
    Client::new(endpoint, credentials, Some("ap-guangzhou".into()))
}

fn get() -> GetFunction {
    GetFunction { function_name: "hello".into(), namespace: "default".into(), qualifier: None }
}

#[test]
fn calls_are_signed_and_answers_read() {
    let (endpoint, server) = serve(vec![
        r#"{"Response":{"FunctionName":"hello","MemorySize":128,"Later":[1.00],"RequestId":"r-1"}}"#,
        r#"{"Response":{"Error":{"Code":"ResourceNotFound.Function","Message":"No such function."},"RequestId":"r-2"}}"#,
        r#"{"Response":{"Error":{"Code":"ResourceNotFound.Namespace","Message":"No."},"RequestId":"r-3"}}"#,
        r#"{"Response":{"Functions":[{"FunctionName":"a"}],"TotalCount":1,"RequestId":"r-4"}}"#,
    ]);
    let client = client(endpoint, "cli-secret");
    let answer = client.call(&get()).unwrap();
    assert_eq!((answer.body.function_name.as_str(), answer.body.memory_size), ("hello", 128));
    assert!(answer.raw.contains(r#""Later":[1.00]"#), "{}", answer.raw);
    assert!(client.find(&get(), "ResourceNotFound.Function").unwrap().is_none());
    let error = client.find(&get(), "ResourceNotFound.Function").unwrap_err();
    assert_eq!(error.kind, Kind::Api("ResourceNotFound.Namespace".into()));
    assert_eq!(error.message, "ResourceNotFound.Namespace: No (request r-3)");
    assert!(error.hint.contains("namespaces create"));
    let page = client.call(&ListFunctions { namespace: "default".into(), ..Default::default() }).unwrap();
    assert_eq!(page.body.functions.len(), 1);
    let seen = server.join().unwrap();
    assert_eq!(seen[0].0, "GetFunction");
    assert_eq!(seen[0].1, serde_json::json!({"FunctionName": "hello", "Namespace": "default"}));
    assert_eq!(seen[3].0, "ListFunctions");
}

#[test]
fn a_large_package_arrives_whole_and_its_progress_is_told() {
    let (endpoint, server) = serve(vec![r#"{"Response":{"RequestId":"r-1"}}"#]);
    let zip = "QUJD".repeat(1 << 20);
    let request = CreateFunction {
        function_name: "big".into(),
        code: Code { zip_file: zip.clone() },
        ..Default::default()
    };
    let mut steps = Vec::new();
    client(endpoint, "cli-secret").call_with_progress(&request, &mut |sent| steps.push(sent)).unwrap();
    assert!(steps.is_sorted() && steps.len() > 10);
    assert!(*steps.last().unwrap() > zip.len() as u64);
    let seen = server.join().unwrap();
    assert_eq!(seen[0].1["Code"]["ZipFile"].as_str().unwrap().len(), zip.len());
}

#[test]
fn a_wrong_key_is_an_api_error_with_a_hint() {
    let (endpoint, server) = serve(vec![""]);
    let error = client(endpoint, "another").call(&get()).unwrap_err();
    assert_eq!(error.kind, Kind::Api("AuthFailure.SignatureFailure".into()));
    assert!(error.hint.contains("secret key"));
    assert!(server.join().unwrap().is_empty());
}

#[test]
fn what_is_no_platform_is_unreachable() {
    for answer in ["<html>hi</html>", "{}", r#"{"Response":5}"#, r#"{"Response":{"MemorySize":"x"}}"#] {
        let (endpoint, server) = serve(vec![answer]);
        let error = client(endpoint, "cli-secret").call(&get()).unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "{answer}");
        assert!(!error.hint.is_empty());
        server.join().unwrap();
    }
}

#[test]
fn nobody_there_is_said_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client(Endpoint { authority: free.to_string() }, "k").call(&get()).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(error.message.starts_with("nothing listens at http://127.0.0.1:"), "{error}");
    assert!(error.hint.contains("mayfly up"));
}
