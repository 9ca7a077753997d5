//! Inflating a checked tree: into nothing, to check it, or into a fresh directory.

use super::archive::{Entry, Method, entries};
use super::error::{PackageError, shown};
use super::tree::{NodeKind, Tree};
use super::{LINK_BYTES_MAX, PackageLimits, PackageSummary};
use flate2::Crc;
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const BUFFER_BYTES: usize = 64 * 1024;

/// Mode of directories and executable files; other files have none of the `x`.
const MODE_EXECUTABLE: u32 = 0o755;
const MODE_PLAIN: u32 = 0o644;

/// What was written at one place of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { executable: bool, bytes: u64, sha256: [u8; 32] },
    Symlink { target: String },
}

/// One place of the tree: its path from the root, with `/` between names, and what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub path: String,
    pub kind: Kind,
}

/// A package whose structure was checked, with the targets of its links read.
struct Checked<'a> {
    entries: Vec<Entry<'a>>,
    tree: Tree<'a>,
    links: BTreeMap<usize, String>,
    summary: PackageSummary,
}

/// Reads the whole package, inflates everything into nothing, and says what is in it. Never panics and never holds more in memory
/// than the list of entries, whatever the bytes are. Takes time in proportion to the unpacked size: call it off the async threads.
///
/// # Errors
/// Whatever is wrong with the package; never [`PackageError::Io`].
pub fn check(zip: &[u8], limits: &PackageLimits) -> Result<PackageSummary, PackageError> {
    let checked = checked(zip, limits)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for node in &checked.tree.nodes {
        if let NodeKind::File { entry, .. } = node.kind {
            inflate(&checked.entries[entry], &mut buffer, |_| Ok(()))?;
        }
    }
    Ok(checked.summary)
}

/// Unpacks a package into `dest`, which must not exist and is made. Nothing is ever written through a link: all links are made after
/// all files. After an error `dest` may be there in part, and is the caller's to remove. Blocks.
///
/// Directories and executable files get mode 0755, other files 0644; set-id bits and owners of the archive are dropped.
///
/// # Errors
/// Whatever is wrong with the package, or [`PackageError::Io`] when the host fails.
pub fn unpack(zip: &[u8], dest: &Path, limits: &PackageLimits) -> Result<PackageSummary, PackageError> {
    unpack_with(zip, dest, limits, |_| {})
}

/// Like [`unpack`], and tells of each place that was written.
pub(crate) fn unpack_with(
    zip: &[u8],
    dest: &Path,
    limits: &PackageLimits,
    mut tell: impl FnMut(Placed),
) -> Result<PackageSummary, PackageError> {
    let mut checked = checked(zip, limits)?;
    // Nobody else may put anything into the tree while it is built.
    fs::DirBuilder::new().mode(0o700).create(dest).map_err(PackageError::Io)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for (index, node) in checked.tree.nodes.iter().enumerate().skip(1) {
        let path = checked.tree.path(index);
        let target = dest.join(&path);
        let kind = match node.kind {
            NodeKind::Directory { .. } => {
                fs::DirBuilder::new().mode(MODE_EXECUTABLE).create(&target).map_err(PackageError::Io)?;
                set_mode(&target, MODE_EXECUTABLE)?;
                Kind::Directory
            }
            NodeKind::File { entry, executable } => {
                let entry = &checked.entries[entry];
                let sha256 = write_file(entry, &target, executable, &mut buffer)?;
                Kind::File { executable, bytes: entry.size, sha256 }
            }
            NodeKind::Symlink { .. } => continue,
        };
        tell(Placed { path, kind });
    }
    for (index, target) in std::mem::take(&mut checked.links) {
        let path = checked.tree.path(index);
        std::os::unix::fs::symlink(&target, dest.join(&path)).map_err(PackageError::Io)?;
        tell(Placed { path, kind: Kind::Symlink { target } });
    }
    set_mode(dest, MODE_EXECUTABLE)?;
    Ok(checked.summary)
}

fn checked<'a>(zip: &'a [u8], limits: &PackageLimits) -> Result<Checked<'a>, PackageError> {
    if zip.len() as u64 > limits.zip_bytes_max {
        return Err(PackageError::TooLarge { bytes: zip.len() as u64, max: limits.zip_bytes_max });
    }
    let entries = entries(zip, limits.entries_max)?;
    // The stated sizes are checked here, and each entry is held to its stated size while it is inflated.
    let unpacked_bytes = entries.iter().fold(0u64, |sum, entry| sum.saturating_add(entry.size));
    if unpacked_bytes > limits.unpacked_bytes_max {
        return Err(PackageError::UnpackedTooLarge { max: limits.unpacked_bytes_max });
    }
    let tree = Tree::build(&entries, limits)?;
    let mut links = BTreeMap::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    for (index, node) in tree.nodes.iter().enumerate() {
        if let NodeKind::Symlink { entry } = node.kind {
            links.insert(index, read_link(&entries[entry], &mut buffer)?);
        }
    }
    tree.check_links(&links)?;
    let summary = PackageSummary { entries: tree.nodes.len() - 1, unpacked_bytes };
    Ok(Checked { entries, tree, links, summary })
}

fn read_link(entry: &Entry<'_>, buffer: &mut [u8]) -> Result<String, PackageError> {
    let refuse = |why| PackageError::Symlink { entry: shown(entry.name), why };
    if entry.size > LINK_BYTES_MAX {
        return Err(refuse("its target is too long"));
    }
    let mut target = Vec::new();
    inflate(entry, buffer, |part| {
        target.extend_from_slice(part);
        Ok(())
    })?;
    String::from_utf8(target).map_err(|_| refuse("its target is not UTF-8"))
}

fn write_file(entry: &Entry<'_>, target: &Path, executable: bool, buffer: &mut [u8]) -> Result<[u8; 32], PackageError> {
    let mode = if executable { MODE_EXECUTABLE } else { MODE_PLAIN };
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(target).map_err(PackageError::Io)?;
    let mut hash = Sha256::new();
    inflate(entry, buffer, |part| {
        hash.update(part);
        file.write_all(part)
    })?;
    // Whatever the umask took away.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(PackageError::Io)?;
    Ok(hash.finalize().into())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), PackageError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(PackageError::Io)
}

/// Hands the unpacked data of an entry to `sink`, part by part, never more than the archive states, and checks size and checksum.
fn inflate(
    entry: &Entry<'_>,
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), PackageError> {
    let mut stored;
    let mut deflated;
    let source: &mut dyn Read = match entry.method {
        Method::Stored => {
            stored = entry.data;
            &mut stored
        }
        Method::Deflated => {
            deflated = DeflateDecoder::new(entry.data);
            &mut deflated
        }
    };
    let mut crc = Crc::new();
    let mut left = entry.size;
    loop {
        let count = source.read(buffer).map_err(|_| PackageError::Malformed {
            entry: shown(entry.name),
            why: "its compressed data are damaged",
        })?;
        if count == 0 {
            break;
        }
        left = left.checked_sub(count as u64).ok_or_else(|| PackageError::SizeMismatch { entry: shown(entry.name) })?;
        crc.update(&buffer[..count]);
        sink(&buffer[..count]).map_err(PackageError::Io)?;
    }
    if left != 0 {
        return Err(PackageError::SizeMismatch { entry: shown(entry.name) });
    }
    if crc.sum() != entry.crc {
        return Err(PackageError::Checksum { entry: shown(entry.name) });
    }
    Ok(())
}
