//! Kafka triggers through what must not lose messages: a platform, instances and a broker that are killed again and again, and a full disk.
//!
//! Short by default; `MAYFLY_SOAK=1` sends 100,000 messages through 60 kills, which takes some minutes (`MAYFLY_BIN` names a release build).

#[path = "support/host.rs"]
mod host;
#[path = "support/outside.rs"]
mod outside;
#[path = "support/stage.rs"]
mod stage;

use host::Host;
use mayfly_testkit::kafka::Broker;
use mayfly_testkit::{Platform, can_sandbox};
use outside::Verdict;
use serde_json::json;
use stage::{Stage, is, trigger, wait, wait_for};
use std::collections::HashMap;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 4;
/// All of a long run must be done within this time.
const SOAK_PATIENCE: Duration = Duration::from_secs(3600);

fn soak() -> bool {
    std::env::var_os("MAYFLY_SOAK").is_some_and(|v| v == "1")
}

/// Kills every process of every instance.
fn kill_instances(platform: &Platform) -> usize {
    let members = Host::of(platform).members(None);
    // SAFETY: processes of a platform that this test started, looked up a moment ago.
    members.iter().filter(|process| unsafe { libc::kill(process.pid, libc::SIGKILL) } == 0).count()
}

#[test]
fn every_message_is_handled_in_order_though_platform_instances_and_broker_are_killed() {
    if !can_sandbox() {
        return;
    }
    let Some(mut broker) = Broker::apache() else { return };
    let (messages, rounds) = if soak() { (100_000, 60) } else { (3_000, 6) };
    broker.create_topic("loss", PARTITIONS);
    let stage = Stage::of(&broker);
    let mut platform = stage.start();
    stage.create(&platform, "take");
    // So that there is somebody to kill in the middle of something.
    stage.sink.judge(|_| {
        std::thread::sleep(Duration::from_millis(5));
        Verdict::Take
    });
    let desc = json!({ "maxMsgNum": 50, "offset": "earliest", "consumerGroupName": "loss-group" });
    platform.must("CreateTrigger", trigger("take", "loss", desc));
    let (begun, mut sender, mut sent) = (Instant::now(), broker.sender(), 0);
    let (mut platforms, mut instances, mut processes, mut brokers) = (0, 0, 0, 0);
    for round in 0..rounds {
        let until = messages * (round + 1) / rounds;
        while sent < until {
            sender.send("loss", sent as i32 % PARTITIONS, None, sent.to_string().as_bytes());
            sent += 1;
        }
        // Somewhere in the middle of them, each time elsewhere.
        let goal = until - messages / rounds * (1 + round * 7 % 5) / 6;
        wait_for(SOAK_PATIENCE, || match stage.sink.distinct() {
            n if n >= goal => Ok(()),
            n => Err(format!("{n} of {goal} messages handled in round {round}")),
        });
        match round % 3 {
            0 => {
                instances += 1;
                processes += kill_instances(&platform);
            }
            1 => {
                platforms += 1;
                platform.kill();
                platform = stage.start();
            }
            _ => {
                brokers += 1;
                broker.kill();
                broker.restart();
            }
        }
    }
    sender.flush();
    wait_for(SOAK_PATIENCE, || is(stage.sink.distinct(), messages));
    let each = messages as i64 / i64::from(PARTITIONS);
    wait(|| is(broker.committed("loss-group", "loss"), vec![each; PARTITIONS as usize]));
    let took = begun.elapsed();
    assert_eq!(platform.stop(), Some(0));

    let mut counts: HashMap<String, usize> = HashMap::new();
    for message in stage.sink.handled() {
        *counts.entry(message.body).or_default() += 1;
    }
    let lost: Vec<usize> = (0..messages).filter(|n| !counts.contains_key(&n.to_string())).collect();
    let again = counts.values().filter(|count| **count > 1).count();
    let order = stage.first_order();
    let in_order = order.values().all(|offsets| *offsets == (0..each).collect::<Vec<_>>());
    println!(
        "{messages} messages sent, {} handled at least once, {} lost; {again} handled more than once, {} deliveries in all; order of first deliveries held \
         in {} of {PARTITIONS} partitions; killed: {platforms} times the platform, {instances} times all instances ({processes} processes), {brokers} times the broker; {:.0} s",
        counts.len(),
        lost.len(),
        stage.sink.count(),
        order.values().filter(|offsets| **offsets == (0..each).collect::<Vec<_>>()).count(),
        took.as_secs_f64()
    );
    assert!(lost.is_empty(), "lost: {:?}", &lost[..lost.len().min(20)]);
    assert!(in_order, "messages of a partition came out of order");
}

