//! What an installer prints, cut into lines that can be shown anywhere.

/// Longest line that is shown, in bytes.
const LINE_BYTES_MAX: usize = 500;

/// Cuts bytes into lines: at line ends, and at the carriage returns of progress bars. Colours and other control sequences are left out.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    line: Vec<u8>,
    escape: Escape,
}

#[derive(Debug, Default, PartialEq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Begun,
    /// Within a sequence, until a letter.
    Sequence,
}

impl Lines {
    /// Takes bytes; hands whole lines that are not empty to `tell`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        for byte in bytes {
            match (&self.escape, byte) {
                (Escape::Begun, b'[') => self.escape = Escape::Sequence,
                (Escape::Begun, _) => self.escape = Escape::None,
                (Escape::Sequence, b'@'..=b'~') => self.escape = Escape::None,
                (Escape::Sequence, _) => {}
                (Escape::None, 0x1b) => self.escape = Escape::Begun,
                (Escape::None, b'\n' | b'\r') => self.flush(&mut tell),
                (Escape::None, b'\t') => self.add(b' '),
                (Escape::None, 0..=0x1f | 0x7f) => {}
                (Escape::None, byte) => self.add(*byte),
            }
        }
    }

    /// Hands over what has no line end.
    pub(crate) fn flush(&mut self, mut tell: impl FnMut(&str)) {
        let line = std::mem::take(&mut self.line);
        // A line that was cut may end in half a character.
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            tell(text);
        }
    }

    fn add(&mut self, byte: u8) {
        if self.line.len() < LINE_BYTES_MAX {
            self.line.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clean_whole_and_short() {
        let mut seen = Vec::new();
        let mut lines = Lines::default();
        for part in ["\x1b[32mgre", "en\x1b[0m\tx\r\n\n10%\r20%\ra\x07b", "\n", &"é".repeat(400), "\nlast"] {
            lines.push(part.as_bytes(), |line| seen.push(line.to_owned()));
        }
        lines.flush(|line| seen.push(line.to_owned()));
        assert_eq!(seen[..4], ["green x", "10%", "20%", "ab"]);
        assert_eq!((seen[4].len(), seen[5].as_str(), seen.len()), (LINE_BYTES_MAX, "last", 6));
    }
}
