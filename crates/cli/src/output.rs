//! What commands print: results to standard output, everything else to standard error.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    #[default]
    Text,
    /// JSON.
    Json,
}

/// Where and how a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// How results are printed.
    pub format: Format,
    /// Nothing but results and errors.
    pub quiet: bool,
    /// Standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Standard error is a terminal.
    pub stderr_is_terminal: bool,
}

impl Output {
    /// For this process.
    pub fn new(format: Format, quiet: bool) -> Self {
        let (stdout_is_terminal, stderr_is_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        Self { format, quiet, stdout_is_terminal, stderr_is_terminal }
    }

    /// True when results are JSON.
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// A line of the result.
    pub fn line(self, text: impl Display) {
        write_out(format_args!("{text}\n"));
    }

    /// A part of the result, as it is.
    pub fn raw(self, text: &str) {
        write_out(format_args!("{text}"));
    }

    /// JSON text as the result: indented on a terminal, one line otherwise.
    pub fn json(self, text: &str) {
        if self.stdout_is_terminal { self.line(crate::json::indent(text)) } else { self.line(text) }
    }

    /// A line about what is going on; not with `--quiet`, and not with `--output json`, whose readers are programs.
    pub fn note(self, text: impl Display) {
        if !self.quiet && !self.is_json() {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// A line about something that is probably not meant; not with `--quiet`.
    pub fn warning(self, text: impl Display) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "warning: {text}");
        }
    }

    /// A table as the result.
    pub fn table(self, header: &[&str], rows: Vec<Vec<String>>) {
        self.raw(&table(header, rows, self.stdout_is_terminal));
    }
}

/// Writes to standard output. A reader that has gone away (`mayfly logs | head`) is the end, and no error.
fn write_out(text: std::fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        eprintln!("error: cannot write to standard output: {error}");
        std::process::exit(i32::from(crate::error::EXIT_LOCAL));
    }
}

/// A table without lines; `header` may be empty. On a terminal it is wrapped to its width.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, wrap: bool) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if wrap {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    if !header.is_empty() {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable(&cell)));
    }
    table.discover_columns();
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Text of others, safe to put into a table: control characters (colours, cursor movements) become `·`.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// Bytes for people.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let (mut value, mut unit) = (n as f64 / 1024.0, 0);
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain() {
        let rows = vec![vec!["a".into(), "long value".into()], vec!["bcdef".into(), "\u{1b}[31mred".into()]];
        assert_eq!(table(&["NAME", "VALUE"], rows, false), "NAME   VALUE\na      long value\nbcdef  ·[31mred\n");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KB");
        assert_eq!(bytes(50 << 20), "50.0 MB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MB");
    }
}
