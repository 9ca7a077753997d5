//! The platform as functions reach it from inside: what a role gives and what it does not, whose keys count, floods, and chains of functions
//! that call each other.

use mayfly_sign::{CosToSign, sign_cos};
use mayfly_testkit::{Platform, SECRET_ID, SECRET_KEY, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

const CODE: &str = include_str!("support/inside.py");

fn start(arguments: &[&str]) -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).arguments(arguments).start()
}

/// A function without access to the outside. `role`: empty for none.
fn create(p: &Platform, name: &str, role: &str) {
    let more = json!({
        "Role": role, "Timeout": 60, "MemorySize": 128,
        "PublicNetConfig": { "PublicNetStatus": "DISABLE", "EipConfig": { "EipStatus": "DISABLE" } },
    });
    p.create(name, "Python3.9", "index.main_handler", &[("index.py", CODE)], more);
}

/// What a function returns.
fn call(p: &Platform, name: &str, event: Value) -> Value {
    let done = p.invoke(name, &event);
    assert_eq!(done.status(), 200, "{}\n{}", done.value(), done.log());
    done.value()
}

/// Asks the object store from outside.
fn ask(p: &Platform, method: &str, path: &str, keys: [&str; 3]) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let host = p.objects.as_str();
    let authorization = sign_cos(&CosToSign {
        secret_id: keys[0],
        secret_key: keys[1],
        span_s: (now - 60, now + 600),
        method,
        path,
        params: &[],
        headers: &[("host", host)],
    });
    let token = match keys[2] {
        "" => String::new(),
        token => format!("x-cos-security-token: {token}\r\n"),
    };
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap_or("")).collect()
}

#[test]
fn a_role_reaches_the_stores_and_what_it_may_of_the_api() {
    if !can_sandbox() {
        return;
    }
    let p = start(&[]);
    create(&p, "inside", "reader");
    create(&p, "neighbour", "reader");
    create(&p, "nobody", "");
    let tour = call(&p, "inside", json!({"do": "tour"}));
    assert_eq!(tour["puts"], json!([200, 200, [200, "hello"]]), "{tour}");
    assert_eq!(tour["load"], "404 NoSuchBucket", "{tour}");
    assert_eq!(tour["list"], json!(["inside", "neighbour", "nobody"]));
    assert_eq!((&tour["queue"], &tour["big"]), (&json!([0, 0, "m"]), &json!(200)));
    assert_eq!(tour["delete"]["Error"]["Code"], "UnauthorizedOperation.CAM");
    assert!(tour["delete"]["Error"]["Message"].as_str().unwrap().contains("`reader` may not do `DeleteFunction`"));
    // Each service's own words for keys that are not right.
    let wrong = call(&p, "inside", json!({"do": "wrong"}));
    assert_eq!(wrong["token"], json!(["403 InvalidToken", "AuthFailure.TokenFailure", 4100]), "{wrong}");
    assert_eq!(wrong["key"], json!(["403 SignatureDoesNotMatch", "AuthFailure.SignatureFailure", 4100]), "{wrong}");
    assert_eq!(wrong["id"][0], "403 InvalidAccessKeyId");
    assert_eq!(wrong["id"][1], "AuthFailure.SecretIdNotFound");
    // Without a role: no keys, and nobody listens.
    assert_eq!(call(&p, "nobody", json!({"do": "reach"})), "ConnectionRefusedError ,,");

    // Keys count where they belong, and outside; they are shown nowhere, and end with their function.
    let keys = call(&p, "inside", json!({"do": "keys"}));
    let (keys, again) = (words(&keys), call(&p, "inside", json!({"do": "keys"})));
    assert_eq!(keys, words(&again), "an instance keeps its keys");
    let at_home = call(&p, "inside", json!({"do": "use", "keys": keys}));
    assert_eq!(at_home, json!(["200 ", "OK", 0]));
    let at_neighbour = call(&p, "neighbour", json!({"do": "use", "keys": keys}));
    assert_eq!(words(&at_neighbour)[..2], ["403 InvalidAccessKeyId", "AuthFailure.SecretIdNotFound"]);
    assert_ne!(at_neighbour[2], 0);
    let root = call(&p, "neighbour", json!({"do": "use", "keys": [SECRET_ID, SECRET_KEY, ""]}));
    assert_eq!(root, json!(["200 ", "OK", 0]), "the root keys are good everywhere");
    let outside = |keys: &[&str]| ask(&p, "GET", "/tour-1250000000/a", [keys[0], keys[1], keys[2]]);
    assert!(outside(&keys).ends_with("hello"), "{}", outside(&keys));
    let shown = p.must("GetFunction", json!({"FunctionName": "inside", "ShowCode": "TRUE"})).to_string();
    assert!(shown.contains("reader") && !shown.contains(keys[0]) && !shown.contains(keys[1]));
    p.must("DeleteFunction", json!({"FunctionName": "inside"}));
    assert!(outside(&keys).contains("InvalidAccessKeyId"), "{}", outside(&keys));
    // Another role is another instance, with other keys.
    let before = call(&p, "neighbour", json!({"do": "keys"}));
    p.must("UpdateFunctionConfiguration", json!({"FunctionName": "neighbour", "Role": "writer"}));
    let after = call(&p, "neighbour", json!({"do": "keys"}));
    assert_ne!(before, after);
    eventually("keys of the old role are no more", || outside(&words(&before)).contains("InvalidAccessKeyId"));
    p.must("UpdateFunctionConfiguration", json!({"FunctionName": "neighbour", "Role": ""}));
    assert_eq!(call(&p, "neighbour", json!({"do": "keys"})), json!(["", "", ""]));
}

