//! Buckets on a whole platform: a change calls a function, and a kill between loses nothing.

use mayfly_sign::{CosToSign, sign_cos};
use mayfly_testkit::{Platform, SECRET_ID, SECRET_KEY, Setup, can_sandbox, eventually};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

const BUCKET: &str = "photos-1250000000";
const CODE: &str = "def main_handler(e, c):\n    r = e['Records'][0]\n    return r['event']['eventName'] + ' ' + r['cos']['cosObject']['key']\n";

/// A signed request to the object store; the status of its answer, and all of it.
fn ask(p: &Platform, method: &str, path: &str, body: &str) -> (u16, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let host = p.objects.as_str();
    let authorization = sign_cos(&CosToSign {
        secret_id: SECRET_ID,
        secret_key: SECRET_KEY,
        span_s: (now - 60, now + 600),
        method,
        path,
        params: &[],
        headers: &[("host", host)],
    });
    let mut stream = TcpStream::connect(host).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

/// What the function returned, each once.
fn returned(p: &Platform) -> BTreeSet<String> {
    let page = p.must("GetFunctionLogs", json!({ "FunctionName": "seen", "Limit": 100 }));
    let records = page["Data"].as_array().unwrap();
    records.iter().filter_map(|r| serde_json::from_str(r["RetMsg"].as_str()?).ok()).collect()
}

#[test]
fn changes_of_a_bucket_call_a_function_whatever_is_killed() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let setup = || Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data.path());
    let mut p = setup().start();
    p.create("seen", "Python3.9", "index.main_handler", &[("index.py", CODE)], json!({}));
    let desc = json!({ "event": "cos:ObjectCreated:*", "filter": { "Prefix": "in/", "Suffix": ".jpg" } }).to_string();
    let name = format!("{BUCKET}.cos.ap-guangzhou.myqcloud.com");
    p.must(
        "CreateTrigger",
        json!({ "FunctionName": "seen", "TriggerName": name, "Type": "cos", "TriggerDesc": desc, "Enable": "OPEN" }),
    );
    assert_eq!(ask(&p, "PUT", &format!("/{BUCKET}"), "").0, 200);
    let mut expected = BTreeSet::new();
    for round in 0..3 {
        for n in 0..5 {
            let key = format!("in/{round}-{n}.jpg");
            let (status, answer) = ask(&p, "PUT", &format!("/{BUCKET}/{key}"), "bytes");
            assert_eq!(status, 200, "{answer}");
            assert!(answer.contains("\r\nETag: "), "{answer}");
            expected.insert(format!("cos:ObjectCreated:Put /1250000000/photos/{key}"));
        }
        assert_eq!(ask(&p, "PUT", &format!("/{BUCKET}/out/{round}.jpg"), "bytes").0, 200);
        // Between the last put and its run.
        p.kill();
        p = setup().start();
        let (status, answer) = ask(&p, "GET", &format!("/{BUCKET}/in/{round}-4.jpg"), "");
        assert!(status == 200 && answer.ends_with("bytes"), "{answer}");
    }
    eventually("every change has called the function", || returned(&p).is_superset(&expected));
    assert_eq!(returned(&p), expected, "and no other change has");
    eventually("nothing waits", || p.get("/metrics").1.contains("\nmayfly_objects_outbox 0\n"));
    assert_eq!(ask(&p, "GET", &format!("/{BUCKET}/nothing"), "").0, 404);
}
