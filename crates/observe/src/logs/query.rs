//! Searching segments: filter and sort by the index, read only the lines that are asked for.

use super::LogError;
use super::index::{Entry, low_half, name_hash, short_hash};
use super::segment::{Segment, SegmentReader};
use super::time::SegmentKey;
use mayfly_model::limits::LOG_QUERY_WINDOW_MAX;
use mayfly_model::{InvocationRecord, RequestId, Status};
use regex::bytes::Regex;
use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::io;
use std::sync::Arc;

/// Size of the lines that one answer holds, in bytes (one record always fits). The rest of the page is left off, and the answer says so.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Which endings of invocations a query wants: the values of SCF's `Filter.RetCode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StatusFilter {
    /// All.
    #[default]
    Any,
    /// `is0`: the handler returned a value.
    Ok,
    /// `not0`: anything else.
    NotOk,
    /// `TimeLimitExceeded`: 433, and 450 for initialisation.
    TimeLimitExceeded,
    /// `ResourceLimitExceeded`: out of memory (434), quota (432) or machine (429, 449).
    ResourceLimitExceeded,
    /// `UserCodeException`: user code threw (430), could not be loaded (443), or ended its process (439).
    UserCodeException,
}

impl StatusFilter {
    /// Reads a `RetCode`. `None` when it is not one of SCF's.
    pub fn parse(ret_code: &str) -> Option<Self> {
        Some(match ret_code {
            "" => Self::Any,
            "is0" => Self::Ok,
            "not0" => Self::NotOk,
            "TimeLimitExceeded" => Self::TimeLimitExceeded,
            "ResourceLimitExceeded" => Self::ResourceLimitExceeded,
            "UserCodeException" => Self::UserCodeException,
            _ => return None,
        })
    }

    /// True when an invocation that ended so is wanted.
    pub fn matches(self, status: Status) -> bool {
        match self {
            Self::Any => true,
            Self::Ok => !status.is_failure(),
            Self::NotOk => status.is_failure(),
            Self::TimeLimitExceeded => matches!(status, Status::TIME_LIMIT | Status::INIT_TIMEOUT),
            Self::ResourceLimitExceeded => matches!(
                status,
                Status::MEMORY_LIMIT
                    | Status::CONCURRENCY_EXCEEDED
                    | Status::RESOURCE_LIMIT
                    | Status::INSUFFICIENT_RESOURCES
            ),
            Self::UserCodeException => {
                matches!(status, Status::USER_EXCEPTION | Status::USER_CODE_ERROR | Status::PROCESS_EXIT)
            }
        }
    }
}

/// Which records are wanted. Every field that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFilter {
    /// Namespace of the function.
    pub namespace: Option<String>,
    /// Name of the function.
    pub function: Option<String>,
    /// The version that ran, or the alias that was called.
    pub version: Option<String>,
    /// One invocation (with its retries).
    pub request_id: Option<RequestId>,
    /// How it ended.
    pub status: StatusFilter,
    /// Began at this time or later, in milliseconds since the epoch.
    pub from_ms: Option<u64>,
    /// Began at this time or earlier, in milliseconds since the epoch.
    pub to_ms: Option<u64>,
    /// Text that the output or the return value holds, in exactly these letters.
    pub keyword: Option<String>,
    /// Only what ran asynchronous events.
    pub events_only: bool,
}

impl LogFilter {
    /// True when the record is wanted.
    pub fn matches(&self, record: &InvocationRecord) -> bool {
        fn is(wanted: &Option<String>, value: &str) -> bool {
            wanted.as_ref().is_none_or(|wanted| wanted == value)
        }
        is(&self.namespace, &record.namespace)
            && is(&self.function, &record.function)
            && (is(&self.version, &record.version) || is(&self.version, &record.qualifier))
            && self.request_id.is_none_or(|id| id == record.request_id)
            && self.status.matches(record.status)
            && (!self.events_only || record.event.is_some())
            && self.from_ms.is_none_or(|from| from <= record.start_ms)
            && self.to_ms.is_none_or(|to| record.start_ms <= to)
            && self
                .keyword
                .as_ref()
                .is_none_or(|text| record.output.contains(text.as_str()) || record.ret_msg.contains(text.as_str()))
    }
}

/// What records are ordered by: the values of SCF's `OrderBy`. Equal ones are in order of their start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogOrder {
    /// `start_time`.
    #[default]
    StartTime,
    /// `duration`.
    Duration,
    /// `mem_usage`.
    MemUsage,
    /// `function_name`.
    FunctionName,
}

/// One question to the log store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Which records.
    pub filter: LogFilter,
    /// In which order.
    pub order_by: LogOrder,
    /// Largest (latest) first.
    pub descending: bool,
    /// Matching records to leave out at the start.
    pub offset: u64,
    /// Most records to answer.
    pub limit: u64,
}

/// The answer to a [`LogQuery`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogPage {
    /// Matching records, whether on this page or not.
    pub total: u64,
    /// The page, in the order asked for.
    pub records: Vec<InvocationRecord>,
    /// True when records of the page were left off because they are too large together; ask again behind the last one.
    pub is_cut: bool,
}