#[test]
fn every_kind_of_function_has_its_roles_keys() {
    if !can_sandbox() {
        return;
    }
    let p = start(&[]);
    let node = "const http = require('http');\nexports.main_handler = () => new Promise((done, fail) =>\n  http.get(`http://no-1250000000.${process.env.COS_ENDPOINT}/x`, r => done([r.statusCode, process.env.AWS_ACCESS_KEY_ID === process.env.TENCENTCLOUD_SECRETID])).on('error', fail));\n";
    p.create("node", "Nodejs18.15", "index.main_handler", &[("index.js", node)], json!({"Role": "r"}));
    assert_eq!(call(&p, "node", json!({})), json!([403, true]));
    let custom = "#!/usr/bin/python3\nimport index, json, urllib.request as u\nbase = 'http://127.0.0.1:28902/runtime/invocation/'\nwhile True:\n    event = json.load(u.urlopen(base + 'next'))\n    u.urlopen(base + 'response', json.dumps(index.main_handler(event, None)).encode())\n";
    let files = [("bootstrap", custom), ("index.py", CODE)];
    p.create("custom", "CustomRuntime", "", &files, json!({"Role": "r", "Timeout": 60}));
    assert_eq!(call(&p, "custom", json!({"do": "tour"}))["puts"][2], json!([200, "hello"]));
    let server = "#!/bin/bash\nexec /usr/bin/python3 server.py\n";
    let code = "import http.server, index, json\nclass H(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        body = json.dumps(index.cos('GET', 'tour-1250000000', 'a')).encode()\n        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)\nhttp.server.ThreadingHTTPServer(('0.0.0.0', 9000), H).serve_forever()\n";
    let files = [("scf_bootstrap", server), ("server.py", code), ("index.py", CODE)];
    p.create("service", "Python3.9", "", &files, json!({"Role": "r", "Type": "HTTP", "Timeout": 60}));
    open_url(&p, "service");
    assert_eq!(p.get("/fn/default/service/"), (200, r#"[200, "hello"]"#.to_owned()));
}

fn open_url(p: &Platform, function: &str) {
    let desc = json!({"AuthType": "NONE", "NetConfig": {"EnableIntranet": true, "EnableExtranet": true}}).to_string();
    p.must(
        "CreateTrigger",
        json!({"FunctionName": function, "TriggerName": "url", "Type": "http", "TriggerDesc": desc, "Qualifier": "$DEFAULT"}),
    );
}

#[test]
fn a_flood_from_inside_is_its_own_affair() {
    if !can_sandbox() {
        return;
    }
    let p = start(&[]);
    create(&p, "hostile", "r");
    create(&p, "neighbour", "r");
    call(&p, "neighbour", json!({"do": "tour"}));
    std::thread::scope(|scope| {
        // 10,000 connections, each with the beginning of a large body behind it.
        let flood = scope.spawn(|| call(&p, "hostile", json!({"do": "flood", "processes": 20, "each": 500})));
        let mut looks = 0;
        while looks < 3 || !flood.is_finished() {
            let mine =
                call(&p, "neighbour", json!({"do": "use", "keys": call(&p, "neighbour", json!({"do": "keys"}))}));
            assert_eq!(mine, json!(["200 ", "OK", 0]));
            assert_eq!(p.get("/healthz").0, 200);
            looks += 1;
        }
        let flood = flood.join().unwrap();
        assert!(flood["served"].as_u64().unwrap() <= 20 * 128, "{flood}");
        assert!(flood["refused"].as_u64().unwrap() >= 1000, "{flood}");
        assert!(flood["head"].as_u64().unwrap() < 64 << 20, "a head without end is cut off: {flood}");
    });
    assert_eq!(call(&p, "hostile", json!({"do": "use", "keys": call(&p, "hostile", json!({"do": "keys"}))}))[1], "OK");
}

fn failures(p: &Platform, function: &str) -> Vec<Value> {
    let page = p.must("ListFailures", json!({"Filter": {"FunctionName": function}, "Limit": 100}));
    page["Failures"].as_array().cloned().unwrap_or_default()
}

fn records(p: &Platform, function: &str) -> Vec<Value> {
    let page = p.must("GetFunctionLogs", json!({"FunctionName": function, "Limit": 100}));
    page["Data"].as_array().cloned().unwrap_or_default()
}

#[test]
fn chains_of_calls_end() {
    if !can_sandbox() {
        return;
    }
    let p = start(&["--call-depth-max", "3"]);
    for name in ["sync", "async", "bucket", "topic", "url", "alone"] {
        create(&p, name, "r");
    }
    // A call that waits for one of its own kind.
    let sync = call(&p, "sync", json!({"do": "again"}));
    assert_eq!(sync[0], "LimitExceeded.CallDepth", "{sync}");
    assert!(sync[1].as_str().unwrap().contains("at most 3 may be"), "{sync}");
    eventually("four have run, and say who called them", || {
        let found = records(&p, "sync");
        found.len() == 4 && found.iter().filter(|r| r["Log"].as_str().unwrap().contains("CalledBy:")).count() == 3
    });
    // With room for one instance only, that is refused rather than waited for.
    p.must("PutReservedConcurrencyConfig", json!({"FunctionName": "alone", "ReservedConcurrencyMem": 128}));
    let alone = call(&p, "alone", json!({"do": "again"}));
    assert_eq!(alone["statusCode"], 432, "{alone}");

    // Events: what is too deep ends as a failure that is kept, and can be run again.
    let event = json!({"do": "later"}).to_string();
    p.must("Invoke", json!({"FunctionName": "async", "InvocationType": "Event", "ClientContext": event}));
    eventually("the chain of events has ended as a failure", || failures(&p, "async").len() == 1);
    let failure = failures(&p, "async").remove(0);
    assert_eq!(failure["StatusCode"], 508, "{failure}");
    // The last of them may end after what it called.
    let ran = |function: &str| records(&p, function).iter().filter(|r| r["RetCode"] == 0).count();
    eventually("four events have run", || ran("async") == 4);
    p.must("ReplayFailures", json!({"Filter": {"FunctionName": "async"}}));
    eventually("a replay is a new beginning", || failures(&p, "async").len() == 2 && ran("async") == 8);

    // By way of a bucket and of a topic that call the function.
    call(&p, "sync", json!({"do": "tour"}));
    let desc = json!({"event": "cos:ObjectCreated:*", "filter": {"Prefix": "in/", "Suffix": ""}}).to_string();
    let name = "tour-1250000000.cos.ap-guangzhou.myqcloud.com";
    let trigger = json!({"FunctionName": "bucket", "TriggerName": name, "Type": "cos", "TriggerDesc": desc});
    p.must("CreateTrigger", trigger);
    let put = ask(&p, "PUT", "/tour-1250000000/in/first", [SECRET_ID, SECRET_KEY, ""]);
    assert!(put.starts_with("HTTP/1.1 200"), "{put}");
    eventually("the loop through the bucket has ended", || failures(&p, "bucket").len() == 1);
    assert_eq!(failures(&p, "bucket")[0]["StatusCode"], 508);
    eventually("four changes have called it", || ran("bucket") == 4);
    let publish = |do_: &str, more: Value| call(&p, "sync", json!({"do": "run_cmq", "action": do_, "fields": more}));
    assert_eq!(publish("CreateTopic", json!({"topicName": "loop"})), 0);
    p.must(
        "CreateTrigger",
        json!({"FunctionName": "topic", "TriggerName": "loop", "Type": "cmq", "TriggerDesc": "{}"}),
    );
    assert_eq!(publish("PublishMessage", json!({"topicName": "loop", "msgBody": "m"})), 0);
    eventually("the loop through the topic has ended", || failures(&p, "topic").len() == 1);
    // This chain began inside a function.
    eventually("three messages have called it", || ran("topic") == 3);

    // By way of the function's own URL.
    open_url(&p, "url");
    let url = call(&p, "url", json!({"do": "visit"}));
    assert_eq!(url[0], 508, "{url}");
    let metrics = p.get("/metrics").1;
    assert!(metrics.contains("\nmayfly_chains_ended 6\n"), "{metrics}");
}

#[test]
fn a_kill_leaves_no_keys() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let setup = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path());
    let p = setup().start();
    create(&p, "inside", "r");
    call(&p, "inside", json!({"do": "tour"}));
    let keys = call(&p, "inside", json!({"do": "keys"}));
    let keys = words(&keys);
    let outside = |p: &Platform| ask(p, "GET", "/tour-1250000000/a", [keys[0], keys[1], keys[2]]);
    assert!(outside(&p).ends_with("hello"));
    p.kill();
    let p = setup().start();
    assert!(outside(&p).contains("InvalidAccessKeyId"));
    assert_eq!(call(&p, "inside", json!({"do": "use", "keys": keys}))[1], "AuthFailure.SecretIdNotFound");
    assert_eq!(call(&p, "inside", json!({"do": "tour"}))["puts"][2], json!([200, "hello"]));
    for entry in std::fs::read_dir(data.path()).unwrap().flatten().filter(|e| e.path().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        let found = bytes.windows(keys[1].len()).any(|part| part == keys[1].as_bytes());
        // What the function itself returned is in its record, under `logs/`.
        assert!(!found, "{} holds a secret", entry.path().display());
    }
}
