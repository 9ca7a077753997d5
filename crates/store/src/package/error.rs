//! Why a package is refused.

use std::io;

/// Why a package is refused. Names of entries are shown with control characters escaped, and cut when long.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Zero bytes.
    #[error("the package is empty (0 bytes)")]
    Empty,
    /// The bytes are not a zip, or the zip is cut short.
    #[error("the package is not a zip archive, or it is cut short: {0}")]
    NotAZip(&'static str),
    /// A zip without files.
    #[error("the zip archive has no entries")]
    NoEntries,
    /// The zip itself is too large.
    #[error("the package has {bytes} bytes, and at most {max} are allowed")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// More files and directories than allowed.
    #[error("the package has more than {max} files and directories")]
    TooManyEntries {
        /// The limit.
        max: usize,
    },
    /// The files together are too large.
    #[error("the package has more than {max} bytes when it is unpacked")]
    UnpackedTooLarge {
        /// The limit, in bytes.
        max: u64,
    },
    /// The archive contradicts itself.
    #[error("the zip archive is damaged at entry {entry}: {why}")]
    Malformed {
        /// Name of the entry.
        entry: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Data of two entries share bytes: the mark of a zip bomb.
    #[error("the data of entry {entry} overlaps with another entry")]
    Overlap {
        /// Name of the entry.
        entry: String,
    },
    /// The data do not have the checksum that the archive states.
    #[error("entry {entry} is damaged: its checksum is wrong")]
    Checksum {
        /// Name of the entry.
        entry: String,
    },
    /// The data unpack to more or fewer bytes than the archive states.
    #[error("entry {entry} does not have the size that the archive states")]
    SizeMismatch {
        /// Name of the entry.
        entry: String,
    },
    /// Encrypted entries cannot be read.
    #[error("entry {entry} is encrypted")]
    Encrypted {
        /// Name of the entry.
        entry: String,
    },
    /// A compression other than store and deflate.
    #[error("entry {entry} uses compression method {method}; only store (0) and deflate (8) are supported")]
    UnsupportedCompression {
        /// Name of the entry.
        entry: String,
        /// The number in the archive.
        method: u16,
    },
    /// A name that could lead outside, or cannot be a file name.
    #[error("entry {entry} has a name that is not allowed: {why}")]
    BadName {
        /// Name of the entry.
        entry: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Two entries of one name.
    #[error("entry {entry} is in the archive twice")]
    Duplicate {
        /// Name of the entry.
        entry: String,
    },
    /// Two names that differ in case only.
    #[error("entries {first} and {second} differ in upper and lower case only")]
    CaseClash {
        /// The earlier one.
        first: String,
        /// The later one.
        second: String,
    },
    /// A name is used as a file (or link) and as a directory.
    #[error("entry {entry} is both a file and a directory")]
    FileAndDirectory {
        /// The name.
        entry: String,
    },
    /// A device, pipe or socket.
    #[error("entry {entry} is a special file")]
    SpecialFile {
        /// Name of the entry.
        entry: String,
    },
    /// A symbolic link that is absolute, leaves the package, or runs in a circle.
    #[error("symbolic link {entry} is not allowed: {why}")]
    Symlink {
        /// Name of the entry.
        entry: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// The host could not write the files; not the package's fault.
    #[error("cannot unpack the package: {0}")]
    Io(#[source] io::Error),
}

impl PackageError {
    /// True when the package is to blame rather than the host.
    pub fn is_users_fault(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

/// A name as messages show it.
pub(super) fn shown(name: &[u8]) -> String {
    const SHOWN_CHARS_MAX: usize = 200;
    let text = String::from_utf8_lossy(name);
    let mut shown = String::from("\"");
    for (i, c) in text.chars().enumerate() {
        if i == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() || matches!(c, '"' | '\\') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown.push('"');
    shown
}
