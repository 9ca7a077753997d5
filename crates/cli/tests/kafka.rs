//! Kafka triggers on a whole platform, against real brokers: Apache Kafka, and tansu.

#[path = "support/outside.rs"]
mod outside;
#[path = "support/stage.rs"]
mod stage;

use mayfly_testkit::can_sandbox;
use mayfly_testkit::kafka::{Broker, PASSWORD, USER};
use outside::Verdict;
use serde_json::{Value, json};
use stage::{Stage, cluster, is, mayfly, printed, trigger, wait};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A broker that no test kills, unless it is missing or sandboxes cannot be made.
fn broker() -> Option<Arc<Broker>> {
    can_sandbox().then(Broker::shared)?
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Sends `what-0`, `what-1` … to partitions in turn.
fn send(broker: &Broker, topic: &str, partitions: i32, what: &str, count: usize) {
    let mut sender = broker.sender();
    for n in 0..count {
        sender.send(topic, n as i32 % partitions, Some(b"key"), format!("{what}-{n}").as_bytes());
    }
    sender.flush();
}

#[test]
fn messages_come_in_scfs_form() {
    let Some(broker) = broker() else { return };
    broker.create_topic("form", 2);
    let stage = Stage::of(&broker);
    let p = stage.start();
    let echo = "def main_handler(event, context):\n    return event\n";
    p.create("echo", "Python3.9", "index.main_handler", &[("index.py", echo)], json!({}));
    p.must("CreateTrigger", trigger("echo", "form", json!({ "maxMsgNum": 10, "offset": "earliest", "timeOut": 1 })));
    let mut sender = broker.sender();
    sender.send("form", 1, Some(b"k1"), "Grüße \"from\"\nKafka".as_bytes());
    sender.send("form", 1, None, b"{\"json\": true}");
    sender.send("form", 1, Some(b"k3"), &[0xff, 0x00, 0xfe]);
    sender.flush();
    let records = || {
        let page = p.must("GetFunctionLogs", json!({ "FunctionName": "echo", "Limit": 100 }));
        let mut all: Vec<Value> = Vec::new();
        for record in page["Data"].as_array().unwrap() {
            let event: Value = serde_json::from_str(record["RetMsg"].as_str().unwrap()).unwrap();
            assert_eq!(event.as_object().unwrap().len(), 1, "{event}");
            all.extend(event["Records"].as_array().unwrap().iter().map(|r| r["Ckafka"].clone()));
        }
        all.sort_by_key(|m| m["offset"].as_i64());
        all
    };
    wait(|| is(records().len(), 3));
    let message = |offset, key: &str, body: &str| json!({ "topic": "form", "partition": 1, "offset": offset, "msgKey": key, "msgBody": body });
    let found = records();
    assert_eq!(found[0], message(0, "k1", "Grüße \"from\"\nKafka"));
    assert_eq!(found[1], message(1, "None", "{\"json\": true}"));
    // What is no text cannot be said in SCF's form: it is base64, and says so.
    assert_eq!(
        (&found[2]["msgBody"], &found[2]["msgBodyEncoding"]),
        (&json!("/wD+"), &json!("base64")),
        "{}",
        found[2]
    );
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn batches_are_bounded_and_each_partition_keeps_its_order() {
    let Some(broker) = broker() else { return };
    broker.create_topic("order", 3);
    let stage = Stage::of(&broker);
    let p = stage.start();
    stage.create(&p, "take");
    let desc = json!({ "maxMsgNum": 40, "offset": "earliest", "consumerGroupName": "order-group" });
    p.must("CreateTrigger", trigger("take", "order", desc));
    send(&broker, "order", 3, "m", 900);
    wait(|| is(stage.sink.count(), 900));
    let order = stage.first_order();
    assert!(order.values().all(|offsets| *offsets == (0..300).collect::<Vec<_>>()), "{order:?}");
    let handled = stage.sink.handled();
    let largest = (0..=handled.last().unwrap().batch).map(|b| handled.iter().filter(|m| m.batch == b).count()).max();
    assert!(largest <= Some(40), "{largest:?}");
    assert!(largest > Some(1), "what waits together is handed over together");
    wait(|| is(broker.committed("order-group", "order"), vec![300, 300, 300]));
    let listed = p.must("ListTriggers", json!({ "FunctionName": "take" }));
    assert_eq!((&listed["TotalCount"], &listed["Triggers"][0]["Type"]), (&json!(1), &json!("ckafka")), "{listed}");
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn a_new_group_begins_where_it_is_told() {
    let Some(broker) = broker() else { return };
    broker.create_topic("begin", 1);
    let stage = Stage::of(&broker);
    let p = stage.start();
    send(&broker, "begin", 1, "old", 3);
    let then = now_ms() + 1;
    wait(|| if now_ms() > then { Ok(()) } else { Err("time stands still".into()) });
    send(&broker, "begin", 1, "middle", 3);
    // Each in a function of its own, one after the other, so that the sink knows whose messages come.
    for (function, offset, wanted) in [
        ("from-earliest", json!("earliest"), vec!["old", "middle"]),
        ("from-time", json!(then.to_string()), vec!["middle"]),
        ("from-latest", json!("latest"), vec![]),
    ] {
        let before = stage.sink.count();
        stage.create(&p, function);
        // The clock of messages is that of their senders.
        let created = now_ms() + 1;
        p.must("CreateTrigger", trigger(function, "begin", json!({ "offset": offset, "maxMsgNum": 1 })));
        wait(|| if now_ms() > created { Ok(()) } else { Err("time stands still".into()) });
        send(&broker, "begin", 1, function, 1);
        let mut expected: Vec<String> =
            wanted.iter().flat_map(|what| (0..3).map(move |n| format!("{what}-{n}"))).collect();
        // Those that the functions before brought, and its own.
        let own = ["from-earliest", "from-time", "from-latest"];
        let earlier = own.iter().take_while(|name| **name != function).filter(|_| !wanted.is_empty());
        expected.extend(earlier.map(|name| format!("{name}-0")));
        expected.push(format!("{function}-0"));
        wait(|| is(stage.bodies().split_off(before), expected.clone()));
        p.must("DeleteTrigger", json!({ "FunctionName": function, "TriggerName": "main-begin", "Type": "ckafka" }));
    }
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn offsets_are_committed_after_success_only() {
    let Some(broker) = broker() else { return };
    broker.create_topic("commit", 1);
    let stage = Stage::of(&broker);
    let p = stage.start();
    stage.create(&p, "take");
    let attempts = Arc::new(AtomicUsize::new(0));
    let (counting, looking) = (attempts.clone(), broker.clone());
    stage.sink.judge(move |_| {
        // While it is handled it is not committed yet, whatever the attempt.
        assert!(looking.committed("commit-group", "commit")[0] <= 0);
        if counting.fetch_add(1, Ordering::Relaxed) < 3 { Verdict::Fail } else { Verdict::Take }
    });
    let desc = json!({ "maxMsgNum": 10, "offset": "earliest", "consumerGroupName": "commit-group", "retry": 10 });
    send(&broker, "commit", 1, "m", 10);
    p.must("CreateTrigger", trigger("take", "commit", desc));
    wait(|| is(broker.committed("commit-group", "commit"), vec![10]));
    let handled = stage.sink.handled();
    assert!(handled.len() >= 40 && attempts.load(Ordering::Relaxed) >= 4, "{handled:?}");
    assert!(handled.chunks(10).all(|batch| batch.iter().map(|m| m.offset).eq(0..10)), "the same batch each time");
    assert_eq!(p.must("ListFailures", json!({ "Filter": {} }))["TotalCount"], 0);
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn commits_follow_at_once() {
    let Some(broker) = broker() else { return };
    broker.create_topic("prompt", 1);
    let stage = Stage::of(&broker);
    let p = stage.start();
    stage.create(&p, "take");
    let desc = json!({ "offset": "earliest", "consumerGroupName": "prompt-group" });
    p.must("CreateTrigger", trigger("take", "prompt", desc));
    let mut sent = 0;
    // Each is sent when the one before is committed. Commits that wait for anything but their turn do not come to an end in time.
    wait(|| match broker.committed("prompt-group", "prompt")[0].max(0) {
        60 => Ok(()),
        n => {
            if n == sent {
                sent += 1;
                send(&broker, "prompt", 1, "m", 1);
            }
            Err(format!("{n} of 60 are committed"))
        }
    });
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn what_fails_for_good_is_kept_and_can_be_replayed() {
    let Some(broker) = broker() else { return };
    broker.create_topic("failing", 1);
    let stage = Stage::of(&broker);
    let p = stage.start();
    stage.create(&p, "take");
    stage.sink.judge(|batch| if batch.iter().any(|m| m.body == "m-2") { Verdict::Fail } else { Verdict::Take });
    let desc = json!({ "maxMsgNum": 1, "offset": "earliest", "consumerGroupName": "failing-group", "retry": 1 });
    p.must("CreateTrigger", trigger("take", "failing", desc));
    send(&broker, "failing", 1, "m", 5);
    // It does not hold up what comes after it.
    wait(|| is(broker.committed("failing-group", "failing"), vec![5]));
    assert_eq!(stage.bodies(), ["m-0", "m-1", "m-2", "m-2", "m-3", "m-4"]);
    let kept = p.must("ListFailures", json!({ "Filter": { "FunctionName": "take" } }));
    assert_eq!(kept["TotalCount"], 1, "{kept}");
    let listed = printed(&mayfly(&p, &["failures", "ls", "-F", "take", "-o", "json"]));
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let id = listed[0]["FunctionRequestId"].as_str().unwrap_or_else(|| panic!("{listed}")).to_owned();
    let shown = p.must("GetFailure", json!({ "FunctionRequestId": id }));
    assert_eq!(shown["Source"], "ckafka", "{shown}");
    assert!(shown["Event"].as_str().unwrap().contains("\"msgBody\":\"m-2\""), "{shown}");
    stage.sink.judge(|_| Verdict::Take);
    printed(&mayfly(&p, &["failures", "replay", &id, "--wait"]));
    assert_eq!(stage.bodies().last().map(String::as_str), Some("m-2"));
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn a_closed_trigger_takes_nothing_and_goes_on_where_it_was() {
    let Some(broker) = broker() else { return };
    broker.create_topic("closing", 1);
    let (stage, beside) = (Stage::of(&broker), Stage::of(&broker));
    let (p, other) = (stage.start(), beside.start());
    stage.create(&p, "take");
    beside.create(&other, "take");
    let desc = |group: &str| json!({ "offset": "earliest", "consumerGroupName": group });
    p.must("CreateTrigger", trigger("take", "closing", desc("closing-group")));
    other.must("CreateTrigger", trigger("take", "closing", desc("beside-group")));
    send(&broker, "closing", 1, "before", 5);
    wait(|| is(stage.sink.count(), 5));
    let status =
        |enable| json!({ "FunctionName": "take", "TriggerName": "main-closing", "Type": "ckafka", "Enable": enable });
    p.must("UpdateTriggerStatus", status("CLOSE"));
    wait(|| is(broker.committed("closing-group", "closing"), vec![5]));
    send(&broker, "closing", 1, "meanwhile", 5);
    // Another group has them, which shows that they could have come.
    wait(|| is(beside.sink.count(), 10));
    assert_eq!((stage.sink.count(), broker.committed("closing-group", "closing")), (5, vec![5]));
    p.must("UpdateTriggerStatus", status("OPEN"));
    wait(|| is(stage.first_order().remove(&0), Some((0..10).collect())));
    assert_eq!(stage.sink.count(), 10, "and none of them twice");
    assert_eq!((p.stop(), other.stop()), (Some(0), Some(0)));
}

#[test]
fn a_message_wakes_a_function_from_zero() {
    let Some(broker) = broker() else { return };
    broker.create_topic("waking", 1);
    let stage = Stage::of(&broker).arguments(&["--keep-alive-s", "1", "--precreate-python", "0"]);
    let p = stage.start();
    stage.create(&p, "take");
    p.must("CreateTrigger", trigger("take", "waking", json!({ "offset": "earliest" })));
    let instances = || {
        let (_, text) = p.get("/metrics");
        let working = |line: &&str| line.contains("state=\"busy\"") || line.contains("state=\"idle\"");
        let of = |line: &str| line.strip_prefix("mayfly_instances{")?.rsplit_once(' ')?.1.parse::<usize>().ok();
        text.lines().filter(working).filter_map(of).sum::<usize>()
    };
    for round in 1..=2 {
        wait(|| is(instances(), 0));
        send(&broker, "waking", 1, "m", 3);
        wait(|| is(stage.sink.count(), 3 * round));
    }
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn a_broker_that_dies_and_comes_back_costs_nothing() {
    if !can_sandbox() {
        return;
    }
    let Some(mut broker) = Broker::apache() else { return };
    broker.create_topic("dying", 2);
    let stage = Stage::of(&broker);
    let p = stage.start();
    stage.create(&p, "take");
    let desc = json!({ "offset": "earliest", "consumerGroupName": "dying-group", "maxMsgNum": 10 });
    p.must("CreateTrigger", trigger("take", "dying", desc));
    let mut sent = 0;
    for _ in 0..2 {
        send(&broker, "dying", 2, "m", 100);
        sent += 100;
        // Somewhere in the middle of them.
        wait(|| if stage.sink.count() > sent - 100 { Ok(()) } else { Err("nothing comes".into()) });
        broker.kill();
        broker.restart();
    }
    send(&broker, "dying", 2, "m", 100);
    wait(|| is(stage.first_order().values().map(Vec::len).sum(), 300));
    let order = stage.first_order();
    assert!(order.values().all(|offsets| *offsets == (0..150).collect::<Vec<_>>()), "{order:?}");
    wait(|| is(broker.committed("dying-group", "dying"), vec![150, 150]));
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn clusters_with_logins_and_tls_are_reached() {
    let Some(broker) = broker() else { return };
    broker.create_topic("login", 1);
    let (secret, wrong) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(secret.path(), format!("{PASSWORD}\n")).unwrap();
    std::fs::write(wrong.path(), "wrong").unwrap();
    let (sasl, tls, ca) = (broker.sasl_address(), broker.tls_address(), broker.ca_file());
    let cluster = |name: &str, address: &str, mechanism: &str, password: &std::path::Path, more: &str| {
        format!(
            "[kafka.clusters.{name}]\nbrokers = [\"{address}\"]\nsasl = \"{mechanism}\"\nuser = \"{USER}\"\npassword_file = {password:?}\n{more}\n"
        )
    };
    let with_tls = format!("tls = true\ntls_ca = {ca:?}");
    let names = ["plain", "scram256", "scram512", "tls", "tls512"];
    let config = [
        cluster("plain", &sasl, "PLAIN", secret.path(), ""),
        cluster("scram256", &sasl, "SCRAM-SHA-256", secret.path(), ""),
        cluster("scram512", &sasl, "SCRAM-SHA-512", secret.path(), ""),
        cluster("tls", &tls, "PLAIN", secret.path(), &with_tls),
        cluster("tls512", &tls, "SCRAM-SHA-512", secret.path(), &with_tls),
        // These never get anything: nobody vouches for the certificate, the password is wrong.
        cluster("untrusted", &tls, "PLAIN", secret.path(), "tls = true"),
        cluster("refused", &sasl, "PLAIN", wrong.path(), ""),
    ];
    let stage = Stage::with(&config.concat());
    let p = stage.start();
    for name in names.iter().chain(&["untrusted", "refused"]) {
        stage.create(&p, name);
        let mut trigger = trigger(name, "login", json!({ "offset": "earliest" }));
        trigger["TriggerName"] = json!(format!("{name}-login"));
        p.must("CreateTrigger", trigger);
    }
    send(&broker, "login", 1, "m", 4);
    wait(|| is(stage.sink.count(), 4 * names.len()));
    for name in names {
        let listed = p.must("GetFunctionLogs", json!({ "FunctionName": name, "Limit": 10 }));
        assert!(listed["TotalCount"].as_u64() > Some(0), "{name}: {listed}");
    }
    for name in ["untrusted", "refused"] {
        assert_eq!(p.must("GetFunctionLogs", json!({ "FunctionName": name }))["TotalCount"], 0, "{name}");
    }
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn a_trigger_names_a_cluster_and_a_topic_that_are_there() {
    let Some(broker) = broker() else { return };
    broker.create_topic("there", 1);
    let stage = Stage::of(&broker);
    let p = stage.start();
    stage.create(&p, "take");
    let code = p.fails("CreateTrigger", trigger("take", "not-there", json!({})));
    assert!(code.starts_with("InvalidParameterValue") || code.starts_with("ResourceNotFound"), "{code}");
    let mut elsewhere = trigger("take", "there", json!({}));
    elsewhere["TriggerName"] = json!("nowhere-there");
    let answer = p.call("CreateTrigger", &elsewhere);
    let message = answer["Error"]["Message"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(message.contains("main"), "it names the clusters that there are: {message}");
    p.fails("CreateTrigger", trigger("take", "there", json!({ "maxMsgNum": 0 })));
    p.must("CreateTrigger", trigger("take", "there", json!({})));
    assert_eq!(p.stop(), Some(0));
}

#[test]
fn tansu_is_served_too() {
    if !can_sandbox() {
        return;
    }
    let Some(broker) = Broker::tansu() else { return };
    broker.create_topic("other", 2);
    let stage = Stage::with(&cluster(&broker.address()));
    let p = stage.start();
    stage.create(&p, "take");
    p.must(
        "CreateTrigger",
        trigger("take", "other", json!({ "offset": "earliest", "consumerGroupName": "tansu-group" })),
    );
    for round in 1..=3 {
        send(&broker, "other", 2, "m", 20);
        wait(|| is(stage.sink.count(), 20 * round));
    }
    let order = stage.first_order();
    assert!(order.values().all(|offsets| *offsets == (0..30).collect::<Vec<_>>()), "{order:?}");
    wait(|| is(broker.committed("tansu-group", "other"), vec![30, 30]));
    assert_eq!(p.stop(), Some(0));
}
