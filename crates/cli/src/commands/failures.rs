//! `mayfly failures`: what failed, why, and running it again.

use super::{Context, confirm, logs, namespace_flag, quoted};
use crate::api::{
    CancelReplayJob, DeleteFailures, Failure, FailureFilter, GetFailure, GetFunctionFailures, GetReplayJob,
    ListFailures, ListReplayJobs, PutFunctionFailures, ReplayFailures, ReplayJob,
};
use crate::error::{CliError, Kind};
use crate::output::{bytes, printable};
use chrono::{Duration as Span, Local};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// Page size of lists.
const PAGE: u64 = 100;
/// How often a job is asked how far it is.
const POLL: Duration = Duration::from_millis(300);
/// Largest event that is read from a file, in bytes.
const EVENT_BYTES_MAX: u64 = 1 << 20;

/// What failed, with its scene, and running it again.
///
/// Asynchronous events that failed for good are always kept, failures of other calls when `mayfly failures keep NAME --capture on` says so.
#[derive(Debug, Args)]
pub struct FailuresArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: FailuresCommand,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum FailuresCommand {
    /// List failures, newest first
    Ls(LsArgs),
    /// Show a failure: event, error, log, resource use, replays
    Show(ShowArgs),
    /// Run failures again
    Replay(ReplayArgs),
    /// Forget failures
    Rm(RmArgs),
    /// List replay jobs, newest first, or show one
    Jobs(JobsArgs),
    /// End the sending of a replay job; what was sent runs
    Cancel(CancelArgs),
    /// Show or set what is kept of a function's failures
    Keep(KeepArgs),
}

/// Which failures are meant.
#[derive(Clone, Debug, Default, Args)]
pub struct Which {
    /// Only of this function
    #[arg(long = "function", short = 'F', value_name = "NAME")]
    pub function: Option<String>,
    /// Only of this namespace; of a function: its namespace [default: all; with --function: default]
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Only of this version
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Only those that ended with this status, such as 430
    #[arg(long, value_name = "CODE")]
    pub status: Option<u64>,
    /// Only those from here: invoke, event, url, destination, or the type of a trigger
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
    /// Only those whose error has this text, in any case
    #[arg(long = "error", value_name = "TEXT")]
    pub error: Option<String>,
    /// Only those that failed at most this long ago: 30s, 10m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = logs::seconds)]
    pub since: Option<i64>,
    /// Only those that failed at least this long ago
    #[arg(long, value_name = "TIME", value_parser = logs::seconds)]
    pub until: Option<i64>,
}

impl Which {
    fn filter(&self) -> FailureFilter {
        let ago = |seconds: i64| {
            let time = Span::try_seconds(seconds).and_then(|span| Local::now().checked_sub_signed(span));
            time.map(|time| time.format("%Y-%m-%d %H:%M:%S").to_string())
        };
        FailureFilter {
            request_ids: Vec::new(),
            namespace: self.namespace.clone(),
            function_name: self.function.clone(),
            version: self.version.clone(),
            status_code: self.status,
            source: self.source.clone(),
            error: self.error.clone(),
            start_time: self.since.and_then(ago),
            end_time: self.until.and_then(ago),
            resolved: None,
            replays: None,
        }
    }
}

/// Which failures something is done with: by id, by a filter, or all.
#[derive(Debug, Args)]
pub struct Chosen {
    /// Ids of the requests that failed
    #[arg(value_name = "REQUEST_ID")]
    pub request_ids: Vec<String>,
    #[command(flatten)]
    which: Which,
    /// Those of all functions
    #[arg(long)]
    pub all: bool,
}

impl Chosen {
    fn filter(&self) -> FailureFilter {
        FailureFilter { request_ids: self.request_ids.clone(), ..self.which.filter() }
    }

    /// What the API asks for before it takes a filter that lets everything pass.
    fn all(&self) -> Option<bool> {
        self.all.then_some(true)
    }
}

/// Options of `failures ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    #[command(flatten)]
    which: Which,
    /// Only those that no replay has resolved
    #[arg(long, conflicts_with = "resolved")]
    pub open: bool,
    /// Only those that a replay has resolved
    #[arg(long)]
    pub resolved: bool,
    /// Also failures that were replays of others
    #[arg(long)]
    pub replays: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub limit: u64,
}

/// Options of `failures show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Id of the request that failed
    pub request_id: String,
    /// Print the event only, as it was: to edit it for `replay --event`
    #[arg(long)]
    pub event: bool,
}

