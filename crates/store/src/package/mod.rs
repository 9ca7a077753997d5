//! Reading uploaded zip packages, which nobody vouches for.
//!
//! The reader is our own (only inflating is a library's) because the rules are strict where common readers are kind: names that occur
//! twice, entries that share bytes, sizes that lie, and links that lead out are refused rather than resolved somehow,
//! and a million empty entries cost no memory before they are refused.

mod archive;
mod error;
mod tree;
mod unpack;

pub use error::PackageError;
pub(crate) use unpack::{Kind, Placed, unpack_with};
pub use unpack::{check, unpack};

use mayfly_model::limits;

/// Longest component of a path, in bytes: what Linux file systems allow.
pub const COMPONENT_BYTES_MAX: usize = 255;
/// Longest path of an entry, in bytes: Linux allows 4096 with the directory the package is mounted on, for which 256 are kept.
pub const PATH_BYTES_MAX: usize = 3840;
/// Deepest nesting of directories. Removing a tree keeps one file open for each level.
pub const DEPTH_MAX: usize = 200;
/// Longest target of a symbolic link, in bytes.
pub const LINK_BYTES_MAX: u64 = 1024;

/// What a package may hold.
#[derive(Clone, Copy, Debug)]
pub struct PackageLimits {
    /// Largest zip, in bytes.
    pub zip_bytes_max: u64,
    /// All files together, unpacked, in bytes.
    pub unpacked_bytes_max: u64,
    /// Most files, links and directories, counting directories that the archive only implies.
    pub entries_max: usize,
}

impl Default for PackageLimits {
    fn default() -> Self {
        Self {
            zip_bytes_max: limits::PACKAGE_ZIP_BYTES_MAX as u64,
            unpacked_bytes_max: limits::PACKAGE_UNPACKED_BYTES_MAX,
            entries_max: limits::PACKAGE_ENTRIES_MAX,
        }
    }
}

/// What a package holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackageSummary {
    /// Files, links and directories, counting directories that the archive only implies.
    pub entries: usize,
    /// Size of all files together, in bytes.
    pub unpacked_bytes: u64,
}
