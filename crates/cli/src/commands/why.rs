//! `mayfly why`: where the time of one call went, and why an instance had to start for it.

use super::{Context, logs};
use crate::api::LogRecord;
use crate::cli::InNamespace;
use crate::error::CliError;
use clap::Args;
use serde_json::json;

/// Say why a call took as long as it did: its wait, the start it waited for and the start's reason and phases, its run.
///
/// The id is what `invoke` and `logs` show, and the `X-Scf-Request-Id` header of answers from a function's URL.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The request's id
    pub request_id: String,
    #[command(flatten)]
    pub place: InNamespace,
}

/// One attempt of a request, as its log tells.
#[derive(Debug, Default, PartialEq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
struct Story {
    duration: Option<String>,
    wait: Option<String>,
    coldstart: Option<String>,
    pull_code: Option<String>,
    init_runtime: Option<String>,
    init_function: Option<String>,
    reason: Option<String>,
    kind: Option<String>,
    replay_of: Option<String>,
    called_by: Option<String>,
    depth: Option<String>,
}

/// The word after `name` in a line.
fn after(line: &str, name: &str) -> Option<String> {
    let word = line.split_once(name)?.1.split_whitespace().next()?;
    Some(word.trim_end_matches([')', ',']).to_owned())
}

impl Story {
    /// Reads the platform's own lines. What the function printed stands between them and cannot be mistaken for one: each names the
    /// request, and the first of a kind counts.
    fn read(id: &str, log: &str) -> Self {
        let mut story = Self::default();
        if let Some(line) = log.lines().take(2).find(|l| l.starts_with(&format!("Init Report RequestId: {id} "))) {
            story.coldstart = after(line, "Coldstart: ");
            story.pull_code = after(line, "PullCode: ");
            story.init_runtime = after(line, "InitRuntime: ");
            story.init_function = after(line, "InitFunction: ");
            story.reason = after(line, "Reason: ");
            story.kind = after(line, "Kind: ");
        }
        if let Some(line) = log.lines().next_back().filter(|l| l.starts_with(&format!("Report RequestId:{id} "))) {
            story.duration = after(line, "Duration:");
            story.wait = after(line, "Wait:");
            story.replay_of = after(line, "ReplayOf:");
            story.called_by = after(line, "CalledBy:");
            story.depth = after(line, "Depth:");
        }
        story
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match (&self.wait, &self.coldstart) {
            (Some(wait), Some(_)) => lines.push(format!("It waited {wait} for an instance to start.")),
            (Some(wait), None) => lines.push(format!("It waited {wait} for an instance that others used or started.")),
            (None, Some(_)) => lines.push("An instance was started for it.".to_owned()),
            (None, None) => lines.push("An instance was ready: it did not wait.".to_owned()),
        }
        if let (Some(total), Some(reason)) = (&self.coldstart, &self.reason) {
            lines.push(format!("The start took {total}, because {}.", because(reason)));
            for (what, took) in [
                ("making code and layers present", &self.pull_code),
                ("getting a sandbox with a running runtime", &self.init_runtime),
                ("running the function's own initialisation", &self.init_function),
            ] {
                lines.extend(took.as_ref().map(|t| format!("  {t:>9}  {what}")));
            }
            lines.extend(self.kind.as_ref().map(|k| format!("The instance was {}.", made(k))));
        }
        lines.extend(self.duration.as_ref().map(|d| format!("Then it ran for {d}.")));
        if let (Some(parent), Some(depth)) = (&self.called_by, &self.depth) {
            lines.push(format!("It came of {parent}, the last of {depth} invocations before it."));
        }
        lines.extend(self.replay_of.as_ref().map(|id| format!("It was a replay of {id}, which had failed.")));
        lines
    }
}

