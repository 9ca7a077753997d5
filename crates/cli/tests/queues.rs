//! Message queues of whole platforms: what was acknowledged survives `kill -9`, and abuse does no harm.

use bytes::Bytes;
use mayfly_sign::{Style, V1Method, V1Request, sign_v1};
use mayfly_testkit::{Platform, SECRET_ID, SECRET_KEY, Setup, can_sandbox, eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn start(data: &std::path::Path) -> Platform {
    Setup::new(env!("CARGO_BIN_EXE_mayfly")).data(data).start()
}

/// As [`eventually`], for what takes many runs of a function: two minutes.
fn in_time(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client of CMQ's API.
struct Cmq {
    address: String,
    agent: ureq::Agent,
    nonce: AtomicU64,
}

impl Cmq {
    fn new(address: &str) -> Self {
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().http_status_as_error(false).build());
        let nonce = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 >> 1;
        Self { address: address.to_owned(), agent, nonce: AtomicU64::new(nonce) }
    }

    fn form(&self, action: &str, fields: &[(&str, &str)]) -> String {
        let fields: Vec<(String, String)> = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        sign_v1(&V1Request {
            method: V1Method::Post,
            secret_id: SECRET_ID,
            secret_key: SECRET_KEY,
            token: None,
            host: &self.address,
            path: "/v2/index.php",
            action,
            version: "",
            region: None,
            timestamp_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
            nonce: self.nonce.fetch_add(1, Ordering::Relaxed),
            style: Style::HmacSha1,
            fields: &fields,
        })
        .unwrap()
    }

    fn send(&self, body: &[u8]) -> Result<Value, String> {
        let url = format!("http://{}/v2/index.php", self.address);
        let mut answer = self.agent.post(url).send(body).map_err(|e| e.to_string())?;
        let text = answer.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|e| e.to_string())?;
        serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))
    }

    /// Calls an action of a platform that may be gone.
    fn try_call(&self, action: &str, fields: &[(&str, &str)]) -> Result<Value, String> {
        self.send(self.form(action, fields).as_bytes())
    }

    fn call(&self, action: &str, fields: &[(&str, &str)]) -> Value {
        self.try_call(action, fields).unwrap_or_else(|why| panic!("{action}: {why}"))
    }

    fn must(&self, action: &str, fields: &[(&str, &str)]) -> Value {
        let answer = self.call(action, fields);
        assert_eq!(answer["code"], 0, "{action}: {answer}");
        answer
    }
}

