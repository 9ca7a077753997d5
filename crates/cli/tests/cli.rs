//! The program itself against a server that knows one function: what is sent, what is printed, and the exit codes.

#[path = "support/server.rs"]
mod server;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use server::{SECRET_ID, SECRET_KEY, Server, failure};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// One function, as far as a deployment sees it.
#[derive(Default)]
struct State {
    function: Option<Value>,
    code: String,
}

fn ok(mut fields: Value) -> String {
    fields["RequestId"] = json!("r-1");
    json!({"Response": fields}).to_string()
}

impl State {
    fn answer(&mut self, action: &str, params: &Value) -> String {
        let sha = |zip: &Value| hex::encode(Sha256::digest(BASE64_STANDARD.decode(zip.as_str().unwrap()).unwrap()));
        match (action, &mut self.function) {
            ("CreateFunction", function @ None) => {
                self.code = sha(&params["Code"]["ZipFile"]);
                let mut new = json!({"MemorySize": 128, "Timeout": 3, "Status": "Active"});
                for (name, value) in params.as_object().unwrap() {
                    new[name] = value.clone();
                }
                *function = Some(new);
                ok(json!({}))
            }
            (_, None) => failure("ResourceNotFound.Function", "No such function."),
            ("GetFunction", Some(function)) => ok(function.clone()),
            ("GetFunctionAddress", _) => ok(json!({"CodeSha256": self.code})),
            ("GetAlias", _) => ok(json!({"Name": "$DEFAULT", "FunctionVersion": "$LATEST"})),
            ("UpdateFunctionCode", Some(function)) => {
                self.code = sha(&params["ZipFile"]);
                if let Some(handler) = params.get("Handler") {
                    function["Handler"] = handler.clone();
                }
                ok(json!({}))
            }
            ("UpdateFunctionConfiguration", Some(function)) => {
                for (name, value) in params.as_object().unwrap() {
                    function[name] = value.clone();
                }
                ok(json!({}))
            }
            ("Invoke", _) => match params["ClientContext"].as_str().unwrap() {
                "{}" => ok(json!({"Result": {"RetMsg": "{\"b\":1.0,\"a\":2}", "Log": "printed\n", "InvokeResult": 0}})),
                _ => {
                    let error = r#"{"errorMessage":"boom","stackTrace":"Traceback","statusCode":430}"#;
                    ok(json!({"Result": {"RetMsg": error, "ErrMsg": error, "InvokeResult": -1}}))
                }
            },
            (other, _) => failure("InvalidAction", other),
        }
    }
}

fn start() -> Server {
    let state = Arc::new(Mutex::new(State::default()));
    Server::start(move |action, params| state.lock().unwrap().answer(action, params))
}

