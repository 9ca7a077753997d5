//! `mayfly invoke`: run a function.

use super::{Context, namespace_flag, quoted};
use crate::api::{Invoke, InvokeResult};
use crate::cli::InNamespace;
use crate::error::{CliError, Kind};
use crate::json::indent;
use crate::output::{Output, bytes};
use clap::Args;
use mayfly_model::limits;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fs::File;
use std::io::Read;

/// Run a function and print its result: JSON, indented on a terminal.
///
/// Without --qualifier the alias $DEFAULT is asked, which is what `mayfly rollback` moves; the API action Invoke
/// itself would ask $LATEST. Without an event the function gets `{}`. Exits with 3 when the function fails.
#[derive(Debug, Args)]
pub struct InvokeArgs {
    /// The function
    pub name: String,
    /// The event, JSON; `-` reads standard input
    #[arg(long, short = 'd', value_name = "JSON", conflicts_with = "file", allow_hyphen_values = true)]
    pub event: Option<String>,
    /// File with the event; `-` reads standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<String>,
    /// Version or alias
    #[arg(long, value_name = "QUALIFIER", default_value = "$DEFAULT")]
    pub qualifier: String,
    /// Do not wait: print the request id once the event is safely stored
    #[arg(long = "async")]
    pub asynchronous: bool,
    /// Print what the function printed (its last 4 KB) to standard error
    #[arg(long, conflicts_with = "asynchronous")]
    pub log: bool,
    #[command(flatten)]
    pub place: InNamespace,
}

/// The error of a function, as the platform writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Failure {
    error_message: String,
    stack_trace: serde_json::Value,
    status_code: i64,
}

/// Runs the command.
pub fn run(
    args: &InvokeArgs,
    out: Output,
    context: impl FnOnce() -> Result<Context, CliError>,
) -> Result<(), CliError> {
    let event = event(args)?;
    let Context { client, .. } = context()?;
    let answer = client.call(&Invoke {
        function_name: args.name.clone(),
        namespace: args.place.namespace.clone(),
        qualifier: args.qualifier.clone(),
        invocation_type: if args.asynchronous { "Event" } else { "RequestResponse" }.into(),
        client_context: event,
        log_type: args.log.then(|| "Tail".to_owned()),
    })?;
    let result = &answer.body.result;
    let show = format!(
        "mayfly logs {}{} --request-id {}",
        quoted(&args.name),
        namespace_flag(&args.place.namespace),
        result.function_request_id
    );
    if args.log && !out.is_json() {
        eprint!("{}", with_newline(&result.log));
    }
    if out.is_json() {
        out.json(&answer.raw);
    } else if args.asynchronous {
        out.line(&result.function_request_id);
        out.note(format_args!("accepted; see what became of it: {show}"));
    }
    if result.invoke_result != 0 || !result.err_msg.is_empty() {
        return Err(failed(result, &show));
    }
    if !args.asynchronous && !out.is_json() {
        let value = if result.ret_msg.is_empty() { "null" } else { &result.ret_msg };
        if out.stdout_is_terminal {
            out.line(indent(value))
        } else {
            out.line(value)
        }
        if out.stderr_is_terminal {
            out.note(format_args!(
                "{:.1} ms, {} of memory, request {}",
                result.duration,
                bytes(result.mem_usage),
                result.function_request_id
            ));
        }
    }
    Ok(())
}

fn with_newline(text: &str) -> String {
    match text.is_empty() || text.ends_with('\n') {
        true => text.to_owned(),
        false => format!("{text}\n"),
    }
}

