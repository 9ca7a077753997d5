//! The list beside an unpacked tree by which the tree is checked: one JSON line for each place, and their hash at the end.

use crate::package::{Kind, Placed};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Begins the last line; no JSON line begins so.
const SEAL: &str = "sha256 ";
/// A line holds a path and a link target at most, both escaped.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// `O_NOFOLLOW` on Linux.
const NO_FOLLOW: i32 = 0o400000;

#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum What {
    Directory,
    File { executable: bool, bytes: u64, sha256: mayfly_model::Digest },
    Symlink { target: String },
}

/// Writes a manifest while its tree is unpacked.
pub(super) struct ManifestWriter {
    file: BufWriter<fs::File>,
    hash: Sha256,
    result: io::Result<()>,
}

impl ManifestWriter {
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file: BufWriter::new(file), hash: Sha256::new(), result: Ok(()) })
    }

    /// Adds a place. An error is kept for [`Self::finish`].
    pub fn add(&mut self, placed: Placed) {
        if self.result.is_ok() {
            self.result = self.try_add(placed);
        }
    }

    fn try_add(&mut self, placed: Placed) -> io::Result<()> {
        let what = match placed.kind {
            Kind::Directory => What::Directory,
            Kind::File { executable, bytes, sha256 } => {
                What::File { executable, bytes, sha256: mayfly_model::Digest(sha256) }
            }
            Kind::Symlink { target } => What::Symlink { target },
        };
        let mut line = serde_json::to_vec(&Line { path: placed.path, what })?;
        line.push(b'\n');
        self.hash.update(&line);
        self.file.write_all(&line)
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.result?;
        let seal = mayfly_model::Digest(self.hash.finalize().into());
        writeln!(self.file, "{SEAL}{seal}")?;
        self.file.flush()
    }
}

/// True when the tree holds exactly what its manifest says: every file with its bytes and mode, every link, and nothing else.
/// What cannot be read counts as damaged.
pub(super) fn tree_is_whole(tree: &Path, manifest: &Path) -> bool {
    check(tree, manifest).unwrap_or(false)
}

fn check(tree: &Path, manifest: &Path) -> io::Result<bool> {
    let root = fs::symlink_metadata(tree)?;
    if !root.is_dir() || root.mode() & 0o7777 != 0o755 {
        return Ok(false);
    }
    let mut lines = BufReader::new(fs::File::open(manifest)?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut text = Vec::new();
    let mut places = 0u64;
    loop {
        text.clear();
        (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
        if let Some(seal) = text.strip_prefix(SEAL.as_bytes()) {
            let seal = std::str::from_utf8(seal).ok().and_then(|seal| mayfly_model::Digest::parse(seal.trim_end()));
            let hash: [u8; 32] = hash.finalize().into();
            return Ok(seal == Some(mayfly_model::Digest(hash)) && count_places(tree)? == places);
        }
        let Ok(line) = serde_json::from_slice::<Line>(&text) else { return Ok(false) };
        hash.update(&text);
        places += 1;
        if !place_is_whole(&tree.join(&line.path), root.uid(), &line.what, &mut buffer)? {
            return Ok(false);
        }
    }
}

fn place_is_whole(path: &Path, owner: u32, what: &What, buffer: &mut [u8]) -> io::Result<bool> {
    let meta = fs::symlink_metadata(path)?;
    let mode = meta.mode() & 0o7777;
    if meta.uid() != owner {
        return Ok(false);
    }
    match what {
        What::Directory => Ok(meta.is_dir() && mode == 0o755),
        What::Symlink { target } => Ok(meta.is_symlink() && fs::read_link(path)?.as_os_str() == target.as_str()),
        What::File { executable, bytes, sha256 } => {
            let expected = if *executable { 0o755 } else { 0o644 };
            if !meta.is_file() || mode != expected || meta.len() != *bytes {
                return Ok(false);
            }
            let mut file = fs::OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path)?;
            let mut hash = Sha256::new();
            loop {
                let count = file.read(buffer)?;
                if count == 0 {
                    break;
                }
                hash.update(&buffer[..count]);
            }
            let hash: [u8; 32] = hash.finalize().into();
            Ok(hash == sha256.0)
        }
    }
}

fn count_places(dir: &Path) -> io::Result<u64> {
    let mut pending = vec![dir.to_owned()];
    let mut count = 0;
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            count += 1;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(count)
}
