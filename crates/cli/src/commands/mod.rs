//! One file for each group of commands.

pub mod alias;
pub mod api_keys;
pub mod apis;
pub mod cert;
pub mod demand;
pub mod deploy;
pub mod destinations;
pub mod doctor;
pub mod domain;
pub mod failures;
pub mod forecast;
pub mod functions;
mod install;
pub mod invoke;
pub mod layers;
pub mod logs;
pub mod namespaces;
pub mod objects;
pub mod progress;
pub mod queue;
pub mod scale;
pub mod service;
pub mod simulate;
pub mod trigger;
pub mod up;
pub mod url;
pub mod versions;
pub mod why;

use crate::cli::{Cli, Command, Common};
use crate::client::{Answer, Client};
use crate::error::CliError;
use crate::output::Output;
use crate::settings::{self, Credentials, ENDPOINT_DEFAULT, Endpoint};
use std::io::{BufRead, Write};

/// Page size of list actions: their largest.
const PAGE: u64 = 100;
/// Most pages that are read of one list.
const PAGES_MAX: u64 = 1000;

/// What a command of the API works with.
#[derive(Debug)]
pub struct Context {
    /// The platform.
    pub client: Client,
    /// Where results go.
    pub out: Output,
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<(), CliError> {
    let out = Output::new(cli.common.output, cli.common.quiet);
    let common = &cli.common;
    match cli.command {
        Command::Up(args) => up::run(*args, common),
        Command::Doctor(args) => doctor::run(args, out),
        Command::Simulate(args) => simulate::run(&args, out),
        Command::Spawner => Err(CliError::local("`spawner` must be the first argument")),
        Command::Deploy(args) => deploy::run(&args, out, || context(common, out)),
        Command::Invoke(args) => invoke::run(&args, out, || context(common, out)),
        Command::Logs(args) => logs::run(&args, &context(common, out)?),
        Command::Why(args) => why::run(&args, &context(common, out)?),
        Command::Ls(args) => functions::ls(&args, &context(common, out)?),
        Command::Get(args) => functions::get(&args, &context(common, out)?),
        Command::Url(args) => url::run(&args, &context(common, out)?),
        Command::Trigger(args) => trigger::run(&args, &context(common, out)?),
        Command::Objects(args) => objects::run(args, common, out),
        Command::Queue(args) => queue::run(args, common, out),
        Command::Topic(args) => queue::run_topic(args, common, out),
        Command::Api(args) => apis::run(&args, &context(common, out)?),
        Command::Domain(args) => domain::run(&args, &context(common, out)?),
        Command::Cert(args) => cert::run(&args, &context(common, out)?),
        Command::Env(args) => functions::env(&args, &context(common, out)?),
        Command::Rm(args) => functions::rm(&args, &context(common, out)?),
        Command::Versions(args) => versions::ls(&args, &context(common, out)?),
        Command::Publish(args) => versions::publish(&args, &context(common, out)?),
        Command::Rollback(args) => versions::rollback(&args, &context(common, out)?),
        Command::Scale(args) => scale::run(&args, &context(common, out)?),
        Command::Failures(args) => failures::run(&args, &context(common, out)?),
        Command::Destinations(args) => destinations::run(&args, &context(common, out)?),
        Command::Forecast(args) => forecast::run(&args, &context(common, out)?),
        Command::Demand(args) => demand::run(&args, &context(common, out)?),
        Command::Alias(args) => alias::run(&args, &context(common, out)?),
        Command::Namespaces(args) => namespaces::run(&args, &context(common, out)?),
        Command::Layers(args) => layers::run(&args, out, || context(common, out)),
    }
}

fn context(common: &Common, out: Output) -> Result<Context, CliError> {
    let (endpoint, credentials) = who_and_where(common)?;
    Ok(Context { client: Client::new(endpoint, credentials, None), out })
}

/// A listener beside the API's: where it is, and who asks. `flag` and the variable `env` say where; else it is the API's host, at `port`.
fn beside(common: &Common, flag: Option<&str>, env: &str, port: u16) -> Result<(Endpoint, Credentials), CliError> {
    let (api, credentials) = who_and_where(common)?;
    let named = flag.map(str::to_owned).or_else(|| std::env::var(env).ok().filter(|e| !e.is_empty()));
    Ok((named.map_or_else(|| Ok(api.at(port)), |text| Endpoint::parse(&text))?, credentials))
}

fn who_and_where(common: &Common) -> Result<(Endpoint, Credentials), CliError> {
    let lookup = |name: &str| std::env::var(name).ok();
    let endpoint = common.endpoint.clone().or_else(|| lookup("MAYFLY_ENDPOINT").filter(|e| !e.is_empty()));
    let endpoint = Endpoint::parse(endpoint.as_deref().unwrap_or(ENDPOINT_DEFAULT))?;
    let data = common.data.clone().or_else(|| lookup("MAYFLY_DATA").filter(|d| !d.is_empty()).map(Into::into));
    let data = data.unwrap_or_else(settings::data_default_here);
    let flags = (common.secret_id.as_deref(), common.secret_key.as_deref());
    Ok((endpoint, settings::credentials(flags, &data, &lookup)?))
}

/// Reads all pages of a list. `page` is called with an offset and a limit, and returns items and their total.
fn pages<T>(mut page: impl FnMut(u64, u64) -> Result<(Vec<T>, u64), CliError>) -> Result<Vec<T>, CliError> {
    let mut all = Vec::new();
    for _ in 0..PAGES_MAX {
        let (items, total) = page(all.len() as u64, PAGE)?;
        let empty = items.is_empty();
        all.extend(items);
        if empty || all.len() as u64 >= total {
            break;
        }
    }
    Ok(all)
}

/// The items under `field` of an answer, as they came.
fn raw_items<T>(answer: &Answer<T>, field: &str) -> Result<Vec<serde_json::Value>, CliError> {
    let value: serde_json::Value = serde_json::from_str(&answer.raw)
        .map_err(|e| CliError::local(format!("the answer cannot be read again: {e}")))?;
    Ok(value.get(field).and_then(|v| v.as_array()).cloned().unwrap_or_default())
}

/// Asks before something is destroyed. `false`: the answer was no.
///
/// # Errors
/// When there is nobody to ask.
fn confirm(question: &str, out: Output) -> Result<bool, CliError> {
    use std::io::IsTerminal;
    if !std::io::stdin().is_terminal() || !out.stderr_is_terminal {
        return Err(CliError::local("this needs a yes, and there is no terminal to ask on").hint("add --yes"));
    }
    let mut error = std::io::stderr().lock();
    let _ = write!(error, "{question} [y/N] ");
    let _ = error.flush();
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| CliError::local(format!("cannot read the answer: {e}")))?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Text in single quotes when a shell would read it as something else.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'=' | b',');
    match !text.is_empty() && text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// ` --namespace X`, or nothing for the default one: for commands that are suggested.
fn namespace_flag(namespace: &str) -> String {
    match namespace {
        "default" => String::new(),
        other => format!(" --namespace {}", quoted(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pages_are_read_once() {
        let all: Vec<u64> = (0..250).collect();
        let mut calls = 0;
        let read = pages(|offset, limit| {
            calls += 1;
            let page = all.iter().copied().skip(offset as usize).take(limit as usize).collect();
            Ok((page, all.len() as u64))
        });
        assert_eq!(read.unwrap(), all);
        assert_eq!(calls, 3);
        // A server that promises more than it gives does not keep us.
        assert!(pages(|_, _| Ok((Vec::<u8>::new(), 10))).unwrap().is_empty());
    }

    #[test]
    fn suggestions_can_be_pasted() {
        assert_eq!(quoted("hello-1"), "hello-1");
        assert_eq!(quoted("$LATEST"), "'$LATEST'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(namespace_flag("default"), "");
        assert_eq!(namespace_flag("dev"), " --namespace dev");
    }
}