/// A place in the log, for following it. Shown and read as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogCursor {
    segment: SegmentKey,
    /// Records of that segment that were seen.
    seen: u64,
}

impl LogCursor {
    /// Reads the text form. `None` when it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (segment, seen) = text.split_once(':')?;
        Some(Self { segment: SegmentKey::parse(segment)?, seen: seen.parse().ok()? })
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.seen)
    }
}

/// A filter made ready for entries and raw lines.
struct Plan<'a> {
    filter: &'a LogFilter,
    namespace: Option<u64>,
    function: Option<u64>,
    version: Option<u32>,
    request: Option<u64>,
    from_ms: u64,
    to_ms: u64,
    /// The keyword as it stands in a JSON line.
    keyword: Option<Regex>,
}

impl<'a> Plan<'a> {
    fn new(filter: &'a LogFilter) -> Self {
        let hash = |name: &Option<String>| name.as_ref().map(|name| name_hash(&[name]));
        Self {
            filter,
            namespace: hash(&filter.namespace),
            function: hash(&filter.function),
            version: filter.version.as_deref().map(short_hash),
            request: filter.request_id.map(|id| low_half(id.0)),
            from_ms: filter.from_ms.unwrap_or(0),
            to_ms: filter.to_ms.unwrap_or(u64::MAX),
            keyword: filter.keyword.as_deref().and_then(keyword_in_json),
        }
    }

    fn entry_matches(&self, entry: &Entry) -> bool {
        self.request.is_none_or(|v| v == entry.request)
            && self.function.is_none_or(|v| v == entry.function)
            && self.namespace.is_none_or(|v| v == entry.namespace)
            && (self.from_ms..=self.to_ms).contains(&entry.start_ms)
            && self.version.is_none_or(|v| v == entry.version || v == entry.qualifier)
            && self.filter.status.matches(Status(entry.status))
    }

    /// Looks into the line where the entry alone cannot tell.
    fn line_matches(&self, reader: &SegmentReader, entry: &Entry, line: &mut Vec<u8>) -> io::Result<bool> {
        if self.filter.keyword.is_none() && self.request.is_none() {
            return Ok(true);
        }
        if !reader.line(entry, line)? || self.keyword.as_ref().is_some_and(|keyword| !keyword.is_match(line)) {
            return Ok(false);
        }
        // The keyword may be in another field, and the entry holds half of the request id only.
        Ok(serde_json::from_slice(line).is_ok_and(|record| self.filter.matches(&record)))
    }
}

/// The writer escapes text in one way only, so a keyword is found without reading the JSON of lines that do not have it.
fn keyword_in_json(keyword: &str) -> Option<Regex> {
    let quoted = serde_json::to_string(keyword).ok()?;
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    // Only a keyword of megabytes is too large for this, and is then looked for record by record.
    Regex::new(&regex::escape(inner)).ok()
}

/// A matching entry, with what it is ordered by.
struct Ranked {
    key: Key,
    start_ms: u64,
    /// Position of its segment in the snapshot.
    segment: usize,
    number: u64,
    entry: Entry,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u64),
    Name(Arc<str>),
}

