//! `mayfly`: starts the platform and works with functions.
//!
//! Commands of the platform (`up`, `doctor`) run here; all others are a client of the platform's API, which may be on
//! another machine. `docs/cli.md` is the manual.

mod api;
mod cli;
mod client;
mod commands;
mod error;
mod guess;
mod json;
mod manifest;
mod output;
mod package;
mod queue_client;
mod settings;
mod store_client;
#[cfg(test)]
mod test_folder;

use clap::Parser;
use error::CliError;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The spawner forks: it must be reached before anything in this process starts a thread.
    if std::env::args_os().nth(1).is_some_and(|first| first == "spawner") {
        std::process::exit(mayfly_sandbox::spawner::main());
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too; they are no errors.
            let code = if error.use_stderr() { error::EXIT_LOCAL } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &CliError) -> ExitCode {
    eprint!("{error}");
    ExitCode::from(error.exit_code())
}
