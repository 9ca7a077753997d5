//! WebSockets of the API gateway: SCF's three functions behind them, and ends that are told through kills and stops.

#[path = "support/api.rs"]
mod api;

use api::{ask, ask_with, must, release, service};
use mayfly_testkit::{Platform, Setup, can_sandbox, eventually};
use serde_json::json;
use std::net::TcpStream;
use std::time::Duration;
use tungstenite::{Message, WebSocket};

/// The functions of SCF's demonstration: the first word decides whether a visitor comes in; what is sent comes back by return value.
const REGISTER: &str = r#"
def main_handler(event, context):
    if "requestContext" not in event: return {"errNo": 101, "errMsg": "not found request context"}
    if "websocket" not in event: return {"errNo": 102, "errMsg": "not found websocket"}
    if event.get("queryString", {}).get("who") == "evil": return {"errNo": 7, "errMsg": "go away"}
    answer = {"action": "connecting", "secConnectionID": event["websocket"]["secConnectionID"]}
    if "secWebSocketProtocol" in event["websocket"]: answer["secWebSocketProtocol"] = event["websocket"]["secWebSocketProtocol"]
    return {"errNo": 0, "errMsg": "ok", "websocket": answer}
"#;
const TRANSPORT: &str = r#"
def main_handler(event, context):
    ws = event["websocket"]
    data = ws["data"]
    if data == "where": data = ws["secConnectionID"] + " " + event["requestContext"]["pushUrl"]
    return {"websocket": {"action": "data send", "secConnectionID": ws["secConnectionID"], "dataType": ws["dataType"], "data": data}}
"#;
/// Pushes from inside its sandbox, as SCF's demonstrations do.
const PUSHER: &str = r#"
import json, urllib.request
def main_handler(event, context):
    ws = event["websocket"]
    told = {"action": "data send", "secConnectionID": ws["secConnectionID"], "dataType": "text", "data": ws["data"].upper()}
    url = event["requestContext"]["pushUrl"]
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps({"websocket": told}).encode(), method="POST")) as answer:
        print(url, answer.read().decode())
"#;
const CLEANUP: &str = r#"
def main_handler(event, context):
    print("gone", event["websocket"]["action"], event["websocket"]["secConnectionID"])
"#;

type Client = WebSocket<TcpStream>;