impl Ranked {
    fn rank(&self) -> (&Key, u64, usize, u64) {
        (&self.key, self.start_ms, self.segment, self.number)
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// Keeps the first `room` in the order asked for, out of any number.
enum Window {
    Ascending(BinaryHeap<Ranked>),
    Descending(BinaryHeap<Reverse<Ranked>>),
}

impl Window {
    fn new(descending: bool) -> Self {
        if descending { Self::Descending(BinaryHeap::new()) } else { Self::Ascending(BinaryHeap::new()) }
    }

    fn add(&mut self, ranked: Ranked, room: usize) {
        match self {
            Self::Ascending(heap) => push_bounded(heap, ranked, room),
            Self::Descending(heap) => push_bounded(heap, Reverse(ranked), room),
        }
    }

    fn into_sorted(self) -> Vec<Ranked> {
        match self {
            Self::Ascending(heap) => heap.into_sorted_vec(),
            Self::Descending(heap) => heap.into_sorted_vec().into_iter().map(|Reverse(ranked)| ranked).collect(),
        }
    }
}

fn push_bounded<T: Ord>(heap: &mut BinaryHeap<T>, value: T, room: usize) {
    if heap.len() < room {
        heap.push(value);
    } else if let Some(mut worst) = heap.peek_mut()
        && value < *worst
    {
        *worst = value;
    }
}

pub(super) fn run(segments: &[Arc<Segment>], query: &LogQuery) -> Result<LogPage, LogError> {
    let io = LogError::io("read the log store");
    let room = query.offset.checked_add(query.limit).filter(|room| *room <= LOG_QUERY_WINDOW_MAX);
    let room = room.ok_or(LogError::Window { max: LOG_QUERY_WINDOW_MAX })? as usize;
    let plan = Plan::new(&query.filter);
    let mut window = Window::new(query.descending);
    let mut total = 0;
    let mut names = HashMap::new();
    let mut line = Vec::new();
    for (position, segment) in segments.iter().enumerate() {
        if segment.misses(plan.from_ms, plan.to_ms) {
            continue;
        }
        // Removed by retention since the snapshot was taken.
        let Some(reader) = segment.reader().map_err(&io)? else { continue };
        let (mut first, mut last) = (u64::MAX, 0);
        let scan = |number, entry: Entry| {
            first = first.min(entry.start_ms);
            last = last.max(entry.start_ms);
            if plan.entry_matches(&entry) && plan.line_matches(&reader, &entry, &mut line)? {
                total += 1;
                let key = match query.order_by {
                    LogOrder::StartTime => Key::Number(entry.start_ms),
                    LogOrder::Duration => Key::Number(entry.duration_us.into()),
                    LogOrder::MemUsage => Key::Number(entry.memory_kib.into()),
                    LogOrder::FunctionName => Key::Name(function_name(&mut names, &reader, &entry, &mut line)?),
                };
                window.add(Ranked { key, start_ms: entry.start_ms, segment: position, number, entry }, room);
            }
            Ok(true)
        };
        reader.entries(0, reader.records, scan).map_err(&io)?;
        if !segment.range_is_known() {
            segment.learn_range(first, last);
        }
    }
    let offset = usize::try_from(query.offset).unwrap_or(usize::MAX);
    let page: Vec<Ranked> = window.into_sorted().into_iter().skip(offset).collect();
    let (records, is_cut) = read_page(segments, &query.filter, &page, &mut line).map_err(&io)?;
    Ok(LogPage { total, records, is_cut })
}

/// The name behind a hash, read from the first record that has it.
fn function_name(
    names: &mut HashMap<u64, Arc<str>>,
    reader: &SegmentReader,
    entry: &Entry,
    line: &mut Vec<u8>,
) -> io::Result<Arc<str>> {
    if let Some(name) = names.get(&entry.function) {
        return Ok(Arc::clone(name));
    }
    let name: Arc<str> = reader.record(entry, line)?.map_or("".into(), |record| record.function.into());
    if !name.is_empty() {
        names.insert(entry.function, Arc::clone(&name));
    }
    Ok(name)
}

fn read_page(
    segments: &[Arc<Segment>],
    filter: &LogFilter,
    page: &[Ranked],
    line: &mut Vec<u8>,
) -> io::Result<(Vec<InvocationRecord>, bool)> {
    let mut open: Option<(usize, Option<SegmentReader>)> = None;
    let mut records = Vec::new();
    let mut bytes = 0;
    for ranked in page {
        if bytes > 0 && bytes + ranked.entry.bytes as usize > PAGE_BYTES_MAX {
            return Ok((records, true));
        }
        if open.as_ref().is_none_or(|(position, _)| *position != ranked.segment) {
            open = Some((ranked.segment, segments[ranked.segment].reader()?));
        }
        let Some((_, Some(reader))) = &open else { continue };
        // Checked once more: two names may have one hash, and the files may have been replaced since they were searched.
        if let Some(record) = reader.record(&ranked.entry, line)?.filter(|record| filter.matches(record)) {
            bytes += ranked.entry.bytes as usize;
            records.push(record);
        }
    }
    Ok((records, false))
}

pub(super) fn follow(
    segments: &[Arc<Segment>],
    filter: &LogFilter,
    after: Option<LogCursor>,
    limit: usize,
) -> Result<(Vec<InvocationRecord>, LogCursor), LogError> {
    let io = LogError::io("read the log store");
    let end =
        segments.last().map_or(LogCursor { segment: SegmentKey { minute: 0, sequence: 0 }, seen: 0 }, |segment| {
            LogCursor { segment: segment.key, seen: segment.records() }
        });
    let Some(after) = after else { return Ok((Vec::new(), end)) };
    let mut cursor = after;
    let plan = Plan::new(filter);
    let (mut records, mut bytes, mut line, mut line2) = (Vec::new(), 0, Vec::new(), Vec::new());
    for segment in segments.iter().filter(|segment| segment.key >= after.segment) {
        let first = if segment.key == after.segment { after.seen } else { 0 };
        let Some(reader) = segment.reader().map_err(&io)? else { continue };
        let (seen, mut is_full) = (reader.records, false);
        cursor = LogCursor { segment: segment.key, seen: seen.max(first) };
        let scan = |number, entry: Entry| {
            if plan.entry_matches(&entry) && plan.line_matches(&reader, &entry, &mut line)? {
                is_full = records.len() >= limit || (bytes > 0 && bytes + entry.bytes as usize > PAGE_BYTES_MAX);
                if is_full {
                    cursor.seen = number;
                    return Ok(false);
                }
                if let Some(record) = reader.record(&entry, &mut line2)?.filter(|record| filter.matches(record)) {
                    bytes += entry.bytes as usize;
                    records.push(record);
                }
            }
            Ok(true)
        };
        reader.entries(first, seen, scan).map_err(&io)?;
        if is_full {
            break;
        }
    }
    Ok((records, cursor))
}