/// A small file system of its own; goes when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(mb: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mb}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
        Self(dir)
    }

    /// Takes all that is left, in a file.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.path().join("filler")).unwrap();
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_loses_no_message_and_no_failure() {
    if !can_sandbox() {
        return;
    }
    let Some(broker) = Broker::shared() else { return };
    broker.create_topic("full", 1);
    let (stage, disk) = (Stage::of(&broker), SmallDisk::new(24));
    // All that a Kafka trigger may have to store are failures: these are on the small disk.
    let data = stage.data.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(disk.0.path().join("failures.db"), b"").unwrap();
    std::os::unix::fs::symlink(disk.0.path().join("failures.db"), data.join("failures.db")).unwrap();
    let p = stage.start();
    stage.create(&p, "take");
    let desc = json!({ "maxMsgNum": 1, "offset": "earliest", "consumerGroupName": "full-group", "retry": 0 });
    p.must("CreateTrigger", trigger("take", "full", desc));
    let mut sender = broker.sender();
    let padding = "x".repeat(200 << 10);
    let mut send = |what: &str, count: usize| {
        for n in 0..count {
            sender.send("full", 0, None, format!("{what}-{n}-{padding}").as_bytes());
        }
        sender.flush();
    };
    send("before", 2);
    wait(|| is(stage.sink.distinct(), 2));
    disk.fill();
    // Nothing of these has to be stored.
    send("good", 50);
    wait(|| is(broker.committed("full-group", "full"), vec![52]));
    // What fails for good has to, and cannot: it is not given up, and what comes after it waits.
    stage.sink.judge(|batch| if batch[0].body.starts_with("bad") { Verdict::Fail } else { Verdict::Take });
    send("bad", 3);
    send("after", 2);
    wait(|| if stage.sink.count() >= 55 { Ok(()) } else { Err("it is not tried again".into()) });
    assert_eq!((stage.sink.distinct(), broker.committed("full-group", "full")), (53, vec![52]));
    // When there is room again they are kept, without anybody's doing, and so is what came meanwhile.
    disk.empty();
    wait(|| is(broker.committed("full-group", "full"), vec![57]));
    assert_eq!(p.must("ListFailures", json!({ "Filter": { "FunctionName": "take" } }))["TotalCount"], 3);
    assert_eq!(stage.sink.distinct(), 57);
    // The same through a kill.
    disk.fill();
    send("bad-again", 1);
    wait(|| is(stage.sink.distinct(), 58));
    let before = stage.sink.count();
    wait(|| if stage.sink.count() > before { Ok(()) } else { Err("it is not tried again".into()) });
    assert_eq!(broker.committed("full-group", "full"), vec![57]);
    p.kill();
    disk.empty();
    let p = stage.start();
    wait(|| is(broker.committed("full-group", "full"), vec![58]));
    assert_eq!(p.must("ListFailures", json!({ "Filter": { "FunctionName": "take" } }))["TotalCount"], 4);
    println!("full disk: 58 of 58 messages handled, 4 of 4 failures kept, {} deliveries", stage.sink.count());
    assert_eq!(p.stop(), Some(0));
}
