//! Tests of the store as a whole, with a clock that is set by hand and a disk that can fail.

use super::segment::{AppendFile, Disk, RealDisk};
use super::*;
use mayfly_model::{RequestId, Status};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// 2026-01-02 10:00:30 UTC.
const NOON: u64 = 1_767_348_030_000;
const MINUTE: u64 = 60_000;

/// A store in a directory of its own, whose clock and disk the test controls.
struct World {
    dir: tempfile::TempDir,
    clock: Arc<AtomicU64>,
    fault: Arc<Fault>,
}

/// How the disk fails.
#[derive(Default)]
struct Fault {
    /// Bytes that still fit; beyond them a part is written and the rest refused, as a full disk does.
    room: AtomicUsize,
    is_on: AtomicBool,
    /// Cutting a file back fails as well.
    cut_fails: AtomicBool,
}

struct FaultyDisk(Arc<Fault>);

struct FaultyFile {
    file: Box<dyn AppendFile>,
    fault: Arc<Fault>,
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(FaultyFile { file: RealDisk.open(path)?, fault: Arc::clone(&self.0) }))
    }
}

impl AppendFile for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.fault.is_on.load(Ordering::SeqCst) {
            let room = self.fault.room.load(Ordering::SeqCst);
            let fits = bytes.len().min(room);
            self.fault.room.store(room - fits, Ordering::SeqCst);
            self.file.append(&bytes[..fits])?;
            if fits < bytes.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            return Ok(());
        }
        self.file.append(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.fault.cut_fails.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Other.into());
        }
        self.file.cut(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: Arc::new(AtomicU64::new(NOON)), fault: Arc::default() }
    }

    fn open(&self, options: LogOptions) -> LogStore {
        let clock = Arc::clone(&self.clock);
        let environment = Environment {
            disk: Box::new(FaultyDisk(Arc::clone(&self.fault))),
            clock: Arc::new(move || clock.load(Ordering::SeqCst)),
        };
        LogStore::open_in(self.dir.path(), options, environment).unwrap()
    }

    fn advance(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    fn files(&self, extension: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(extension))
            .collect();
        names.sort();
        names
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// A record that differs from others in everything that queries look at.
fn record(i: u64) -> InvocationRecord {
    InvocationRecord {
        request_id: RequestId(u128::from(i) << 64 | u128::from(i)),
        namespace: "default".to_owned(),
        function: format!("f{}", i % 5),
        version: if i.is_multiple_of(2) { "$LATEST" } else { "1" }.to_owned(),
        qualifier: if i.is_multiple_of(2) { "$LATEST" } else { "prod" }.to_owned(),
        start_ms: NOON + i,
        duration_us: (i * 7919) % 1009,
        wait_us: 0,
        status: if i.is_multiple_of(10) { Status::TIME_LIMIT } else { Status::OK },
        ret_msg: format!("\"ret {i}\""),
        memory_mb: 128,
        memory_bytes: ((i * 104_729) % 997) << 20,
        cold_start: None,
        event: None,
        retry: 0,
        origin: None,
        lineage: mayfly_model::Lineage::default(),
        output: format!("line of {i}\n"),
        output_cut_bytes: 0,
    }
}

fn numbers(records: &[InvocationRecord]) -> Vec<u64> {
    records.iter().map(|record| record.start_ms - NOON).collect()
}

fn all() -> LogQuery {
    LogQuery { limit: 10_000, ..LogQuery::default() }
}

fn filtered(filter: LogFilter) -> LogQuery {
    LogQuery { filter, ..all() }
}

#[test]
fn what_was_recorded_is_found_at_once_and_after_reopening() {
    let world = World::new();
    let store = world.open(LogOptions::default());
    for i in 0..100 {
        assert!(store.record(record(i)));
        assert_eq!(store.query(&all()).unwrap().total, i + 1);
    }
    let page = store.query(&all()).unwrap();
    assert_eq!(page.records, (0..100).map(record).collect::<Vec<_>>());
    store.close();
    assert!(!store.record(record(1000)), "the store is closed");
    let store = world.open(LogOptions::default());
    assert_eq!(store.query(&all()).unwrap(), page);
    store.record(record(100));
    assert_eq!(store.query(&all()).unwrap().total, 101);
    assert_eq!(world.files("jsonl"), ["20260102-1000.jsonl"]);
}

#[test]
fn filters_hold_each_and_together() {
    let world = World::new();
    let store = world.open(LogOptions { segment_minutes: 1, ..LogOptions::default() });
    let mut records = Vec::new();
    for i in 0..300 {
        let mut record = record(i);
        if i % 7 == 0 {
            record.namespace = "other".to_owned();
        }
        record.status = [200, 430, 433, 434, 439, 443, 450, 432, 500, 200].map(Status)[(i % 10) as usize];
        if i % 11 == 0 {
            record.output = format!("needle \"quoted\" \\ tab\t 针 {i}");
        }
        if i % 13 == 0 {
            record.ret_msg = "needle in the return value".to_owned();
        }
        store.record(record.clone());
        records.push(record);
        if i % 60 == 59 {
            store.query(&all()).unwrap();
            world.advance(MINUTE);
        }
    }
    assert_eq!(world.files("jsonl").len(), 5);
    let text = |text: &str| Some(text.to_owned());
    let filters = [
        LogFilter::default(),
        LogFilter { namespace: text("other"), ..LogFilter::default() },
        LogFilter { function: text("f3"), ..LogFilter::default() },
        LogFilter { function: text("f3"), namespace: text("default"), ..LogFilter::default() },
        LogFilter { function: text("absent"), ..LogFilter::default() },
        LogFilter { version: text("1"), ..LogFilter::default() },
        LogFilter { version: text("prod"), ..LogFilter::default() },
        LogFilter { request_id: Some(records[123].request_id), ..LogFilter::default() },
        LogFilter { request_id: Some(RequestId(records[123].request_id.0 + (1 << 64))), ..LogFilter::default() },
        LogFilter { status: StatusFilter::Ok, ..LogFilter::default() },
        LogFilter { status: StatusFilter::NotOk, ..LogFilter::default() },
        LogFilter { status: StatusFilter::TimeLimitExceeded, ..LogFilter::default() },
        LogFilter { status: StatusFilter::ResourceLimitExceeded, ..LogFilter::default() },
        LogFilter { status: StatusFilter::UserCodeException, ..LogFilter::default() },
        LogFilter { from_ms: Some(NOON + 50), to_ms: Some(NOON + 130), ..LogFilter::default() },
        LogFilter { from_ms: Some(NOON + 299), ..LogFilter::default() },
        LogFilter { to_ms: Some(NOON), ..LogFilter::default() },
        LogFilter { from_ms: Some(NOON + 2), to_ms: Some(NOON + 1), ..LogFilter::default() },
        LogFilter { keyword: text("needle"), ..LogFilter::default() },
        LogFilter { keyword: text("\"quoted\" \\ tab\t 针"), ..LogFilter::default() },
        LogFilter { keyword: text(".*"), ..LogFilter::default() },
        LogFilter { keyword: text("ret 12"), ..LogFilter::default() },
        // In every line, but in no text that a function printed.
        LogFilter { keyword: text("request_id"), ..LogFilter::default() },
        LogFilter {
            function: text("f0"),
            status: StatusFilter::NotOk,
            keyword: text("needle"),
            from_ms: Some(NOON + 20),
            ..LogFilter::default()
        },
    ];
    let mut found = 0;
    // The second round knows the times of the segments and skips by them.
    for _ in 0..2 {
        for filter in &filters {
            let expected: Vec<_> = records.iter().filter(|record| filter.matches(record)).cloned().collect();
            let page = store.query(&filtered(filter.clone())).unwrap();
            assert_eq!(numbers(&page.records), numbers(&expected), "{filter:?}");
            assert_eq!(page.total, expected.len() as u64);
            found += expected.len();
        }
    }
    assert!(found > 1000);
    let count = |filter: StatusFilter| records.iter().filter(|record| filter.matches(record.status)).count();
    assert_eq!(count(StatusFilter::Ok), 60);
    assert_eq!(count(StatusFilter::UserCodeException), 90);
    assert_eq!(StatusFilter::parse("not0"), Some(StatusFilter::NotOk));
    assert_eq!(StatusFilter::parse("Not0"), None);
}

#[test]
fn orders_and_pages() {
    let world = World::new();
    let store = world.open(LogOptions { segment_minutes: 1, ..LogOptions::default() });
    let mut records: Vec<_> = (0..200).map(|i| record((i * 37) % 200)).collect();
    for (i, record) in records.iter().enumerate() {
        store.record(record.clone());
        if i == 100 {
            store.query(&all()).unwrap();
            world.advance(MINUTE);
        }
    }
    for order_by in [LogOrder::StartTime, LogOrder::Duration, LogOrder::MemUsage, LogOrder::FunctionName] {
        for descending in [false, true] {
            records.sort_by(|a, b| {
                let order = match order_by {
                    LogOrder::StartTime => a.start_ms.cmp(&b.start_ms),
                    LogOrder::Duration => a.duration_us.cmp(&b.duration_us),
                    LogOrder::MemUsage => a.memory_bytes.cmp(&b.memory_bytes),
                    LogOrder::FunctionName => a.function.cmp(&b.function),
                }
                .then(a.start_ms.cmp(&b.start_ms));
                if descending { order.reverse() } else { order }
            });
            let expected = numbers(&records);
            let mut paged = Vec::new();
            for offset in (0..210).step_by(30) {
                let query = LogQuery { order_by, descending, offset, limit: 30, ..LogQuery::default() };
                let page = store.query(&query).unwrap();
                assert_eq!(page.total, 200);
                paged.extend(numbers(&page.records));
            }
            assert_eq!(paged, expected, "{order_by:?} {descending}");
        }
    }
    let empty = store.query(&LogQuery { limit: 0, ..LogQuery::default() }).unwrap();
    assert_eq!((empty.total, empty.records.len()), (200, 0));
    for (offset, limit) in [(9_999, 2), (u64::MAX, 1), (1, u64::MAX)] {
        let query = LogQuery { offset, limit, ..LogQuery::default() };
        assert!(matches!(store.query(&query), Err(LogError::Window { max: 10_000 })));
    }
}

#[test]
fn pages_of_large_records_are_cut() {
    let world = World::new();
    let store = world.open(LogOptions { function_burst_bytes: 64 << 20, ..LogOptions::default() });
    for i in 0..12 {
        // One function each: a function alone may not fill the queue.
        let large = InvocationRecord { function: format!("large{i}"), output: "x".repeat(1 << 20), ..record(i) };
        assert!(store.record(large));
        store.query(&filtered(LogFilter { request_id: Some(RequestId(0)), ..LogFilter::default() })).unwrap();
    }
    let page = store.query(&all()).unwrap();
    assert_eq!((page.total, page.records.len(), page.is_cut), (12, 7, true));
    let rest = store.query(&LogQuery { offset: 7, ..LogQuery { limit: 100, ..LogQuery::default() } }).unwrap();
    assert_eq!((rest.total, rest.records.len(), rest.is_cut), (12, 5, false));
}

#[test]
fn a_torn_tail_is_cut_off_and_its_neighbours_stay() {
    let world = World::new();
    let store = world.open(LogOptions::default());
    (0..50).for_each(|i| assert!(store.record(record(i))));
    store.close();
    let (lines, index) = (world.path("20260102-1000.jsonl"), world.path("20260102-1000.idx"));
    let (whole_lines, whole_index) = (fs::read(&lines).unwrap(), fs::read(&index).unwrap());
    let second_line = whole_lines.iter().position(|b| *b == b'\n').unwrap() + 1;
    // What it is, the lines, the index, and how many records survive it.
    type Damage = (&'static str, Vec<u8>, Option<Vec<u8>>, u64);
    let damages: [Damage; 9] = [
        ("half a line", [&whole_lines[..], b"{\"request_id\":\"00"].concat(), Some(whole_index.clone()), 50),
        ("a cut last line", whole_lines[..whole_lines.len() - 9].to_vec(), Some(whole_index.clone()), 49),
        ("a line without its newline", whole_lines[..whole_lines.len() - 1].to_vec(), Some(whole_index.clone()), 49),
        ("lines without entries", whole_lines.clone(), Some(whole_index[..16 + 64 * 30].to_vec()), 50),
        ("half an entry", whole_lines.clone(), Some(whole_index[..16 + 64 * 30 + 20].to_vec()), 50),
        ("no index", whole_lines.clone(), None, 50),
        ("an index of another form", whole_lines.clone(), Some(vec![7; 5000]), 50),
        ("entries without lines", whole_lines[..second_line].to_vec(), Some(whole_index.clone()), 1),
        ("nothing but entries", Vec::new(), Some(whole_index.clone()), 0),
    ];
    for (what, damaged_lines, damaged_index, survivors) in damages {
        fs::write(&lines, damaged_lines).unwrap();
        match damaged_index {
            Some(bytes) => fs::write(&index, bytes).unwrap(),
            None => fs::remove_file(&index).unwrap(),
        }
        let store = world.open(LogOptions::default());
        let page = store.query(&all()).unwrap();
        assert_eq!(numbers(&page.records), (0..survivors).collect::<Vec<_>>(), "{what}");
        // And what comes next is whole.
        assert!(store.record(record(90)));
        store.close();
        let store = world.open(LogOptions::default());
        let page = store.query(&all()).unwrap();
        assert_eq!(numbers(&page.records).last(), Some(&90), "{what}");
        assert_eq!(page.total, survivors + 1, "{what}");
        store.close();
    }
    // A line that is damaged in the middle takes only itself along.
    let mut damaged = whole_lines.clone();
    damaged[second_line + 2] = 0xff;
    fs::write(&lines, damaged).unwrap();
    fs::remove_file(&index).unwrap();
    let page = world.open(LogOptions::default()).query(&all()).unwrap();
    assert_eq!(page.total, 49);
}

#[test]
fn old_segments_go_by_time() {
    let world = World::new();
    let store = world.open(LogOptions { segment_minutes: 30, retention_hours: 1, ..LogOptions::default() });
    for i in 0..8 {
        store.record(InvocationRecord { start_ms: NOON + i * 30 * MINUTE, ..record(i) });
        store.query(&all()).unwrap();
        world.advance(30 * MINUTE);
    }
    // At 13:30: what ended at 12:30 or before is gone, as of the last cut.
    assert_eq!(world.files("jsonl"), ["20260102-1230.jsonl", "20260102-1300.jsonl", "20260102-1330.jsonl"]);
    assert_eq!(world.files("idx").len(), 3);
    assert_eq!(store.query(&all()).unwrap().total, 3);
}

#[test]
fn the_oldest_segments_go_by_size() {
    let world = World::new();
    let options = LogOptions { max_bytes: 1 << 20, function_burst_bytes: 64 << 20, ..LogOptions::default() };
    let store = world.open(options.clone());
    for i in 0..400 {
        assert!(store.record(InvocationRecord { output: "x".repeat(20_000), ..record(i) }));
        if i % 20 == 19 {
            let page = store.query(&LogQuery { limit: 1, descending: true, ..LogQuery::default() }).unwrap();
            assert_eq!(numbers(&page.records), [i], "the newest are never removed");
        }
    }
    store.close();
    let bytes: u64 = ["jsonl", "idx"]
        .iter()
        .flat_map(|extension| world.files(extension))
        .map(|name| fs::metadata(world.path(&name)).unwrap().len())
        .sum();
    assert!(bytes <= 1 << 20, "{bytes}");
    assert!(bytes > 400 << 10, "{bytes}");
    let page = world.open(options).query(&all()).unwrap();
    let kept = numbers(&page.records);
    assert_eq!(kept, (400 - kept.len() as u64..400).collect::<Vec<_>>());
}

#[test]
fn a_function_that_fills_the_store_displaces_itself() {
    let world = World::new();
    let options = LogOptions { max_bytes: 1 << 20, function_burst_bytes: 64 << 20, ..LogOptions::default() };
    let store = world.open(options.clone());
    let mut quiet = Vec::new();
    for i in 0..600 {
        let flood = InvocationRecord { function: "flood".to_owned(), output: "x".repeat(10_000), ..record(i) };
        assert!(store.record(flood));
        if i % 10 == 0 {
            let record = InvocationRecord { function: "quiet".to_owned(), ..record(10_000 + i) };
            assert!(store.record(record.clone()));
            quiet.push(record);
            store.query(&LogQuery::default()).unwrap();
        }
    }
    let of = |store: &LogStore, function: &str| {
        let filter = LogFilter { function: Some(function.to_owned()), ..LogFilter::default() };
        store.query(&filtered(filter)).unwrap().records
    };
    assert_eq!(of(&store, "quiet"), quiet, "of six times what the store holds, nothing of the quiet function is gone");
    let flood = numbers(&of(&store, "flood"));
    assert!(flood.len() > 20 && flood.last() == Some(&599), "{flood:?}");
    store.close();
    let bytes: u64 = fs::read_dir(world.dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 1 << 20, "{bytes}");
    // The segments that were written anew are in order after a restart, also when it came between two steps.
    fs::remove_file(world.path(&world.files("idx")[0])).unwrap();
    fs::write(world.path("20260102-1000.jsonl.tmp"), "half").unwrap();
    let store = world.open(options);
    assert_eq!(of(&store, "quiet"), quiet);
    // Opening makes room for a new segment, so a few more of the flood may go.
    assert!(flood.ends_with(&numbers(&of(&store, "flood"))));
    assert!(world.files("tmp").is_empty());
}

#[test]
fn a_full_disk_drops_and_counts_and_the_store_goes_on() {
    for cut_fails in [false, true] {
        let world = World::new();
        let store = world.open(LogOptions::default());
        let put = |range: std::ops::Range<u64>| {
            for i in range {
                assert!(store.record(record(i)));
            }
            store.query(&all()).unwrap().total
        };
        assert_eq!(put(0..10), 10);
        world.fault.is_on.store(true, Ordering::SeqCst);
        world.fault.cut_fails.store(cut_fails, Ordering::SeqCst);
        // A part of the batch fits: it must not be left as half a line.
        world.fault.room.store(1000, Ordering::SeqCst);
        assert_eq!(put(10..20), 10);
        assert_eq!(put(20..30), 10);
        assert_eq!(store.stats().dropped_disk.get(), 20);
        world.fault.is_on.store(false, Ordering::SeqCst);
        world.fault.cut_fails.store(false, Ordering::SeqCst);
        assert_eq!(put(30..40), 20);
        assert_eq!(store.stats().written.get(), 20);
        store.close();
        let page = world.open(LogOptions::default()).query(&all()).unwrap();
        let kept = numbers(&page.records);
        // Where the half-written batch could not be cut back, opening finds the whole lines in it: more is kept, never less.
        assert!((0..10).chain(30..40).all(|i| kept.contains(&i)), "{kept:?}");
        assert!(cut_fails || kept.len() == 20, "{kept:?}");
    }
}

#[test]
fn a_disk_that_cannot_make_files_is_survived() {
    let world = World::new();
    let store = world.open(LogOptions { segment_minutes: 1, ..LogOptions::default() });
    world.fault.is_on.store(true, Ordering::SeqCst);
    store.record(record(0));
    assert_eq!(store.query(&all()).unwrap().total, 0);
    world.advance(MINUTE);
    store.record(record(1));
    assert_eq!(store.query(&all()).unwrap().total, 0);
    world.fault.is_on.store(false, Ordering::SeqCst);
    store.record(record(2));
    assert_eq!(numbers(&store.query(&all()).unwrap().records), [2]);
    store.close();
    assert_eq!(world.open(LogOptions::default()).query(&all()).unwrap().total, 1);
}

#[test]
fn a_full_device_of_the_system_is_survived() {
    struct Full;
    impl Disk for Full {
        fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
            // Every write to it fails as on a full disk.
            fs::write(path, "").and_then(|()| RealDisk.open(Path::new("/dev/full")))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment { disk: Box::new(Full), clock: Arc::new(|| NOON) };
    let store = LogStore::open_in(dir.path(), LogOptions::default(), environment).unwrap();
    for i in 0..100 {
        assert!(store.record(record(i)));
    }
    assert_eq!(store.query(&all()).unwrap().total, 0);
    assert_eq!(store.stats().dropped_disk.get(), 100);
}

#[test]
fn a_clock_set_back_does_not_reopen_the_past() {
    let world = World::new();
    let store = world.open(LogOptions { segment_minutes: 1, ..LogOptions::default() });
    store.record(record(0));
    store.query(&all()).unwrap();
    world.clock.store(NOON - 5 * MINUTE, Ordering::SeqCst);
    store.record(record(1));
    assert_eq!(store.query(&all()).unwrap().total, 2);
    assert_eq!(world.files("jsonl"), ["20260102-1000.jsonl"]);
    store.close();
    let store = world.open(LogOptions { segment_minutes: 1, ..LogOptions::default() });
    store.record(record(2));
    assert_eq!(numbers(&store.query(&all()).unwrap().records), [0, 1, 2]);
}

#[test]
fn a_flood_is_cut_with_a_notice_and_harms_nobody_else() {
    let world = World::new();
    let options = LogOptions {
        function_bytes_per_s: 1000,
        function_burst_bytes: 100_000,
        queue_records: 64,
        ..LogOptions::default()
    };
    let store = world.open(options);
    let flood = |i| InvocationRecord { function: "flood".to_owned(), output: "é".repeat(8_000), ..record(i) };
    for i in 0..100 {
        store.record(flood(i));
        if i % 16 == 0 {
            assert!(store.record(InvocationRecord { function: "quiet".to_owned(), ..record(1000 + i) }));
            store.query(&all()).unwrap();
        }
    }
    let of = |function: &str| {
        let filter = LogFilter { function: Some(function.to_owned()), ..LogFilter::default() };
        store.query(&filtered(filter)).unwrap().records
    };
    let quiet = of("quiet");
    assert_eq!(quiet.len(), 7);
    assert!(quiet.iter().all(|record| record.output_cut_bytes == 0));
    let flood = of("flood");
    // The rest of each record stays: it is how one finds the flood.
    assert!(flood.len() > 50, "{}", flood.len());
    let printed: usize = flood.iter().map(|record| record.output.len()).sum();
    assert!(printed < 130_000, "{printed}");
    let cut: Vec<_> = flood.iter().filter(|record| record.output_cut_bytes > 0).collect();
    assert!(cut.len() > 40);
    assert!(cut.iter().all(|record| record.output.ends_with("a function may log\n")));
    assert_eq!(cut.iter().map(|record| record.output_cut_bytes).sum::<u64>(), store.stats().cut_bytes.get());
}

#[test]
fn one_function_gets_half_of_the_queue_and_a_full_queue_never_blocks() {
    let world = World::new();
    let options = LogOptions { queue_records: 8, ..LogOptions::default() };
    // The writer is held at the door of its first write by a clock that waits.
    let gate = Arc::new((parking_lot::Mutex::new(false), parking_lot::Condvar::new()));
    let reached = Arc::new(AtomicBool::new(false));
    let environment = {
        let (gate, reached) = (Arc::clone(&gate), Arc::clone(&reached));
        let calls = AtomicUsize::new(0);
        Environment {
            disk: Box::new(RealDisk),
            clock: Arc::new(move || {
                // The first call is the look for old segments at start.
                if calls.fetch_add(1, Ordering::SeqCst) > 0 {
                    reached.store(true, Ordering::SeqCst);
                    let mut is_open = gate.0.lock();
                    gate.1.wait_while(&mut is_open, |is_open| !*is_open);
                }
                NOON
            }),
        }
    };
    let store = LogStore::open_in(world.dir.path(), options, environment).unwrap();
    store.record(record(0));
    let deadline = Instant::now() + Duration::from_secs(10);
    while !reached.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let of = |function: &str, i| InvocationRecord { function: function.to_owned(), ..record(i) };
    let started = Instant::now();
    let accepted = (1..=20).filter(|i| store.record(of("greedy", *i))).count();
    assert_eq!(accepted, 4);
    assert_eq!(store.stats().dropped_function.get(), 16);
    let accepted = (21..=40).filter(|i| store.record(of(&format!("f{i}"), *i))).count();
    assert_eq!(accepted, 4);
    assert_eq!(store.stats().dropped_queue.get(), 16);
    assert!(started.elapsed() < Duration::from_secs(1), "record() waited");
    *gate.0.lock() = true;
    gate.1.notify_all();
    assert_eq!(store.query(&all()).unwrap().total, 9);
    // Places in the queue come back.
    assert!(store.record(of("greedy", 50)));
    assert_eq!(store.query(&all()).unwrap().total, 10);
}

#[test]
fn following_sees_each_record_once() {
    let world = World::new();
    let store = world.open(LogOptions { segment_minutes: 1, ..LogOptions::default() });
    let filter = LogFilter { function: Some("f1".to_owned()), ..LogFilter::default() };
    let (none, start) = store.follow(&filter, None, 10).unwrap();
    assert!(none.is_empty());
    let mut cursor = start;
    let mut seen = Vec::new();
    for i in 0..100 {
        store.record(record(i));
        if i % 17 == 0 {
            loop {
                let (records, next) = store.follow(&filter, Some(cursor), 2).unwrap();
                assert!(records.len() <= 2);
                // The cursor travels as text between two requests.
                cursor = LogCursor::parse(&next.to_string()).unwrap();
                if records.is_empty() {
                    break;
                }
                seen.extend(numbers(&records));
            }
        }
        if i % 40 == 0 {
            store.query(&all()).unwrap();
            world.advance(MINUTE);
        }
    }
    seen.extend(numbers(&store.follow(&filter, Some(cursor), 100).unwrap().0));
    assert_eq!(seen, (0..100).filter(|i| i % 5 == 1).collect::<Vec<_>>());
    assert!(world.files("jsonl").len() > 1);
    let (_, end) = store.follow(&filter, None, 10).unwrap();
    assert!(store.follow(&filter, Some(end), 10).unwrap().0.is_empty());
    // From the very start, and from a segment that is gone.
    let (records, _) = store.follow(&filter, LogCursor::parse("19700101-0000:7"), 100).unwrap();
    assert_eq!(records.len(), 20);
    assert_eq!(LogCursor::parse("x"), None);
}

#[test]
fn many_threads_record_and_query_at_once() {
    let world = World::new();
    let store = world.open(LogOptions { max_bytes: 1 << 20, ..LogOptions::default() });
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for i in 0..2000 {
                    let record = InvocationRecord { function: format!("t{thread}"), ..record(thread * 10_000 + i) };
                    // A full queue is answered at once; here nothing may be lost.
                    while !store.record(record.clone()) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let query = LogQuery { limit: 50, descending: true, ..LogQuery::default() };
                    let page = store.query(&query).unwrap();
                    assert!(page.records.len() <= 50);
                }
            });
        }
    });
    store.close();
    assert_eq!(store.stats().written.get(), 8000);
}

#[test]
fn options_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        LogOptions { segment_minutes: 0, ..LogOptions::default() },
        LogOptions { segment_minutes: 1441, ..LogOptions::default() },
        LogOptions { max_bytes: 0, ..LogOptions::default() },
        LogOptions { queue_records: 0, ..LogOptions::default() },
    ] {
        assert!(matches!(LogStore::open(dir.path(), options), Err(LogError::Options(_))));
    }
}
