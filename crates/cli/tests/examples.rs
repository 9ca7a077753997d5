//! The examples as a reader of their pages uses them: deployed by `mayfly deploy`, then asked.

use mayfly_testkit::{Platform, SECRET_ID, SECRET_KEY, Setup, can_sandbox, eventually};
use serde_json::json;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn platform() -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).start()
}

/// Runs `mayfly ARGUMENTS…` against the platform and returns what it printed.
fn mayfly(p: &Platform, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_mayfly"))
        .args(arguments)
        .env("MAYFLY_ENDPOINT", format!("http://{}", p.address))
        .env("MAYFLY_SECRET_ID", SECRET_ID)
        .env("MAYFLY_SECRET_KEY", SECRET_KEY)
        .env("HOME", &p.data)
        .output()
        .expect("the program runs");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "mayfly {arguments:?}: {out}\n{error}");
    out.into_owned()
}

/// Deploys the example in this folder, whose function has this name.
fn deploy(p: &Platform, folder: &str, name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(folder);
    mayfly(p, &["deploy", folder.to_str().expect("the path is text")]);
    eventually("it is active", || p.must("GetFunction", json!({ "FunctionName": name }))["Status"] == "Active");
}

fn agent() -> ureq::Agent {
    let config =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
    ureq::Agent::new_with_config(config.build())
}

fn get(p: &Platform, path: &str) -> ureq::http::Response<ureq::Body> {
    agent().get(format!("http://{}/fn/default/{path}", p.address)).call().expect("the platform answers")
}

fn text(mut response: ureq::http::Response<ureq::Body>) -> String {
    response.body_mut().read_to_string().expect("a text")
}

#[test]
fn node_web_serves_its_page_its_form_its_clock_and_its_download() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    deploy(&p, "node-web", "node-web");
    let page = get(&p, "node-web/");
    assert_eq!((page.status().as_u16(), page.headers()["content-type"].to_str().unwrap()), (200, "text/html"));
    assert!(text(page).contains("<form method=\"post\" action=\"greet\">"));
    let form = format!("http://{}/fn/default/node-web/greet", p.address);
    let greeted = agent().post(&form).send_form([("who", "Zoë <i>")]).expect("an answer");
    assert_eq!(text(greeted), "<p>Hello, Zoë &#60;i&#62;!</p>\n");
    // Events come while the stream goes on.
    let mut clock = get(&p, "node-web/clock");
    assert_eq!(clock.headers()["content-type"], "text/event-stream");
    let lines = BufReader::new(clock.body_mut().as_reader()).lines().map_while(Result::ok);
    let ticks: Vec<String> = lines.filter(|l| l.starts_with("data: ")).take(2).collect();
    assert!(ticks[0] < ticks[1], "{ticks:?}");
    let mut file = get(&p, "node-web/download");
    assert_eq!(file.headers()["content-disposition"], "attachment; filename=\"zeros\"");
    let (mut reader, mut buffer, mut total) = (file.body_mut().as_reader(), vec![0; 1 << 16], 0);
    loop {
        let n = reader.read(&mut buffer).expect("it goes on");
        if n == 0 {
            break;
        }
        assert!(buffer[..n].iter().all(|b| *b == 0));
        total += n;
    }
    assert_eq!(total, 100 << 20);
    let missing = get(&p, "node-web/nothing");
    assert_eq!((missing.status().as_u16(), text(missing).as_str()), (404, "There is no such page.\n"));
}

#[test]
fn python_page_is_open_and_escapes_what_it_shows() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    deploy(&p, "python-page", "python-page");
    let page = get(&p, "python-page/some/path?who=you&who=me%3Cb%3E");
    assert_eq!((page.status().as_u16(), page.headers()["cache-control"].to_str().unwrap()), (200, "no-store"));
    assert_eq!(text(page), "<h1>Hello, you!</h1><p>You asked for /some/path.</p>\n");
    assert!(text(get(&p, "python-page/?who=%3Cscript%3E")).contains("Hello, &lt;script&gt;!"));
    assert!(text(get(&p, "python-page/")).contains("Hello, stranger!"));
}

#[test]
fn event_functions_answer_what_their_pages_say() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    for (folder, name) in [
        ("python-hello", "python-hello"),
        ("node-hello", "node-hello"),
        ("php-hello", "php-hello"),
        ("python-word-count", "word-count"),
        ("custom-bash", "custom-bash"),
    ] {
        deploy(&p, folder, name);
        let answer = p.invoke(name, &json!({ "name": "Ada", "text": "The fly lives for a day." }));
        assert_eq!(answer.status(), 200, "{name}: {:?}", answer.result);
        let shown = answer.value().to_string();
        let says = match name {
            "word-count" => "fly",
            "custom-bash" => "sha256",
            _ => "Ada",
        };
        assert!(shown.contains(says), "{name}: {shown}");
    }
}

#[test]
fn python_websocket_talks_through_the_gateway() {
    if !can_sandbox() {
        return;
    }
    let p = platform();
    for part in ["register", "transport", "cleanup"] {
        deploy(&p, &format!("python-websocket/{part}"), &format!("ws-{part}"));
    }
    let line = ["api", "socket", "/chat", "--service", "chat", "--register", "ws-register"];
    let printed = mayfly(&p, &[&line[..], &["--transport", "ws-transport", "--cleanup", "ws-cleanup"]].concat());
    let path =
        printed.lines().find_map(|l| l.strip_prefix(&format!("ws://{}", p.address))).expect("its address by path");
    let dial = |path: &str| {
        let stream = std::net::TcpStream::connect(&p.address).expect("the platform listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket takes time-outs");
        tungstenite::client(format!("ws://{}{path}", p.address), stream).map_err(|e| e.to_string())
    };
    assert!(dial(&format!("{path}?name=nobody")).unwrap_err().contains("403"));
    let (mut socket, _) = dial(path).expect("it is let in");
    socket.send(tungstenite::Message::text("hello")).expect("the gateway takes it");
    assert_eq!(socket.read().expect("an answer").to_string(), "you said: hello");
    socket.send(tungstenite::Message::text("bye")).expect("the gateway takes it");
    assert!(matches!(socket.read(), Ok(tungstenite::Message::Close(_))));
    drop(socket);
    eventually("the cleanup function has heard of it", || {
        let logs = p.must("GetFunctionLogs", json!({ "FunctionName": "ws-cleanup" }));
        logs["Data"].to_string().contains("went: ")
    });
    let listed = mayfly(&p, &["api", "ls", "chat"]);
    assert!(listed.contains("/chat") && listed.contains("WEBSOCKET"), "{listed}");
    mayfly(&p, &["api", "rm", "chat", "--service"]);
}
