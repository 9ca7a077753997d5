//! What a killed store leaves, and what changes tell.

mod support;

use mayfly_objects::{EventKind, EventTarget, Limits, Rule, cos_event};
use md5::{Digest, Md5};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use support::{BUCKET, Scene, files, limits, noise};

fn rule(id: &str, event: &str, prefix: &str, suffix: &str) -> Rule {
    Rule { id: id.into(), event: event.into(), prefix: prefix.into(), suffix: suffix.into() }
}

#[tokio::test]
async fn changes_are_told_at_least_once() {
    let dir = tempfile::tempdir().unwrap();
    let rules =
        || vec![rule("made", "cos:ObjectCreated:*", "in/", ""), rule("gone", "cos:ObjectRemove:Delete", "", ".txt")];
    let scene = Scene::open(dir.path(), limits()).await;
    scene.store().set_rules(BUCKET, rules());
    scene.make_bucket().await;
    scene.put("out/a.txt", "1").await.ok();
    scene.ask("PUT", &format!("/{BUCKET}/in/a.txt"), &[], &[("x-cos-meta-who", "me")], "22").await.ok();
    scene.ask("DELETE", &format!("/{BUCKET}/in/a.txt"), &[], &[], "").await.ok();
    scene.ask("DELETE", &format!("/{BUCKET}/in/a.txt"), &[], &[], "").await.ok();
    let outbox = scene.store().outbox();
    outbox.wait().await;
    let notices = outbox.next(10).await.unwrap();
    let told: Vec<_> = notices.iter().map(|n| (n.rule.as_str(), n.kind, n.key.as_str(), n.size)).collect();
    assert_eq!(told, [("made", EventKind::Put, "in/a.txt", 2), ("gone", EventKind::Delete, "in/a.txt", 2)]);
    let target = EventTarget { region: "ap-x", app_id: "1", namespace: "default", function: "f", qualifier: "$LATEST" };
    let event = cos_event(&notices[0], &target).to_string();
    assert!(event.contains("\"x-cos-meta-who\":\"me\"") && event.contains("/1250000000/b/in/a.txt"), "{event}");
    assert!(event.contains("q-ak=AKIDtest") && !event.contains("q-signature"), "{event}");
    assert!(outbox.next(10).await.unwrap().is_empty(), "each is handed out once");
    outbox.release(&[notices[1].id]);
    assert_eq!(outbox.next(10).await.unwrap(), notices[1..]);
    outbox.ack(&[notices[0].id]).await.unwrap();
    assert_eq!(outbox.depth(), 1);
    scene.store().close().await;
    // What was not acknowledged is handed out again.
    let scene = Scene::open(dir.path(), Limits { outbox_max: 1, ..limits() }).await;
    scene.store().set_rules(BUCKET, rules());
    scene.store().outbox().wait().await;
    assert_eq!(scene.store().outbox().next(10).await.unwrap(), notices[1..]);
    // A full outbox refuses what it could not tell of, and that alone.
    scene.put("in/b.txt", "x").await.fails(503, "SlowDown");
    scene.get("in/b.txt").await.fails(404, "NoSuchKey");
    scene.put("out/b", "x").await.ok();
    scene.store().outbox().ack(&[notices[1].id]).await.unwrap();
    scene.put("in/b.txt", "x").await.ok();
}

/// The child of the test below: puts objects until it is killed, and says which are acknowledged.
#[tokio::test]
async fn child_that_is_killed() {
    let (Some(root), Some(run)) = (std::env::var_os("OBJECTS_CHILD"), std::env::var("OBJECTS_RUN").ok()) else {
        return;
    };
    let scene = Scene::open(root.as_ref(), limits()).await;
    scene.store().set_rules(BUCKET, vec![rule("r", "cos:ObjectCreated:*", "", "")]);
    let _ = scene.ask("PUT", &format!("/{BUCKET}"), &[], &[], "").await;
    let scene = std::sync::Arc::new(scene);
    let mut tasks = Vec::new();
    for task in 0..4u64 {
        let (scene, run) = (scene.clone(), run.clone());
        tasks.push(tokio::spawn(async move {
            for n in 0u64.. {
                let len = [100, 20_000, 2_000_000][usize::try_from(n % 3).unwrap()];
                // Some keys are written again and again.
                let key = if n % 5 == 0 { format!("again/{task}") } else { format!("{run}/{task}/{n}") };
                let etag = scene.put(&key, noise(len, n * 4 + task)).await.ok().etag();
                println!("PUT {key} {etag}");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_store_has_all_that_was_acknowledged_and_no_halves() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for run in 0..4u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env("OBJECTS_CHILD", dir.path())
            .env("OBJECTS_RUN", run.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 15 + run * 7 {
            let line = lines.next().expect("the child goes on until it is killed").unwrap();
            if let Some(rest) = line.split("PUT ").nth(1) {
                acknowledged.push(rest.to_owned());
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died was acknowledged too; its last line may be cut.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let whole = |l: &&str| l.rsplit(' ').next().is_some_and(|etag| etag.len() == 32);
        acknowledged.extend(rest.iter().filter_map(|l| l.split("PUT ").nth(1)).filter(whole).map(str::to_owned));

        let scene = Scene::open(dir.path(), limits()).await;
        scene.store().swept().await;
        for line in &acknowledged {
            let (key, etag) = line.split_once(' ').unwrap();
            let got = scene.get(key).await.ok();
            assert_eq!(hex::encode(Md5::digest(&got.body)), got.etag(), "{key} is whole");
            if !key.starts_with("again/") {
                assert_eq!(got.etag(), etag, "{key}");
            }
        }
        assert_eq!(scene.store().scrub().await.unwrap(), 0);
        let told: HashSet<String> =
            scene.store().outbox().next(100_000).await.unwrap().into_iter().map(|n| n.key).collect();
        for line in &acknowledged {
            assert!(told.contains(line.split_once(' ').unwrap().0), "nobody was told of {line}");
        }
        // As many files as the database knows: those of objects above the size that it holds itself.
        let mut keys: Vec<u64> = Vec::new();
        let mut marker = String::new();
        loop {
            let page = scene.ask("GET", &format!("/{BUCKET}"), &[("marker", &marker)], &[], "").await.ok();
            keys.extend(page.tags("Size").iter().map(|s| s.parse::<u64>().unwrap()));
            if page.tag("IsTruncated") != "true" {
                break;
            }
            marker = page.tag("NextMarker");
        }
        let expected = keys.iter().filter(|size| **size > 8192).count();
        support::eventually("no file without a reference is left", || files(dir.path()).len() == expected).await;
        scene.store().close().await;
    }
}

#[tokio::test]
async fn damage_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::open(dir.path(), limits()).await;
    scene.make_bucket().await;
    scene.put("a", noise(100_000, 1)).await.ok();
    scene.put("b", noise(100_000, 2)).await.ok();
    assert_eq!(scene.store().scrub().await.unwrap(), 0);
    let file = files(dir.path()).into_iter().next().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(scene.store().scrub().await.unwrap(), 1);
}