/// Run failures again, as asynchronous events.
///
/// Those that a replay has resolved, or that have one under way, are passed over: asking twice is safe. The job goes on when this command ends,
/// and through a restart of the platform.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Version or alias to run [default: the one first asked for]
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Event in place of the failure's own, for one id; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub event: Option<PathBuf>,
    /// Most replays sent in a second [default: as fast as events are taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub rate: Option<u64>,
    /// Also those that are resolved or have a replay under way
    #[arg(long)]
    pub again: bool,
    /// Only say how many there are, and list the first 100
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
    /// Wait until all have ended; exits with 3 when one has failed
    #[arg(long)]
    pub wait: bool,
    /// A name of your own for this job: asking twice with it is the same job
    #[arg(long, value_name = "TEXT")]
    pub token: Option<String>,
}

/// Options of `failures rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask
    #[arg(long, short = 'y')]
    pub yes: bool,
}

/// Options of `failures jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Only this job
    pub job: Option<String>,
    /// Wait until everything of it has ended; exits with 3 when one has failed
    #[arg(long, requires = "job")]
    pub wait: bool,
}

/// Options of `failures cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job
    pub job: String,
}

/// Options of `failures keep`.
#[derive(Debug, Args)]
pub struct KeepArgs {
    /// The function
    pub name: String,
    /// Whether failures of synchronous calls are kept too
    #[arg(long, value_name = "SWITCH", value_parser = ["on", "off"])]
    pub capture: Option<String>,
    /// For how long failures are kept from now on, in hours (1 to 8760); 0: the default, 168
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(0..=8760))]
    pub retention: Option<u64>,
    #[command(flatten)]
    pub place: crate::cli::InNamespace,
}

/// Runs the command.
pub fn run(args: &FailuresArgs, context: &Context) -> Result<(), CliError> {
    match &args.command {
        FailuresCommand::Ls(args) => ls(args, context),
        FailuresCommand::Show(args) => show(args, context),
        FailuresCommand::Replay(args) => replay(args, context),
        FailuresCommand::Rm(args) => rm(args, context),
        FailuresCommand::Jobs(args) => jobs(args, context),
        FailuresCommand::Cancel(args) => {
            let answer = context.client.call(&CancelReplayJob { job_id: args.job.clone() })?;
            context.out.note(format_args!("job {} sends no more", args.job));
            print_job(context, &answer.raw, &answer.body.job);
            Ok(())
        }
        FailuresCommand::Keep(args) => keep(args, context),
    }
}

fn ls(args: &LsArgs, context: &Context) -> Result<(), CliError> {
    let mut filter = args.which.filter();
    filter.resolved = (args.open || args.resolved).then_some(args.resolved);
    filter.replays = args.replays.then_some(true);
    let (mut found, mut raw, mut cursor, mut total) = (Vec::new(), Vec::new(), None, 0);
    while (found.len() as u64) < args.limit {
        let limit = PAGE.min(args.limit - found.len() as u64);
        let answer = context.client.call(&ListFailures { filter: filter.clone(), cursor: cursor.take(), limit })?;
        raw.extend(super::raw_items(&answer, "Failures")?);
        total = answer.body.total_count;
        found.extend(answer.body.failures);
        match answer.body.next_cursor {
            next if next.is_empty() => break,
            next => cursor = Some(next),
        }
    }
    if context.out.is_json() {
        context.out.json(&serde_json::Value::Array(raw).to_string());
        return Ok(());
    }
    if found.is_empty() {
        context.out.note("no failures are kept that match");
        return Ok(());
    }
    table(context, &found);
    if total > found.len() as u64 {
        context.out.note(format_args!("{} of {total} failures; --limit shows more", found.len()));
    }
    Ok(())
}

fn table(context: &Context, failures: &[Failure]) {
    let row = |f: &Failure| {
        let place = if f.namespace == "default" { String::new() } else { format!("{}/", f.namespace) };
        let state = match (f.resolved_by.is_empty(), f.origin.is_empty()) {
            (false, _) => "resolved",
            (true, false) => "replay",
            (true, true) => "open",
        };
        vec![
            f.function_request_id.clone(),
            f.failed_time.clone(),
            format!("{place}{}", f.function_name),
            f.version.clone(),
            f.source.clone(),
            f.status_code.to_string(),
            state.to_owned(),
            telling(&f.error_message).chars().take(100).collect(),
        ]
    };
    let header = ["REQUEST ID", "FAILED", "FUNCTION", "VERSION", "SOURCE", "STATUS", "STATE", "ERROR"];
    context.out.table(&header, failures.iter().map(row).collect());
}

/// The line of an error that says most: Python's stacks have it last, others' first.
fn telling(error: &str) -> &str {
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.next() {
        Some(first) if first.starts_with("Traceback") => lines.next_back().unwrap_or(first),
        first => first.unwrap_or_default(),
    }
}

