//! `mayfly logs`: what functions printed.

use super::Context;
use crate::api::{GetFunction, GetFunctionLogs, LogFilter, LogRecord, Logs};
use crate::cli::InNamespace;
use crate::client::Answer;
use crate::error::CliError;
use crate::output::{bytes, printable};
use chrono::{DateTime, Duration, Local};
use clap::Args;
use mayfly_model::limits;
use regex::Regex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::thread::sleep;

/// Records of one query. Small, since a record may hold a megabyte.
const PAGE: u64 = 50;
/// Longest time that one query may span: a day.
const SPAN_S: i64 = 86_400;
/// How far back `--since` may reach, in seconds.
const SINCE_S_MAX: i64 = 90 * SPAN_S;
/// How far back a request is looked for when no time is given: the platform's own default for keeping logs.
const REQUEST_SPAN_S: i64 = 7 * SPAN_S;
const FOLLOW_POLL: std::time::Duration = std::time::Duration::from_secs(1);
/// Most new records that one round of `--follow` reads.
const FOLLOW_RECORDS_MAX: usize = 2_000;

/// Show what functions printed, oldest first.
///
/// Each call is shown as one line (time, function, outcome, duration, request id) with its log below. Times are in this
/// machine's time zone, which must be that of the platform.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The function; without it, all functions of the namespace
    pub name: Option<String>,
    /// Go on and show new calls as they end
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Only calls that began at most this long ago: 30s, 10m, 2h, 1d [default: 1d; with --request-id: 7d]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub since: Option<i64>,
    /// Only this call
    #[arg(long, value_name = "ID", conflicts_with = "follow")]
    pub request_id: Option<String>,
    /// Only calls that failed
    #[arg(long)]
    pub errors: bool,
    /// At most so many calls: the newest ones
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub limit: u64,
    /// Only lines that match this regular expression, and only calls that have one
    #[arg(long, value_name = "REGEX")]
    pub grep: Option<String>,
    #[command(flatten)]
    pub place: InNamespace,
}

/// A record, typed and as it came.
type Record = (LogRecord, Value);

/// Tells a record from all others: an event that is retried keeps its request id.
type Key = (String, u64);

fn key(record: &LogRecord) -> Key {
    (record.request_id.clone(), record.retry_num)
}

/// Runs the command.
pub fn run(args: &LogsArgs, context: &Context) -> Result<(), CliError> {
    let grep = args
        .grep
        .as_deref()
        .map(Regex::new)
        .transpose()
        .map_err(|e| CliError::local(format!("--grep: {}", e.to_string().lines().last().unwrap_or_default())))?;
    let reader = Reader { args, context, grep };
    if args.follow {
        return reader.follow();
    }
    let span = args.since.unwrap_or(if args.request_id.is_some() { REQUEST_SPAN_S } else { SPAN_S });
    let records = reader.newest(Local::now(), span)?;
    if context.out.is_json() {
        let data: Vec<_> = records.into_iter().map(|(_, raw)| raw).collect();
        context.out.json(&json!({"TotalCount": data.len(), "Data": data}).to_string());
        return Ok(());
    }
    if records.is_empty() {
        context.out.note("no calls; see --since, or --errors off");
    }
    for (record, _) in &records {
        context.out.raw(&reader.render(record));
    }
    Ok(())
}

struct Reader<'a> {
    args: &'a LogsArgs,
    context: &'a Context,
    grep: Option<Regex>,
}

