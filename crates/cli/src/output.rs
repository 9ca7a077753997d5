//! What commands print: results to standard output, everything else to standard error.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Terminals narrower than this, in columns, get tables as they are: a wrapped one would be harder to read.
const WRAP_COLUMNS_MIN: u16 = 60;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    #[default]
    #[value(alias = "table")]
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
        let width = Table::new().width().filter(|w| self.stdout_is_terminal && *w >= WRAP_COLUMNS_MIN);
        self.raw(&table(header, rows, width));
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

/// A table without lines; `header` may be empty. Its last column is wrapped so that all fits into `width` columns.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !header.is_empty() {
        table.set_header(header);
    }
    for row in rows {
        table.add_row(row.into_iter().map(|cell| printable(&cell)));
    }
    table.discover_columns();
    let last = table.column_iter().count().saturating_sub(1);
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if i < last { 2 } else { 0 }));
        if i < last {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    if let Some(width) = width {
        table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic);
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

/// A number of files for people.
pub fn files(n: usize) -> String {
    if n == 1 { "1 file".to_owned() } else { format!("{n} files") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain() {
        let rows = vec![vec!["a".into(), "long value".into()], vec!["bcdef".into(), "\u{1b}[31mred".into()]];
        assert_eq!(table(&["NAME", "VALUE"], rows, None), "NAME   VALUE\na      long value\nbcdef  ·[31mred\n");
    }

    #[test]
    fn only_the_last_column_is_wrapped() {
        let rows = vec![vec!["a-long-name".into(), "a text of several words".into()]];
        assert_eq!(table(&[], rows, Some(27)), "a-long-name  a text of\n             several words\n");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KB");
        assert_eq!(bytes(50 << 20), "50.0 MB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MB");
    }
}
