//! How far an upload is.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Uploads below this size show no progress, in bytes.
const PROGRESS_BYTES_MIN: usize = 256 * 1024;

/// The progress of an upload, on terminals only.
#[derive(Debug)]
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar for `size` bytes; nothing is drawn for small uploads, and where nobody looks.
    pub fn new(size: usize, out: Output) -> Self {
        if size < PROGRESS_BYTES_MIN || out.quiet || out.is_json() || !out.stderr_is_terminal {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(size as u64), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("uploading {bar:30} {bytes}/{total_bytes} {bytes_per_sec}") {
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