fn mayfly(server: &Server, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mayfly"))
        .args(args)
        .env_clear()
        .env("MAYFLY_ENDPOINT", format!("http://{}", server.authority))
        .env("MAYFLY_SECRET_ID", SECRET_ID)
        .env("MAYFLY_SECRET_KEY", SECRET_KEY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone by now.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_folder_is_deployed_and_only_what_differs_is_sent() {
    let server = start();
    let dir = tempfile::tempdir().unwrap();
    let code = dir.path().join("words");
    fs::create_dir(&code).unwrap();
    fs::write(code.join("index.py"), "def main_handler(event, context):\n    return 1\n").unwrap();
    let path = code.to_str().unwrap();
    let deploy = |args: &[&str]| {
        let output = mayfly(&server, &[&["deploy", path], args].concat(), "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mut actions = server.take();
        // Reading changes nothing.
        actions.retain(|(action, _)| !action.starts_with("Get"));
        (output, actions)
    };

    let (output, actions) = deploy(&[]);
    assert_eq!(actions.len(), 1);
    let (action, request) = &actions[0];
    assert_eq!((action.as_str(), &request["FunctionName"]), ("CreateFunction", &json!("words")));
    assert_eq!((&request["Runtime"], &request["Handler"]), (&json!("Python3"), &json!("index.main_handler")));
    assert!(
        text(&output.stderr).contains("runtime Python3, handler index.main_handler (index.py defines `main_handler`)")
    );
    assert!(text(&output.stderr).contains("try: mayfly invoke words -d '{\"key\": \"value\"}'"));
    assert!(text(&output.stdout).contains("action           created\n"), "{}", text(&output.stdout));

    let (output, actions) = deploy(&["-o", "json"]);
    assert!(actions.is_empty(), "{actions:?}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["Action"], &result["PublishedVersion"]), (&json!("unchanged"), &Value::Null));
    assert_eq!(result["Function"]["FunctionName"], "words");
    assert!(output.stderr.is_empty());

    let (_, actions) = deploy(&["--memory", "256", "--env", "A1=x"]);
    assert_eq!(actions.len(), 1);
    let (action, request) = &actions[0];
    assert_eq!(action, "UpdateFunctionConfiguration");
    let variables = json!({"Variables": [{"Key": "A1", "Value": "x"}]});
    let expected =
        json!({"FunctionName": "words", "Namespace": "default", "MemorySize": 256, "Environment": variables});
    assert_eq!(request, &expected);

    fs::write(code.join("mayfly.yml"), "memory: 128\nhandler: index.handler\n").unwrap();
    fs::write(code.join("index.py"), "def handler(event, context):\n    return 2\n").unwrap();
    let (output, actions) = deploy(&[]);
    let names: Vec<_> = actions.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(names, ["UpdateFunctionCode", "UpdateFunctionConfiguration"]);
    assert_eq!(actions[0].1["Handler"], "index.handler");
    assert!(text(&output.stdout).contains("updated (Code, Handler, MemorySize)"), "{}", text(&output.stdout));

    let output = mayfly(&server, &["deploy", path, "--runtime", "Nodejs", "--handler", "x.y"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("\nerror: the function `words` has the runtime Python3"));
    fs::write(code.join("mayfly.yml"), "memory: 128\nhandlr: x\n").unwrap();
    let output = mayfly(&server, &["deploy", path], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("error: mayfly.yml line 2 (`handlr: x`): unknown field"));
}

#[test]
fn results_go_to_standard_output_and_exit_codes_tell_what_happened() {
    let server = start();
    let output = mayfly(&server, &["invoke", "words"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr)
            .starts_with("error: ResourceNotFound.Function: No such function (request r-error)\nhint: ")
    );

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.py"), "def handler(event, context): 1\n").unwrap();
    let path = dir.path().to_str().unwrap();
    assert!(mayfly(&server, &["deploy", path, "--name", "words", "-q"], "").status.success());
    server.take();

    let output = mayfly(&server, &["invoke", "words", "--log"], "");
    assert_eq!(output.status.code(), Some(0));
    // Not a terminal: the text as it came.
    assert_eq!(text(&output.stdout), "{\"b\":1.0,\"a\":2}\n");
    assert_eq!(text(&output.stderr), "printed\n");
    let (_, request) = &server.take()[0];
    assert_eq!((&request["Qualifier"], &request["LogType"]), (&json!("$DEFAULT"), &json!("Tail")));

    let output = mayfly(&server, &["invoke", "words", "-d", "-"], "[1]");
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(text(&output.stderr).starts_with("error: the function failed (430): boom\nTraceback\nhint: "));
    assert_eq!(server.take()[0].1["ClientContext"], "[1]");

    let output = mayfly(&server, &["invoke", "words", "-d", "{x"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(server.take().is_empty());
    assert_eq!(mayfly(&server, &["nonsense"], "").status.code(), Some(1));
    assert_eq!(mayfly(&server, &["--help"], "").status.code(), Some(0));
    let output = mayfly(&server, &["rm", "words"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--yes"));

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = mayfly(&server, &["ls", "--endpoint", &format!("http://{free}")], "");
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stderr).contains("hint: is the platform running? start it with `mayfly up`"));
}