#[test]
fn what_was_acknowledged_survives_being_killed() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    // Acknowledged sends by text; deletes that were acknowledged, and those that may have happened.
    let (sent, gone, perhaps) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..4 {
        let platform = start(data.path());
        let address = platform.queues().to_owned();
        let cmq = Cmq::new(&address);
        if round == 0 {
            for queue in ["work", "copy"] {
                cmq.must("CreateQueue", &[("queueName", queue), ("visibilityTimeout", "1")]);
            }
            cmq.must("CreateTopic", &[("topicName", "news")]);
            let form = [("topicName", "news"), ("subscriptionName", "s"), ("protocol", "queue"), ("endpoint", "copy")];
            cmq.must("Subscribe", &form);
        }
        let stop = AtomicBool::new(false);
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for sender in 0..4 {
                let (cmq, sent, stop, done) = (Cmq::new(&address), &sent, &stop, &done);
                scope.spawn(move || {
                    for i in 0.. {
                        let text = format!("{round}-{sender}-{i}");
                        let answer = match i % 2 {
                            0 => cmq.try_call("SendMessage", &[("queueName", "work"), ("msgBody", &text)]),
                            _ => cmq.try_call("PublishMessage", &[("topicName", "news"), ("msgBody", &text)]),
                        };
                        match answer {
                            Ok(answer) if answer["code"] == 0 => sent.lock().unwrap().insert(text),
                            _ if stop.load(Ordering::Acquire) => return,
                            other => panic!("{other:?}"),
                        };
                        done.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
            for _ in 0..2 {
                let (cmq, gone, perhaps, stop) = (Cmq::new(&address), &gone, &perhaps, &stop);
                scope.spawn(move || {
                    loop {
                        let fields = [("queueName", "work"), ("pollingWaitSeconds", "1")];
                        let got = match cmq.try_call("ReceiveMessage", &fields) {
                            Ok(got) if got["code"] == 0 => got,
                            Ok(got) if got["code"] == 7000 => continue,
                            _ if stop.load(Ordering::Acquire) => return,
                            other => panic!("{other:?}"),
                        };
                        let text = got["msgBody"].as_str().unwrap().to_owned();
                        perhaps.lock().unwrap().insert(text.clone());
                        let handle = got["receiptHandle"].as_str().unwrap();
                        match cmq.try_call("DeleteMessage", &[("queueName", "work"), ("receiptHandle", handle)]) {
                            // Received again meanwhile: the machine is busy.
                            Ok(answer) if answer["code"] == 0 || answer["code"] == 4430 => {
                                if answer["code"] == 0 {
                                    gone.lock().unwrap().insert(text);
                                }
                            }
                            _ if stop.load(Ordering::Acquire) => return,
                            other => panic!("{other:?}"),
                        }
                    }
                });
            }
            eventually("sends are acknowledged", || done.load(Ordering::Acquire) >= 60);
            stop.store(true, Ordering::Release);
            platform.kill();
        });
    }
    let platform = start(data.path());
    let cmq = Cmq::new(platform.queues());
    let mut left = BTreeSet::new();
    for queue in ["work", "copy"] {
        loop {
            let got = cmq
                .call("BatchReceiveMessage", &[("queueName", queue), ("numOfMsg", "16"), ("pollingWaitSeconds", "3")]);
            if got["code"] == 7000 {
                break;
            }
            assert_eq!(got["code"], 0, "{got}");
            for message in got["msgInfoList"].as_array().unwrap() {
                let text = message["msgBody"].as_str().unwrap().to_owned();
                *counts.entry(text.clone()).or_default() += 1;
                let handle = message["receiptHandle"].as_str().unwrap();
                cmq.call("DeleteMessage", &[("queueName", queue), ("receiptHandle", handle)]);
                left.insert(text);
            }
        }
    }
    let (sent, gone, perhaps) = (sent.into_inner().unwrap(), gone.into_inner().unwrap(), perhaps.into_inner().unwrap());
    assert!(sent.len() >= 240, "{}", sent.len());
    let lost: Vec<_> = sent.iter().filter(|t| !left.contains(*t) && !perhaps.contains(*t)).collect();
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    let back: Vec<_> = gone.iter().filter(|t| left.contains(*t)).collect();
    assert!(back.is_empty(), "deletes that were acknowledged came undone: {back:?}");
    assert_eq!(platform.stop(), Some(0));
}

#[test]
fn abuse_is_refused_and_metrics_tell() {
    if !can_sandbox() {
        return;
    }
    let platform = Setup::new(env!("CARGO_BIN_EXE_mayfly")).start();
    let cmq = Cmq::new(platform.queues());
    cmq.must("CreateQueue", &[("queueName", "q")]);
    let form = cmq.form("SendMessage", &[("queueName", "q"), ("msgBody", "once")]);
    assert_eq!(cmq.send(form.as_bytes()).unwrap()["code"], 0);
    let replayed = cmq.send(form.as_bytes()).unwrap();
    assert_eq!(replayed["code"], 4100, "a request is good once: {replayed}");
    let changed =
        cmq.form("SendMessage", &[("queueName", "q"), ("msgBody", "one")]).replace("msgBody=one", "msgBody=two");
    assert_eq!(cmq.send(changed.as_bytes()).unwrap()["code"], 4100);
    for bad in [&b"\xff\xff%%%"[..], b"SecretId=AKIDtestkit", b"Signature=x&SecretId=AKIDtestkit&Timestamp=1&Nonce=1"] {
        assert!(matches!(cmq.send(bad).unwrap()["code"].as_u64(), Some(4000 | 4100)));
    }
    let large = "x".repeat(1 << 20);
    let over = cmq.call("SendMessage", &[("queueName", "q"), ("msgBody", &large)]);
    assert_eq!(over["code"], 4400, "{over}");
    for (handle, code) in [("", 4000), ("x", 4430), ("1-1", 4430), (&large[..5000], 4430)] {
        let answer = cmq.call("DeleteMessage", &[("queueName", "q"), ("receiptHandle", handle)]);
        assert_eq!(answer["code"], code, "{answer}");
    }
    // More wait than may: some are told so at once, and the platform goes on.
    std::thread::scope(|scope| {
        let polls: Vec<_> = (0..64)
            .map(|_| {
                let cmq = &cmq;
                scope.spawn(move || {
                    cmq.call("ReceiveMessage", &[("queueName", "q"), ("pollingWaitSeconds", "1")])["code"].clone()
                })
            })
            .collect();
        let answers: Vec<Value> = polls.into_iter().map(|p| p.join().unwrap()).collect();
        assert_eq!(answers.iter().filter(|a| **a == 0).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|a| **a == 7000).count(), 63, "{answers:?}");
    });
    let (status, text) = platform.get("/metrics");
    assert_eq!(status, 200);
    for line in [
        "mayfly_queue_messages{queue=\"q\",state=\"in_flight\"} 1",
        "mayfly_queue_sent_total{queue=\"q\"} 1",
        "mayfly_queue_received_total{queue=\"q\"} 1",
    ] {
        assert!(text.contains(line), "{line}");
    }
    // The API's own address answers for the queues, signed for either service.
    let body = Bytes::from(json!({"QueueName": "q"}).to_string());
    let headers = mayfly_sign::sign_tc3(&mayfly_sign::Tc3Request {
        secret_id: SECRET_ID,
        secret_key: SECRET_KEY,
        token: None,
        host: &platform.address,
        service: "tdmq",
        action: "DescribeCmqQueueDetail",
        version: "2020-02-17",
        region: None,
        timestamp_s: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
        query: None,
        content_type: "application/json",
        body: &body,
    })
    .unwrap();
    let mut request = ureq::post(format!("http://{}/", platform.address));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let text = request.send(&body[..]).unwrap().body_mut().read_to_string().unwrap();
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["Response"]["QueueDescribe"]["InactiveMsgNum"], 1, "{answer}");
    assert_eq!(platform.stop(), Some(0));
}

