//! `mayfly demand export`: the platform's own history as a trace that `mayfly simulate` reads.

use super::{Context, logs};
use crate::api::{Demand, ListDemand};
use crate::error::CliError;
use clap::{Args, Subcommand};
use mayfly_simulate::{App, Trace};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Rows of one question.
const PAGE: u64 = 10_000;
/// Most rows that are read: more than the platform keeps.
const ROWS_MAX: u64 = 10_000_000;
/// Most cells of a trace that `mayfly simulate` takes.
const CELLS_MAX: u64 = 64_000_000;

/// The history of demand.
#[derive(Debug, Args)]
pub struct DemandArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DemandCommand,
}

/// What can be done with it.
#[derive(Debug, Subcommand)]
pub enum DemandCommand {
    /// Write it as a trace for `mayfly simulate`: a row for each version, a column for each minute
    Export(ExportArgs),
}

/// Options of `demand export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Only the last so much: 30m, 2h, 7d [default: all that is kept]
    #[arg(long, value_name = "TIME", value_parser = logs::seconds)]
    pub since: Option<i64>,
    /// Where to; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
}

/// Runs the command.
pub fn run(args: &DemandArgs, context: &Context) -> Result<(), CliError> {
    let DemandCommand::Export(args) = &args.command;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let start_time = args.since.map(|span| now.saturating_sub(span.unsigned_abs()));
    let mut rows: Vec<Demand> = Vec::new();
    loop {
        let request = ListDemand { start_time, end_time: Some(now), offset: rows.len() as u64, limit: PAGE };
        let answer = context.client.call(&request)?.body;
        let last = answer.demand.is_empty() || rows.len() as u64 >= ROWS_MAX;
        rows.extend(answer.demand);
        if last || rows.len() as u64 >= answer.total_count {
            break;
        }
    }
    let trace = trace(&rows)?;
    let fails = |e: std::io::Error| CliError::local(format!("{} cannot be written: {e}", args.file.display()));
    if args.file == Path::new("-") {
        let mut text = Vec::new();
        trace.write(&mut text).map_err(fails)?;
        context.out.raw(&String::from_utf8_lossy(&text));
    } else {
        let mut file = BufWriter::new(File::create(&args.file).map_err(fails)?);
        trace.write(&mut file).and_then(|()| file.flush()).map_err(fails)?;
    }
    context.out.note(format_args!("{} versions, {} minutes", trace.apps().len(), trace.minutes()));
    Ok(())
}

/// The rows as a trace. Its first minute is the first of the hour in which the first call came.
fn trace(rows: &[Demand]) -> Result<Trace, CliError> {
    let nothing = || {
        CliError::local("no demand is known for that time")
            .hint("a minute is known once it has passed; see --since, and call a function")
    };
    let first = rows.iter().map(|r| r.time / 60).min().ok_or_else(nothing)? / 60 * 60;
    let last = rows.iter().map(|r| r.time / 60).max().ok_or_else(nothing)?;
    let minutes = last - first + 1;
    let mut apps: BTreeMap<String, App> = BTreeMap::new();
    for row in rows {
        let name = format!("{}/{}:{}", row.namespace, row.function_name, row.version);
        if !apps.contains_key(&name) && (apps.len() as u64 + 1).saturating_mul(minutes) > CELLS_MAX {
            return Err(CliError::local(format!("there is more than {CELLS_MAX} minutes of versions to write"))
                .hint("take less with --since"));
        }
        let app = apps.entry(name.clone()).or_insert_with(|| App {
            name,
            runtime: String::new(),
            memory_mb: 0.0,
            invocations: 0,
            demand: vec![0; usize::try_from(minutes).unwrap_or(0)],
        });
        // A version has one size in a trace: the last.
        app.memory_mb = row.memory_size.max(1) as f64;
        app.invocations += row.invocations;
        if let Some(cell) = usize::try_from(row.time / 60 - first).ok().and_then(|at| app.demand.get_mut(at)) {
            *cell = u32::try_from(row.instances).unwrap_or(u32::MAX);
        }
    }
    Trace::new(apps.into_values().collect()).ok_or_else(nothing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mayfly_simulate::TraceLimits;

    #[test]
    fn what_is_exported_is_read_again() {
        let row = |minute: u64, function: &str, instances| Demand {
            time: minute * 60,
            namespace: "default".into(),
            function_name: function.into(),
            version: "$LATEST".into(),
            memory_size: 128,
            instances,
            invocations: 7,
        };
        let rows = [row(100_000, "a", 1), row(100_000, "b", 2), row(100_075, "a", 3)];
        let made = trace(&rows).unwrap();
        let mut text = Vec::new();
        made.write(&mut text).unwrap();
        let header = String::from_utf8_lossy(&text).lines().next().unwrap().to_owned();
        assert!(header.starts_with("app,memory_mb,invocations,m0,m1,"), "{header}");
        assert_eq!(Trace::read(text.as_slice(), &TraceLimits::default()).unwrap(), made);
        assert_eq!((made.minutes(), made.apps()[0].invocations), (40 + 76, 14));
        assert_eq!(made.apps()[0].demand.iter().sum::<u32>(), 4);
        assert!(trace(&[]).is_err());
    }
}