fn because(reason: &str) -> String {
    match reason {
        "first" => "no instance of this version had run since the platform started".into(),
        "scale_out" => "all instances of this version were busy".into(),
        "code_updated" => "code or settings had been updated".into(),
        "expired" => "the instances had been idle for longer than they are kept".into(),
        "evicted" => "the instances had given way to other functions when memory was short".into(),
        "crashed" => "the instance before it had died or was discarded after an error".into(),
        other => other.to_owned(),
    }
}

fn made(kind: &str) -> String {
    match kind {
        "fresh" => "started from scratch".into(),
        "precreated" => "a process that was waiting for any function of its runtime".into(),
        "forked" => "forked from one in which this version was initialised already".into(),
        other => other.to_owned(),
    }
}

/// Runs the command.
pub fn run(args: &WhyArgs, context: &Context) -> Result<(), CliError> {
    let records: Vec<LogRecord> = logs::of_request(&args.request_id, &args.place, context)?;
    if records.is_empty() {
        return Err(CliError::local(format!("no call has the id {}", args.request_id))
            .hint("calls appear when they have ended; name another --namespace, or see `mayfly logs`"));
    }
    let stories: Vec<(LogRecord, Story)> = records
        .into_iter()
        .map(|record| {
            let story = Story::read(&record.request_id, &record.log);
            (record, story)
        })
        .collect();
    if context.out.is_json() {
        let data: Vec<_> = stories
            .iter()
            .map(|(r, s)| json!({ "RequestId": r.request_id, "FunctionName": r.function_name, "RetCode": r.ret_code, "StartTime": r.start_time, "RetryNum": r.retry_num, "Story": s }))
            .collect();
        context.out.json(&json!(data).to_string());
        return Ok(());
    }
    for (record, story) in &stories {
        let attempt = if record.retry_num > 0 { format!(", attempt {}", record.retry_num + 1) } else { String::new() };
        context.out.raw(&format!("{} at {}{attempt}\n", record.function_name, record.start_time));
        for line in story.lines() {
            context.out.raw(&format!("{line}\n"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLD: &str = "START RequestId:7\nInit Report RequestId: 7 Coldstart: 236ms (PullCode: 0.07ms InitRuntime: 8.00ms InitFunction: 158ms) Memory: 128MB MemUsage: 3.00MB Reason: scale_out Kind: forked\nprinted\nResponse RequestId:7 RetMsg:1\nEND RequestId:7\nReport RequestId:7 Duration:2ms Memory:128MB MemUsage:29.7MB Wait:240ms\n";

    #[test]
    fn a_cold_start_is_told_with_its_phases() {
        let story = Story::read("7", COLD);
        insta::assert_snapshot!(story.lines().join("\n"), @r"
        It waited 240ms for an instance to start.
        The start took 236ms, because all instances of this version were busy.
             0.07ms  making code and layers present
             8.00ms  getting a sandbox with a running runtime
              158ms  running the function's own initialisation
        The instance was forked from one in which this version was initialised already.
        Then it ran for 2ms.
        ");
    }

    #[test]
    fn a_replay_names_its_origin() {
        let story = Story::read("7", &COLD.replace(" Wait:240ms", " Wait:240ms ReplayOf:5"));
        assert_eq!(story.lines().pop().unwrap(), "It was a replay of 5, which had failed.");
    }

    #[test]
    fn a_call_from_inside_a_function_names_its_caller() {
        let story = Story::read("7", &COLD.replace(" Wait:240ms", " Wait:240ms CalledBy:5 Depth:2"));
        assert_eq!(story.lines().pop().unwrap(), "It came of 5, the last of 2 invocations before it.");
    }

    #[test]
    fn a_function_cannot_tell_a_story_of_its_own() {
        let log = "START RequestId:7\nfirst line\nInit Report RequestId: 7 Coldstart: 9ms Reason: crashed\nEND RequestId:7\nReport RequestId:7 Duration:1ms Memory:1MB MemUsage:1MB\n";
        let story = Story::read("7", log);
        assert_eq!(story, Story { duration: Some("1ms".into()), ..Story::default() });
        assert_eq!(story.lines()[0], "An instance was ready: it did not wait.");
    }
}
