//! Where log lines of the platform itself go: standard error, as text or as JSON, one object a line.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not one of `tracing`'s filter directives.
    #[error("`{level}` is not a log level or a list of directives such as `info,mayfly_node=debug`: {why}")]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        why: String,
    },
    /// Somebody else has set a subscriber up in this process.
    #[error("log output is already set up")]
    Twice,
}

/// Reads a level (`info`) or a list of directives (`info,mayfly_node=debug`).
///
/// # Errors
/// [`TelemetryError::Level`] when it is neither.
pub fn parse_level(level: &str) -> Result<EnvFilter, TelemetryError> {
    let bad = |why: String| TelemetryError::Level { level: level.to_owned(), why };
    // The filter takes any bare word for a target's name, so that `inof` would silently mean "nothing".
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let words: Vec<&str> = level.split(',').map(str::trim).collect();
    for word in words.iter().filter(|w| !w.contains(['=', '['])) {
        if !levels.iter().any(|l| word.eq_ignore_ascii_case(l)) {
            return Err(bad(format!("`{word}` is none of {}", levels.join(", "))));
        }
    }
    // It logs each client's mistake as an error; whoever wants that says so.
    let quiet = if level.contains("s3s") { "" } else { "s3s=off," };
    EnvFilter::try_new(format!("{quiet}{}", words.join(","))).map_err(|e| bad(e.to_string()))
}

/// Sends log lines of this process to standard error. Call once, early.
///
/// # Errors
/// [`TelemetryError`] when the level cannot be read, or log output was set up before.
pub fn init(level: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt().with_env_filter(parse_level(level)?).with_writer(io::stderr);
    match format {
        LogFormat::Plain => builder.with_ansi(false).with_target(true).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(|_| TelemetryError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for good in ["info", "WARN", "off", "info,mayfly_node=debug", "error, mayfly_gateway=trace"] {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,", "mayfly_node=loud", "info,mayfly_node"] {
            assert!(parse_level(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_second_setup_is_refused() {
        // Which of the two is first depends on nothing else: no other test of this binary sets telemetry up.
        assert!(init("off", LogFormat::Json).is_ok());
        assert!(matches!(init("off", LogFormat::Plain), Err(TelemetryError::Twice)));
    }
}