impl Reader<'_> {
    fn page(&self, from: DateTime<Local>, to: DateTime<Local>, offset: u64) -> Result<Answer<Logs>, CliError> {
        let show = |t: DateTime<Local>| t.format("%Y-%m-%d %H:%M:%S").to_string();
        self.context.client.call(&GetFunctionLogs {
            function_name: self.args.name.clone().unwrap_or_default(),
            namespace: self.args.place.namespace.clone(),
            qualifier: None,
            function_request_id: self.args.request_id.clone(),
            filter: self.args.errors.then(|| LogFilter { ret_code: "not0".into() }),
            start_time: Some(show(from)),
            end_time: Some(show(to)),
            order: "desc".into(),
            order_by: "start_time".into(),
            offset,
            limit: PAGE,
        })
    }

    /// Reads the records between two times, newest first, until `take` has enough.
    fn scan(
        &self,
        from: DateTime<Local>,
        to: DateTime<Local>,
        take: &mut dyn FnMut(Record) -> bool,
    ) -> Result<bool, CliError> {
        let mut offset = 0;
        while offset + PAGE <= limits::LOG_QUERY_WINDOW_MAX {
            let answer = self.page(from, to, offset)?;
            let raw = super::raw_items(&answer, "Data")?;
            let got = answer.body.data.len() as u64;
            for record in answer.body.data.into_iter().zip(raw) {
                if !take(record) {
                    return Ok(false);
                }
            }
            offset += got;
            if got < PAGE || offset >= answer.body.total_count {
                break;
            }
        }
        Ok(true)
    }

    fn matches(&self, record: &LogRecord) -> bool {
        self.grep.as_ref().is_none_or(|g| record.log.lines().any(|line| g.is_match(line)))
    }

    /// The newest records of the last `span` seconds, oldest first.
    fn newest(&self, now: DateTime<Local>, span: i64) -> Result<Vec<Record>, CliError> {
        let mut found: Vec<Record> = Vec::new();
        let mut known: HashMap<Key, ()> = HashMap::new();
        // A query spans a day at most. Windows share their border second, since times have no finer part.
        let mut end = now + Duration::seconds(1);
        let begin = now - Duration::seconds(span);
        while end > begin {
            let from = begin.max(end - Duration::seconds(SPAN_S));
            let more = self.scan(from, end, &mut |record| {
                if self.matches(&record.0) && known.insert(key(&record.0), ()).is_none() {
                    found.push(record);
                }
                (found.len() as u64) < self.args.limit
            })?;
            if !more {
                break;
            }
            end = from;
        }
        found.reverse();
        Ok(found)
    }

    /// Shows the newest records, then new ones as they come, until the process is ended.
    fn follow(&self) -> Result<(), CliError> {
        let overlap = self.overlap()?;
        let mut seen: HashMap<Key, String> = HashMap::new();
        let mut remember = |record: &LogRecord| seen.insert(key(record), record.start_time.clone()).is_none();
        // What has ended by now is known before the newest of it is shown, so that nothing is shown twice or late.
        let now = Local::now();
        self.scan(now - overlap, now + Duration::seconds(1), &mut |(record, _)| {
            remember(&record);
            true
        })?;
        for (record, raw) in self.newest(now, self.args.since.unwrap_or(SPAN_S))? {
            remember(&record);
            self.show(&record, &raw);
        }
        loop {
            sleep(FOLLOW_POLL);
            // A record appears when its call ends, and is found by when it began.
            let now = Local::now();
            let mut new: Vec<Record> = Vec::new();
            let whole = self.scan(now - overlap, now + Duration::seconds(1), &mut |record| {
                if seen.insert(key(&record.0), record.0.start_time.clone()).is_none() {
                    new.push(record);
                }
                new.len() < FOLLOW_RECORDS_MAX
            })?;
            if !whole {
                self.context.out.warning("more calls end than can be shown; some are left out");
            }
            for (record, raw) in new.iter().rev().filter(|(record, _)| self.matches(record)) {
                self.show(record, raw);
            }
            let oldest = (now - overlap - Duration::seconds(2)).format("%Y-%m-%d %H:%M:%S").to_string();
            seen.retain(|_, start| *start >= oldest);
        }
    }

    /// How long ago a call that ends now may have begun.
    fn overlap(&self) -> Result<Duration, CliError> {
        let longest = match &self.args.name {
            Some(name) => {
                let function = self.context.client.call(&GetFunction {
                    function_name: name.clone(),
                    namespace: self.args.place.namespace.clone(),
                    qualifier: None,
                })?;
                function.body.timeout + function.body.init_timeout
            }
            None => u64::from(limits::TIMEOUT_S_MAX + limits::INIT_TIMEOUT_S_MAX),
        };
        Ok(Duration::seconds(i64::try_from(longest).unwrap_or(SPAN_S).min(SPAN_S - 60) + 30))
    }

    fn show(&self, record: &LogRecord, raw: &Value) {
        match self.context.out.is_json() {
            true => self.context.out.line(raw),
            false => self.context.out.raw(&self.render(record)),
        }
    }

    fn render(&self, record: &LogRecord) -> String {
        render(record, self.grep.as_ref())
    }
}

/// The records of one request, first attempt first.
pub(super) fn of_request(id: &str, place: &InNamespace, context: &Context) -> Result<Vec<LogRecord>, CliError> {
    let args = LogsArgs {
        name: None,
        follow: false,
        since: None,
        request_id: Some(id.to_owned()),
        errors: false,
        limit: PAGE,
        grep: None,
        place: place.clone(),
    };
    let reader = Reader { args: &args, context, grep: None };
    Ok(reader.newest(Local::now(), REQUEST_SPAN_S)?.into_iter().map(|(record, _)| record).collect())
}

/// A record for people.
fn render(record: &LogRecord, grep: Option<&Regex>) -> String {
    let outcome = match record.ret_code {
        0 => "ok".to_owned(),
        code => format!("failed {code}"),
    };
    let retry = if record.retry_num > 0 { format!("  retry {}", record.retry_num) } else { String::new() };
    let mut text = format!(
        "{}  {}  {outcome}  {:.1} ms  {}  {}{retry}\n",
        record.start_time,
        printable(&record.function_name),
        record.duration,
        bytes(record.mem_usage),
        record.request_id
    );
    for line in record.log.lines().filter(|line| grep.is_none_or(|g| g.is_match(line))) {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Reads `30s`, `10m`, `2h` or `1d` into seconds.
pub(super) fn seconds(text: &str) -> Result<i64, String> {
    let bad = || format!("`{text}` is not a time such as 30s, 10m, 2h or 1d");
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(bad()),
    };
    let number: i64 = text[..text.len() - 1].parse().map_err(|_| bad())?;
    match number.checked_mul(unit) {
        Some(seconds) if (1..=SINCE_S_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(format!("`{text}` is not between 1s and {}d", SINCE_S_MAX / SPAN_S)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [("30s", 30), ("10m", 600), ("2h", 7200), ("90d", 90 * 86_400)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for bad in ["", "s", "10", "-1m", "0s", "1w", "91d", "99999999999999999d", "1é"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn records_are_a_line_and_their_log() {
        let record = LogRecord {
            function_name: "words".into(),
            request_id: "r-1".into(),
            start_time: "2026-01-02 03:04:05".into(),
            ret_code: 430,
            duration: 12.34,
            mem_usage: 20 << 20,
            retry_num: 1,
            log: "START\nhello\nERROR boom\n".into(),
            ..Default::default()
        };
        insta::assert_snapshot!(render(&record, None), @r"
        2026-01-02 03:04:05  words  failed 430  12.3 ms  20.0 MB  r-1  retry 1
          START
          hello
          ERROR boom
        ");
        let grep = Regex::new("hel+o").unwrap();
        assert!(render(&record, Some(&grep)).ends_with("retry 1\n  hello\n"));
    }
}