const TAKES: &str = "def main_handler(e, c):\n    cmq = e['Records'][0]['CMQ']\n    assert cmq['type'] == 'topic' and cmq['topicName'] == 'news' and cmq['subscriptionName'] == 'news', e\n    assert cmq['topicOwner'] == '1250000000' and cmq['publishTime'].endswith('Z') and cmq['requestId'], e\n    return cmq['msgBody'] + ' ' + cmq['msgId'] + ' ' + ','.join(cmq['msgTag'])\n";

/// What the runs of a function returned, with how often each did.
fn returned(platform: &Platform, function: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for offset in (0..).step_by(100) {
        let request = json!({ "FunctionName": function, "Limit": 100, "Offset": offset });
        let page = platform.must("GetFunctionLogs", request)["Data"].as_array().unwrap().clone();
        for record in &page {
            let text: Option<String> = serde_json::from_str(record["RetMsg"].as_str().unwrap()).ok();
            *found.entry(text.unwrap_or_else(|| record.to_string())).or_insert(0) += 1;
        }
        if page.len() < 100 {
            return found;
        }
    }
    found
}

#[test]
fn functions_get_what_is_published_and_a_kill_loses_nothing() {
    if !can_sandbox() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let mut platform = start(data.path());
    let mut cmq = Cmq::new(platform.queues());
    cmq.must("CreateTopic", &[("topicName", "news")]);
    for (function, desc) in [("all", json!({})), ("red", json!({ "filterType": 1, "filterKey": ["red"] }))] {
        platform.create(function, "Python3.9", "index.main_handler", &[("index.py", TAKES)], json!({ "Timeout": 60 }));
        let trigger = json!({ "FunctionName": function, "TriggerName": "news", "Type": "cmq", "TriggerDesc": desc.to_string(), "Enable": "OPEN" });
        platform.must("CreateTrigger", trigger);
    }
    assert_eq!(cmq.call("DeleteTopic", &[("topicName", "news")])["code"], 4000, "it has triggers");
    // Published and acknowledged: the texts that a function returns for them.
    let (mut all, mut red) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..4 {
        for i in 0..10 {
            let (text, tag) = (format!("{round}-{i}"), if i % 2 == 0 { "red" } else { "blue" });
            let fields = [("topicName", "news"), ("msgBody", &*text), ("msgTag.1", tag), ("msgTag.2", "x")];
            let id = cmq.must("PublishMessage", &fields)["msgId"].as_str().unwrap().to_owned();
            let line = format!("{text} {id} {tag},x");
            if tag == "red" {
                red.insert(line.clone());
            }
            all.insert(line);
        }
        if round < 3 {
            // Right behind the last acknowledgement.
            platform.kill();
            platform = start(data.path());
            cmq = Cmq::new(platform.queues());
        }
    }
    for (function, wanted) in [("all", &all), ("red", &red)] {
        let mut runs = BTreeMap::new();
        in_time("every message has run", || {
            runs = returned(&platform, function);
            wanted.iter().all(|line| runs.contains_key(line))
        });
        let strangers: Vec<_> = runs.keys().filter(|line| !wanted.contains(*line)).collect();
        assert!(strangers.is_empty(), "{function}: {strangers:?}");
    }
    // A closed trigger gets nothing; with the last one gone, the topic can go.
    let status = |function: &str, enable: &str| json!({ "FunctionName": function, "TriggerName": "news", "Type": "cmq", "Enable": enable });
    platform.must("UpdateTriggerStatus", status("red", "CLOSE"));
    cmq.must("PublishMessage", &[("topicName", "news"), ("msgBody", "late"), ("msgTag.1", "red")]);
    in_time("it runs where the trigger is open", || {
        returned(&platform, "all").keys().any(|line| line.starts_with("late "))
    });
    assert!(!returned(&platform, "red").keys().any(|line| line.starts_with("late ")));
    for function in ["all", "red"] {
        platform.must("DeleteTrigger", json!({ "FunctionName": function, "TriggerName": "news", "Type": "cmq" }));
    }
    cmq.must("DeleteTopic", &[("topicName", "news")]);
    assert_eq!(platform.stop(), Some(0));
}
