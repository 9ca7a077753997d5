//! How far a transfer is.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Transfers below this size show no progress, in bytes.
const PROGRESS_BYTES_MIN: u64 = 256 * 1024;

/// The progress of a transfer, on terminals only.
#[derive(Debug)]
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar for `size` bytes; nothing is drawn for small uploads, and where nobody looks.
    pub fn new(size: usize, out: Output) -> Self {
        Self::of("uploading", Some(size as u64), out)
    }

    /// The same with a word of what is done; where the size is not known, what is through is counted.
    pub fn of(doing: &str, size: Option<u64>, out: Output) -> Self {
        let small = size.is_some_and(|size| size < PROGRESS_BYTES_MIN);
        if small || out.quiet || out.is_json() || !out.stderr_is_terminal {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = match size {
            Some(_) => format!("{doing} {{bar:30}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}}"),
            None => format!("{doing} {{bytes}} {{bytes_per_sec}}"),
        };
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    /// So many bytes are sent.
    pub fn at(&self, sent: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(sent);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
