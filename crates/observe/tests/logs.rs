//! The log store from outside: killed in the middle, and with as many records as a busy week leaves.

use mayfly_model::{InvocationRecord, RequestId, Status};
use mayfly_observe::{LogCursor, LogFilter, LogOptions, LogQuery, LogStore};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const DIR: &str = "MAYFLY_TEST_KILL_DIR";

fn record(i: u64) -> InvocationRecord {
    InvocationRecord {
        request_id: RequestId(u128::from(i).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
        namespace: "default".to_owned(),
        function: format!("function-{}", i % 1000),
        version: "$LATEST".to_owned(),
        qualifier: "$LATEST".to_owned(),
        start_ms: 1_700_000_000_000 + i % 1_000_000_000 * 20,
        duration_us: i % 5000,
        wait_us: 0,
        status: if i.is_multiple_of(100) { Status::USER_EXCEPTION } else { Status::OK },
        ret_msg: "{\"statusCode\":200}".to_owned(),
        memory_mb: 128,
        memory_bytes: 30 << 20,
        cold_start: None,
        event: None,
        retry: 0,
        origin: None,
        lineage: mayfly_model::Lineage::default(),
        output: format!("a line that a function printed, number {i}\n"),
        output_cut_bytes: 0,
    }
}

#[test]
fn what_was_queried_survives_kill_9_and_no_line_is_torn() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = HashSet::new();
    for _ in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "child_logs"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acks = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(id) = line.strip_prefix("seen ").and_then(RequestId::parse) {
                seen.insert(id);
                acks += 1;
            }
            if acks == 30 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acks >= 30);
        let store = LogStore::open(dir.path(), LogOptions::default()).unwrap();
        let (records, _) = store.follow(&LogFilter::default(), LogCursor::parse("19700101-0000:0"), 1_000_000).unwrap();
        let kept: HashSet<_> = records.iter().map(|record| record.request_id).collect();
        assert!(seen.is_subset(&kept), "{} of {} are gone", seen.difference(&kept).count(), seen.len());
        store.close();
    }
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text.ends_with('\n'));
            assert!(text.lines().all(|line| serde_json::from_str::<InvocationRecord>(line).is_ok()));
        }
    }
}

#[test]
#[ignore = "the child of what_was_queried_survives_kill_9_and_no_line_is_torn"]
fn child_logs() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = LogStore::open(Path::new(&dir), LogOptions::default()).unwrap();
    let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    for i in 0.. {
        let mut wanted = record(base + i * 100);
        wanted.output = "x".repeat(3000);
        for other in 1..20 {
            store.record(record(base + i * 100 + other));
        }
        if !store.record(wanted.clone()) {
            continue;
        }
        let filter = LogFilter { request_id: Some(wanted.request_id), ..LogFilter::default() };
        let page = store.query(&LogQuery { filter, limit: 1, ..LogQuery::default() }).unwrap();
        if page.total == 1 {
            let mut out = std::io::stdout().lock();
            writeln!(out, "seen {}", wanted.request_id).unwrap();
            out.flush().unwrap();
        }
    }
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Run with `--ignored --nocapture`, in release mode.
#[test]
#[ignore = "a measurement, of a minute"]
fn a_million_records() {
    const RECORDS: u64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), LogOptions::default()).unwrap();
    let before = rss_kib();
    let start = Instant::now();
    let mut in_record = Duration::ZERO;
    for i in 0..RECORDS {
        let record = record(i);
        let started = Instant::now();
        while !store.record(record.clone()) {
            std::thread::yield_now();
        }
        in_record += started.elapsed();
    }
    store.close();
    println!(
        "written: {:?} ({:.0} a second), rss +{} KiB",
        start.elapsed(),
        RECORDS as f64 / start.elapsed().as_secs_f64(),
        rss_kib() - before
    );
    let bytes: u64 = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    println!("on disk: {} MiB", bytes >> 20);
    let start = Instant::now();
    let store = LogStore::open(dir.path(), LogOptions::default()).unwrap();
    println!("opened: {:?}", start.elapsed());
    let function = Some("function-7".to_owned());
    let queries = [
        ("one request id", LogFilter { request_id: Some(record(777_777).request_id), ..LogFilter::default() }),
        ("one function", LogFilter { function: function.clone(), ..LogFilter::default() }),
        (
            "one function, a keyword",
            LogFilter { function: function.clone(), keyword: Some("number 500007".to_owned()), ..LogFilter::default() },
        ),
        (
            "one function, the last hour",
            LogFilter { function, from_ms: Some(record(RECORDS - 180_000).start_ms), ..LogFilter::default() },
        ),
        ("a keyword over all", LogFilter { keyword: Some("number 777777".to_owned()), ..LogFilter::default() }),
        ("everything", LogFilter::default()),
    ];
    for round in ["first", "again"] {
        for (what, filter) in &queries {
            let query = LogQuery { filter: filter.clone(), descending: true, limit: 20, ..LogQuery::default() };
            let start = Instant::now();
            let page = store.query(&query).unwrap();
            println!(
                "{what} ({round}): {:?}, {} of {} records, rss +{} KiB",
                start.elapsed(),
                page.records.len(),
                page.total,
                rss_kib() - before
            );
            assert!(page.total >= 1);
        }
    }
}

/// `record` is on the way of every request.
#[test]
#[ignore = "a measurement"]
fn cost_of_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), LogOptions::default()).unwrap();
    let mut worst = Duration::ZERO;
    let mut total = Duration::ZERO;
    for batch in 0..50 {
        let records: Vec<_> = (0..2000).map(|i| record(batch * 2000 + i)).collect();
        for record in records {
            let start = Instant::now();
            assert!(store.record(record));
            let took = start.elapsed();
            worst = worst.max(took);
            total += took;
        }
        store.query(&LogQuery::default()).unwrap();
    }
    println!("record(): {:?} on average, {worst:?} at worst", total / 100_000);
}