/// The error of a failed function: its message in one line, its stack below.
fn failed(result: &InvokeResult, show: &str) -> CliError {
    let text = if result.err_msg.is_empty() { &result.ret_msg } else { &result.err_msg };
    let hint = format!("all it printed: {show}");
    let Ok(failure) = serde_json::from_str::<Failure>(text) else {
        return CliError::new(Kind::Function, format!("the function failed: {text}")).hint(hint);
    };
    let stack = match &failure.stack_trace {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(stack) => stack.clone(),
        serde_json::Value::Array(lines) => {
            lines.iter().map(|l| l.as_str().map_or_else(|| l.to_string(), str::to_owned)).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    };
    let message = match failure.error_message.as_str() {
        "" => text,
        message => message,
    };
    CliError::new(Kind::Function, format!("the function failed ({}): {message}", failure.status_code))
        .details(stack)
        .hint(hint)
}

/// The event, read and checked.
fn event(args: &InvokeArgs) -> Result<String, CliError> {
    let max = if args.asynchronous { limits::EVENT_ASYNC_BYTES_MAX } else { limits::EVENT_SYNC_BYTES_MAX };
    let (text, source) = match (args.event.as_deref(), args.file.as_deref()) {
        (Some("-"), _) | (_, Some("-")) => (read(std::io::stdin().lock(), max, "standard input")?, "standard input"),
        (Some(text), _) => (text.to_owned(), "--event"),
        (None, Some(path)) => {
            let file = File::open(path).map_err(|e| CliError::local(format!("cannot open {path}: {e}")))?;
            (read(file, max, path)?, path)
        }
        (None, None) => return Ok("{}".into()),
    };
    if text.len() > max {
        let kind = if args.asynchronous { "an asynchronous" } else { "a synchronous" };
        return Err(CliError::local(format!("the event is larger than {} bytes, the limit of {kind} call", max))
            .hint("put large data where the function can fetch it, and send its address"));
    }
    serde_json::from_str::<IgnoredAny>(&text).map_err(|e| {
        CliError::local(format!("{source} is not JSON: {e}")).hint("strings need double quotes: -d '\"text\"'")
    })?;
    Ok(text)
}

fn read(from: impl Read, max: usize, name: &str) -> Result<String, CliError> {
    let mut text = String::new();
    from.take(max as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|e| CliError::local(format!("cannot read {name}: {e}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(event: Option<&str>, file: Option<&str>, asynchronous: bool) -> InvokeArgs {
        InvokeArgs {
            name: "f".into(),
            event: event.map(Into::into),
            file: file.map(Into::into),
            qualifier: "$DEFAULT".into(),
            asynchronous,
            log: false,
            place: InNamespace { namespace: "default".into() },
        }
    }

    #[test]
    fn events_are_checked_before_they_are_sent() {
        assert_eq!(event(&args(None, None, false)).unwrap(), "{}");
        assert_eq!(event(&args(Some("{\"a\": 1.0}"), None, false)).unwrap(), "{\"a\": 1.0}");
        assert!(event(&args(Some("{a:1}"), None, false)).unwrap_err().message.starts_with("--event is not JSON"));
        let long = format!("\"{}\"", "x".repeat(limits::EVENT_ASYNC_BYTES_MAX));
        assert!(event(&args(Some(&long), None, true)).unwrap_err().message.contains("asynchronous"));
        assert!(event(&args(Some(&long), None, false)).is_ok());
        assert!(event(&args(None, Some("/no/such/file"), false)).unwrap_err().message.contains("/no/such/file"));
    }

    #[test]
    fn failures_show_the_stack_of_the_user() {
        let result = InvokeResult {
            err_msg: r#"{"errorCode":-1,"errorMessage":"boom","stackTrace":"Traceback\n  x","statusCode":430}"#.into(),
            invoke_result: -1,
            ..Default::default()
        };
        let error = failed(&result, "mayfly logs f");
        assert_eq!(error.exit_code(), 3);
        assert_eq!(
            error.to_string(),
            "error: the function failed (430): boom\nTraceback\n  x\nhint: all it printed: mayfly logs f\n"
        );
        let list = r#"{"errorMessage":"boom","stackTrace":["a","b"],"statusCode":430}"#;
        let result = InvokeResult { err_msg: list.into(), ..Default::default() };
        assert_eq!(failed(&result, "").details, "a\nb");
        let odd = InvokeResult { ret_msg: "plain".into(), invoke_result: -1, ..Default::default() };
        assert!(failed(&odd, "").message.ends_with("plain"));
    }
}
