//! `cargo xtask bench`: the benchmarks, each beside its baseline in the same run. `cargo xtask compatibility`: the generated page.

mod bench;
mod measure;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

#[derive(Parser)]
#[command(about = "Benchmarks and generated files of Mayfly")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures the platform beside baselines (needs root, wrk, python3 and node).
    Bench {
        /// Also write the results as JSON to this file.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Run only benchmarks whose name holds this text.
        #[arg(long)]
        only: Option<String>,
        /// Measure this program instead of a release build of the checkout.
        #[arg(long)]
        program: Option<PathBuf>,
        /// Fewer rounds: for trying out, not for quoting.
        #[arg(long)]
        quick: bool,
    },
    /// Writes docs/scf-compatibility.md from the code.
    Compatibility,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Bench { json, only, program, quick } => bench::run(json, only, program, quick),
        Command::Compatibility => {
            let path = "docs/scf-compatibility.md";
            std::fs::write(path, mayfly_control::compatibility_markdown()).context("write the page")?;
            println!("wrote {path}");
            Ok(())
        }
    }
}