fn show(args: &ShowArgs, context: &Context) -> Result<(), CliError> {
    let answer = context.client.call(&GetFailure { function_request_id: args.request_id.clone() })?;
    let f = &answer.body;
    if args.event {
        context.out.line(&f.event);
        return Ok(());
    }
    if context.out.is_json() {
        context.out.json(&answer.raw);
        return Ok(());
    }
    let cold = f.cold_start.as_ref().map(|c| format!("{:.1} ms, {} ({})", c.total, c.reason, c.kind));
    let rows = [
        ("request id", f.function_request_id.clone()),
        ("function", format!("{}/{}", f.namespace, f.function_name)),
        ("asked for", f.qualifier.clone()),
        ("version", f.version.clone()),
        ("source", f.source.clone()),
        ("status", f.status_code.to_string()),
        ("accepted", f.accepted_time.clone()),
        ("failed", f.failed_time.clone()),
        ("retries", f.retry_num.to_string()),
        ("duration", format!("{:.1} ms", f.duration)),
        ("memory", format!("{} of {} MB", bytes(f.mem_usage), f.memory_size)),
        ("cold start", cold.unwrap_or_default()),
        ("environment", f.environment_names.join(", ")),
        ("replay of", f.origin.clone()),
        ("resolved by", f.resolved_by.clone()),
        ("note", f.note.replace('\n', " ")),
        ("kept until", f.expire_time.clone()),
    ];
    let rows = rows.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| vec![k.to_owned(), v]).collect();
    context.out.table(&[], rows);
    for (title, text) in [("event", &f.event), ("error", &f.error_message), ("log", &f.log)] {
        if !text.trim().is_empty() {
            context.out.line(format_args!("\n{title}:"));
            for line in text.lines() {
                context.out.line(format_args!("  {}", printable(line)));
            }
        }
    }
    if !f.replays.is_empty() {
        context.out.line("\nreplays:");
        let rows = f.replays.iter().map(|r| {
            let status = if r.status_code == 0 { String::new() } else { r.status_code.to_string() };
            vec![r.function_request_id.clone(), r.start_time.clone(), r.state.clone(), status, r.job_id.clone()]
        });
        context.out.table(&["REQUEST ID", "STARTED", "STATE", "STATUS", "JOB"], rows.collect());
    } else if f.origin.is_empty() {
        let id = &f.function_request_id;
        context
            .out
            .note(format_args!("\n`mayfly failures replay {id}` runs it again, `--to VERSION` on another version"));
    }
    Ok(())
}