fn dial(p: &Platform, path: &str) -> Result<Client, String> {
    let stream = TcpStream::connect(&p.address).expect("the platform listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let request = tungstenite::http::Request::get(format!("ws://{}{path}", p.address))
        .header("host", &p.address)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", tungstenite::handshake::client::generate_key())
        .header("sec-websocket-protocol", "chat, binary")
        .body(())
        .unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
            Ok(socket)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn said(client: &mut Client, message: Message) -> Message {
    client.send(message).expect("the gateway takes it");
    client.read().expect("the gateway answers")
}

/// What the cleanup function has printed.
fn gone(p: &Platform) -> String {
    let now = p.must("GetFunctionLogs", json!({ "FunctionName": "cleanup", "Limit": 100 }));
    now["Data"].as_array().into_iter().flatten().filter_map(|r| r["Log"].as_str()).collect()
}

#[test]
fn functions_hold_websockets_through_the_gateway() {
    if !can_sandbox() {
        return;
    }
    let keep = tempfile::tempdir().unwrap();
    let data = keep.path().join("data");
    let start = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(&data).start();
    let p = start();
    for (name, code) in [("register", REGISTER), ("transport", TRANSPORT), ("cleanup", CLEANUP)] {
        p.create(name, "Python3.9", "index.main_handler", &[("index.py", code)], json!({}));
    }
    let s = service(&p, "chat");
    let made = must(
        &p,
        "CreateApi",
        json!({
            "ServiceId": s, "ServiceType": "SCF", "Protocol": "WEBSOCKET", "ServiceTimeout": 60, "RequestConfig": { "Path": "/ws", "Method": "GET" },
            "ServiceWebsocketRegisterFunctionName": "register", "ServiceWebsocketRegisterFunctionQualifier": "$LATEST",
            "ServiceWebsocketTransportFunctionName": "transport", "ServiceWebsocketTransportFunctionQualifier": "$LATEST",
            "ServiceWebsocketCleanupFunctionName": "cleanup", "ServiceWebsocketCleanupFunctionQualifier": "$LATEST",
        }),
    );
    let id = made["Result"]["ApiId"].as_str().unwrap();
    release(&p, &s);
    let path = format!("/apigw/{s}/release/ws");
    assert_eq!(ask(&p, &path, &[]).status, 426);
    let refused = dial(&p, &format!("{path}?who=evil")).unwrap_err();
    assert!(refused.contains("403"), "{refused}");

    let mut client = dial(&p, &path).expect("it is let in");
    for i in 0..20 {
        client.send(Message::text(i.to_string())).unwrap();
    }
    let heard: Vec<String> = (0..20).map(|_| client.read().unwrap().to_string()).collect();
    assert_eq!(heard, (0..20).map(|i| i.to_string()).collect::<Vec<_>>());
    assert_eq!(said(&mut client, Message::binary(vec![0xff, 0, 1])), Message::binary(vec![0xff, 0, 1]));

    // Functions push to the address that events name, which is the one that the API shows.
    let told = said(&mut client, Message::text("where")).to_string();
    let (connection, url) = told.split_once(' ').unwrap();
    let shown = must(&p, "DescribeApi", json!({ "ServiceId": s, "ApiId": id }))["Result"].clone();
    assert_eq!((&shown["InternalDomain"], &shown["Protocol"]), (&json!(url), &json!("WEBSOCKET")));
    let push = |connection: &str, action: &str| {
        json!({ "websocket": { "action": action, "secConnectionID": connection, "dataType": "text", "data": "pushed" } }).to_string()
    };
    let place = url.split_once(&p.address).unwrap().1;
    assert_eq!(
        ask_with(&p, "POST", place, &[], &push(connection, "data send")).body,
        json!({ "errNo": 0, "errMsg": "ok" })
    );
    assert_eq!(client.read().unwrap().to_string(), "pushed");
    assert_eq!(ask_with(&p, "POST", place, &[], &push("nobody", "data send")).status, 404);
    assert_eq!(ask_with(&p, "POST", &place[..place.len() - 1], &[], &push(connection, "data send")).status, 403);
    assert_eq!(ask_with(&p, "POST", place, &[], &push(connection, "closing")).status, 200);
    assert!(matches!(client.read(), Ok(Message::Close(_))));
    drop(client);
    eventually("the cleanup function hears of it", || gone(&p).contains(&format!("gone closing {connection}")));

    // A function with a role reaches the address that its events name without any network.
    let closed = json!({ "PublicNetConfig": { "PublicNetStatus": "DISABLE", "EipConfig": { "EipStatus": "DISABLE" } }, "Role": "pusher" });
    p.create("pusher", "Python3.9", "index.main_handler", &[("index.py", PUSHER)], closed);
    let api = json!({
        "ServiceId": s, "ServiceType": "SCF", "Protocol": "WEBSOCKET", "ServiceTimeout": 60, "RequestConfig": { "Path": "/inside", "Method": "GET" },
        "ServiceWebsocketRegisterFunctionName": "register", "ServiceWebsocketRegisterFunctionQualifier": "$LATEST",
        "ServiceWebsocketTransportFunctionName": "pusher", "ServiceWebsocketTransportFunctionQualifier": "$LATEST",
    });
    must(&p, "CreateApi", api);
    release(&p, &s);
    let mut pushed = dial(&p, &format!("/apigw/{s}/release/inside")).expect("it is let in");
    assert_eq!(said(&mut pushed, Message::text("loud")), Message::text("LOUD"));
    drop(pushed);

    // The end of a connection that a kill cut is told after the next start, once.
    let mut cut = dial(&p, &path).expect("it is let in");
    let cut_id = said(&mut cut, Message::text("where")).to_string().split(' ').next().unwrap().to_owned();
    p.kill();
    let p = start();
    eventually("the cleanup function hears of it", || gone(&p).contains(&cut_id));
    assert_eq!(gone(&p).matches(&format!("gone closing {cut_id}")).count(), 1);
    let mut client = dial(&p, &path).expect("it is let in");
    assert_eq!(said(&mut client, Message::text("again")), Message::text("again"));
    // A stop tells visitors, and functions.
    let last = said(&mut client, Message::text("where")).to_string().split(' ').next().unwrap().to_owned();
    assert_eq!(p.stop(), Some(0));
    assert!(
        matches!(client.read(), Ok(Message::Close(Some(frame))) if frame.code == tungstenite::protocol::frame::coding::CloseCode::Restart)
    );
    let p = start();
    eventually("the cleanup function hears of it", || gone(&p).contains(&last));
    let (_, metrics) = p.get("/metrics");
    assert!(metrics.contains("mayfly_apigw_websockets 0"), "{metrics}");
}