fn event_of(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = match path.as_os_str().to_str() {
        Some("-") => std::io::stdin().lock().take(EVENT_BYTES_MAX).read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|file| file.take(EVENT_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(|e| CliError::local(format!("cannot read the event from {}: {e}", path.display())))?;
    if text.trim().is_empty() {
        return Err(CliError::local(format!("{} holds no event", path.display())));
    }
    Ok(text)
}

fn replay(args: &ReplayArgs, context: &Context) -> Result<(), CliError> {
    let request = ReplayFailures {
        filter: args.chosen.filter(),
        all: args.chosen.all(),
        qualifier: args.to.clone(),
        event: args.event.as_deref().map(event_of).transpose()?,
        rate: args.rate,
        again: args.again.then_some(true),
        dry_run: args.dry_run.then_some(true),
        client_token: args.token.clone(),
    };
    let answer = context.client.call(&request).map_err(|error| {
        let hint = "name ids, or a filter such as --function NAME or --since 1h, or --all";
        if error.is_api("MissingParameter") { error.hint(hint) } else { error }
    })?;
    if args.dry_run {
        if context.out.is_json() {
            context.out.json(&answer.raw);
        } else {
            context.out.line(format_args!("{} would be replayed", count(answer.body.total_count)));
            if !answer.body.failures.is_empty() {
                table(context, &answer.body.failures);
            }
        }
        return Ok(());
    }
    let job = &answer.body.job;
    if job.total == 0 {
        context.out.note("no open failures match; --again takes those that are resolved or under way too");
    } else {
        context.out.note(format_args!("job {} replays {}", job.job_id, count(job.total)));
    }
    if args.wait {
        return wait(context, &job.job_id);
    }
    print_job(context, &answer.raw, job);
    context.out.note(format_args!("`mayfly failures jobs {} --wait` waits for it", job.job_id));
    Ok(())
}

fn count(n: u64) -> String {
    if n == 1 { "1 failure".to_owned() } else { format!("{n} failures") }
}

/// Waits for the end of a job. Errors: of kind `Function` when a replay has failed.
fn wait(context: &Context, id: &str) -> Result<(), CliError> {
    let drawn = context.out.stderr_is_terminal && !context.out.quiet && !context.out.is_json();
    let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template("replaying {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    loop {
        let answer = context.client.call(&GetReplayJob { job_id: id.to_owned() })?;
        let job = &answer.body.job;
        bar.set_length(if job.state == "sending" { job.total } else { job.sent });
        bar.set_position(job.succeeded + job.failed);
        bar.set_message(format!("{} failed", job.failed));
        if job.is_over {
            bar.finish_and_clear();
            print_job(context, &answer.raw, job);
            return match job.failed {
                0 => Ok(()),
                n => Err(CliError::new(Kind::Function, format!("{n} of {} replays failed", job.sent))
                    .hint("`mayfly failures ls --replays` shows them")),
            };
        }
        sleep(POLL);
    }
}

fn print_job(context: &Context, raw: &str, job: &ReplayJob) {
    if context.out.is_json() {
        context.out.json(raw);
    } else {
        job_table(context, std::slice::from_ref(job));
    }
}

fn job_table(context: &Context, jobs: &[ReplayJob]) {
    let row = |j: &ReplayJob| {
        vec![
            j.job_id.clone(),
            j.create_time.clone(),
            j.state.clone(),
            j.total.to_string(),
            j.sent.to_string(),
            j.succeeded.to_string(),
            j.failed.to_string(),
        ]
    };
    let header = ["JOB", "CREATED", "STATE", "TOTAL", "SENT", "SUCCEEDED", "FAILED"];
    context.out.table(&header, jobs.iter().map(row).collect());
}

fn rm(args: &RmArgs, context: &Context) -> Result<(), CliError> {
    if args.chosen.request_ids.is_empty()
        && !args.yes
        && !confirm("Forget these failures and their events?", context.out)?
    {
        context.out.note("nothing was removed");
        return Ok(());
    }
    let filter = args.chosen.filter();
    let answer = context.client.call(&DeleteFailures { filter, all: args.chosen.all() })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
    } else {
        context.out.note(format_args!("forgot {}", count(answer.body.deleted_count)));
    }
    Ok(())
}

fn jobs(args: &JobsArgs, context: &Context) -> Result<(), CliError> {
    match &args.job {
        Some(id) if args.wait => wait(context, id),
        Some(id) => {
            let answer = context.client.call(&GetReplayJob { job_id: id.clone() })?;
            print_job(context, &answer.raw, &answer.body.job);
            Ok(())
        }
        None => {
            let answer = context.client.call(&ListReplayJobs { offset: 0, limit: PAGE })?;
            match answer.body.jobs.as_slice() {
                _ if context.out.is_json() => {
                    context.out.json(&serde_json::Value::Array(super::raw_items(&answer, "Jobs")?).to_string());
                }
                [] => context.out.note("no failures have been replayed lately"),
                all => job_table(context, all),
            }
            Ok(())
        }
    }
}

fn keep(args: &KeepArgs, context: &Context) -> Result<(), CliError> {
    let (function_name, namespace) = (args.name.clone(), args.place.namespace.clone());
    if args.capture.is_some() || args.retention.is_some() {
        context.client.call(&PutFunctionFailures {
            function_name: function_name.clone(),
            namespace: namespace.clone(),
            capture: args.capture.as_ref().map(|switch| switch == "on"),
            retention_hours: args.retention,
        })?;
    }
    let answer = context.client.call(&GetFunctionFailures { function_name, namespace: namespace.clone() })?;
    if context.out.is_json() {
        context.out.json(&answer.raw);
        return Ok(());
    }
    let kept = &answer.body;
    let rows = vec![
        vec!["asynchronous".to_owned(), "kept".to_owned()],
        vec!["synchronous".to_owned(), if kept.capture { "kept" } else { "not kept" }.to_owned()],
        vec!["for".to_owned(), format!("{} hours", kept.retention_hours)],
    ];
    context.out.table(&[], rows);
    if !kept.capture {
        let name = quoted(&args.name);
        let place = namespace_flag(&namespace);
        context.out.note(format_args!(
            "`mayfly failures keep {name}{place} --capture on` keeps those of synchronous calls too"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_telling_line_of_an_error() {
        let python = "Traceback (most recent call last):\n  File \"index.py\", line 3\nKeyError: 'n'\n";
        assert_eq!(telling(python), "KeyError: 'n'");
        assert_eq!(telling("TypeError: x\n    at main (index.js:1)"), "TypeError: x");
        assert_eq!((telling(""), telling("Traceback")), ("", "Traceback"));
    }
}
