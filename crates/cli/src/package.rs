//! Making a package of a folder. Equal content gives an equal zip: the order of entries, their times and their modes
//! depend on nothing else, so that the platform can be asked whether it has this code already.

use crate::error::CliError;
use crate::manifest;
use crate::output::bytes;
use ignore::overrides::OverrideBuilder;
use ignore::{WalkBuilder, overrides::Override};
use mayfly_model::limits::{PACKAGE_ENTRIES_MAX, PACKAGE_UNPACKED_BYTES_MAX, PACKAGE_ZIP_BYTES_MAX};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// Rules of a folder's own, as in `.gitignore`, whose rules hold too unless these say otherwise.
pub const IGNORE_FILE: &str = ".mayflyignore";
/// The file that starts the server of an HTTP service, in the root of its package.
pub const START_FILE: &str = "scf_bootstrap";
/// Never part of a package, wherever they are: traces of tools, which differ where the code does not.
const NEVER: [&str; 6] = [".git", ".hg", ".svn", ".venv", "__pycache__", ".DS_Store"];
/// Not part of a package when they lie in its root: they are about the package.
const NEVER_IN_ROOT: [&str; 3] = [manifest::FILE, IGNORE_FILE, ".gitignore"];
const FILE_MODE: u32 = 0o644;
const EXECUTABLE_MODE: u32 = 0o755;

/// A package, ready to be sent.
#[derive(Clone, Debug)]
pub struct Package {
    /// The zip.
    pub zip: Vec<u8>,
    /// Its SHA-256 in hexadecimal, as the platform shows it.
    pub sha256: String,
    /// Paths of its entries, in order.
    pub paths: BTreeSet<String>,
    /// Size of its files, in bytes.
    pub unpacked_bytes: u64,
    /// The start file of a service is executable in the package, and is not in the folder.
    pub made_executable: bool,
    /// Names in the folder's root that ignore files left out altogether. What `exclude` names is not among them.
    pub left_out: Vec<String>,
}

enum Content {
    File { bytes: u64, executable: bool },
    Link { target: String },
}

/// Packs `dir` but for what `.gitignore`, `.mayflyignore` and `exclude` leave out.
///
/// # Errors
/// When a file cannot be read or cannot be in a package, or the package is empty or too large.
pub fn pack(dir: &Path, exclude: &[String]) -> Result<Package, CliError> {
    let root = fs::canonicalize(dir).map_err(|e| CliError::local(format!("cannot open {}: {e}", dir.display())))?;
    if !root.is_dir() {
        return Err(CliError::local(format!("{} is not a folder", dir.display()))
            .hint("give the folder with the function's code"));
    }
    let excluded = overrides(&root, exclude)?;
    let mut entries = collect(&root, excluded.clone())?;
    let left_out = left_out(&root, &entries, &excluded)?;
    if entries.is_empty() {
        let hint =
            if left_out.is_empty() { String::new() } else { format!("left out by rules: {}", left_out.join(", ")) };
        return Err(CliError::local(format!("there is nothing to deploy in {}", dir.display())).hint(hint));
    }
    check_links(&root, &entries)?;
    let unpacked_bytes = entries.values().map(size).sum();
    if unpacked_bytes > PACKAGE_UNPACKED_BYTES_MAX {
        let what = format!("the files have {}", bytes(unpacked_bytes));
        return Err(too_large(&what, PACKAGE_UNPACKED_BYTES_MAX, &entries));
    }
    let made_executable = match entries.get_mut(START_FILE) {
        Some(Content::File { executable, .. }) => !std::mem::replace(executable, true),
        _ => false,
    };
    let zip = compress(&root, &entries)?;
    let sha256 = hex::encode(Sha256::digest(&zip));
    let paths = entries.into_keys().collect();
    Ok(Package { zip, sha256, paths, unpacked_bytes, made_executable, left_out })
}

fn size(content: &Content) -> u64 {
    match content {
        Content::File { bytes, .. } => *bytes,
        Content::Link { .. } => 0,
    }
}

fn overrides(root: &Path, exclude: &[String]) -> Result<Override, CliError> {
    let mut builder = OverrideBuilder::new(root);
    for pattern in exclude {
        if pattern.starts_with('!') {
            return Err(CliError::local(format!("the exclude pattern `{pattern}` starts with `!`"))
                .hint(format!("patterns that bring files back go into {IGNORE_FILE}")));
        }
        builder
            .add(&format!("!{pattern}"))
            .map_err(|e| CliError::local(format!("the exclude pattern `{pattern}` cannot be read: {e}")))?;
    }
    builder.build().map_err(|e| CliError::local(format!("the exclude patterns cannot be used: {e}")))
}

/// The entries by path. The map's order is the order in the zip.
fn collect(root: &Path, exclude: Override) -> Result<BTreeMap<String, Content>, CliError> {
    let walk = WalkBuilder::new(root)
        .standard_filters(false)
        .git_ignore(true)
        .require_git(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .overrides(exclude)
        .filter_entry(|entry| {
            let name = entry.file_name();
            let never = NEVER.iter().any(|n| name == *n);
            let in_root = entry.depth() == 1 && NEVER_IN_ROOT.iter().any(|n| name == *n);
            entry.depth() == 0 || !(never || in_root)
        })
        .build();
    let mut entries = BTreeMap::new();
    for entry in walk {
        let entry = entry.map_err(|e| CliError::local(format!("cannot read the folder: {e}")))?;
        let Some(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            continue;
        }
        let path = entry.path();
        let name = relative(root, path)?;
        let content = if kind.is_symlink() {
            let target =
                fs::read_link(path).map_err(|e| CliError::local(format!("cannot read the link {name}: {e}")))?;
            let target = target.to_str().map(str::to_owned);
            let target =
                target.ok_or_else(|| CliError::local(format!("the link {name} has a target that is not UTF-8")))?;
            Content::Link { target }
        } else if kind.is_file() {
            let metadata = entry.metadata().map_err(|e| CliError::local(format!("cannot read {name}: {e}")))?;
            Content::File { bytes: metadata.len(), executable: metadata.permissions().mode() & 0o111 != 0 }
        } else {
            return Err(CliError::local(format!("{name} is neither a file nor a folder (a socket, pipe or device)"))
                .hint(format!("remove it, or name it in {IGNORE_FILE}")));
        };
        entries.insert(name, content);
        if entries.len() > PACKAGE_ENTRIES_MAX {
            return Err(CliError::local(format!("the folder has more than {PACKAGE_ENTRIES_MAX} files"))
                .details(largest(&entries))
                .hint(format!("name what is not needed in {IGNORE_FILE}")));
        }
    }
    Ok(entries)
}

fn relative(root: &Path, path: &Path) -> Result<String, CliError> {
    let name = path.strip_prefix(root).unwrap_or(path);
    match name.to_str() {
        Some(name) if !name.contains('\\') => Ok(name.to_owned()),
        Some(name) => Err(CliError::local(format!("the name {name} holds a backslash, which packages cannot have"))),
        None => Err(CliError::local(format!("the name {} is not UTF-8", name.display())).hint("rename or exclude it")),
    }
}

/// Links may point at what is in the package, and nowhere else: elsewhere the target would not be there.
fn check_links(root: &Path, entries: &BTreeMap<String, Content>) -> Result<(), CliError> {
    for (name, content) in entries {
        let Content::Link { target } = content else { continue };
        let bad = |why: &str| {
            CliError::local(format!("the link {name} -> {target} {why}"))
                .hint(format!("put a copy in its place, or name it in {IGNORE_FILE}"))
        };
        let mut depth = name.matches('/').count();
        for part in Path::new(target).components() {
            match part {
                Component::RootDir | Component::Prefix(_) => return Err(bad("is absolute")),
                Component::ParentDir if depth == 0 => return Err(bad("leads out of the folder")),
                Component::ParentDir => depth -= 1,
                Component::CurDir => {}
                Component::Normal(_) => depth += 1,
            }
        }
        let real = fs::canonicalize(root.join(name)).map_err(|_| bad("leads nowhere"))?;
        let Ok(real) = real.strip_prefix(root) else { return Err(bad("leads out of the folder")) };
        let Some(real) = real.to_str() else { return Err(bad("leads to a name that is not UTF-8")) };
        let below = format!("{real}/");
        let inside = |path: &String| path == real || path.starts_with(&below);
        if !real.is_empty()
            && !entries.range(real.to_owned()..).take_while(|(p, _)| p.starts_with(real)).any(|(p, _)| inside(p))
        {
            return Err(bad("leads to something that is left out of the package"));
        }
    }
    Ok(())
}

fn compress(root: &Path, entries: &BTreeMap<String, Content>) -> Result<Vec<u8>, CliError> {
    let mut zip = ZipWriter::new(Capped { inner: Cursor::new(Vec::new()), full: false });
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::DEFAULT);
    for (name, content) in entries {
        let written = match content {
            Content::Link { target } => zip.add_symlink(name, target, options).map_err(io::Error::from),
            Content::File { executable, .. } => {
                let mode = if *executable { EXECUTABLE_MODE } else { FILE_MODE };
                let path = root.join(name);
                let file = File::open(&path).map_err(|e| CliError::local(format!("cannot read {name}: {e}")))?;
                zip.start_file(name, options.unix_permissions(mode))
                    .map_err(io::Error::from)
                    .and_then(|()| io::copy(&mut file.take(PACKAGE_UNPACKED_BYTES_MAX), &mut zip).map(drop))
            }
        };
        if let Err(error) = written {
            return Err(match error.kind() {
                io::ErrorKind::FileTooLarge => too_large("the package is", PACKAGE_ZIP_BYTES_MAX as u64, entries),
                _ => CliError::local(format!("cannot pack {name}: {error}")),
            });
        }
    }
    match zip.finish() {
        Ok(capped) if !capped.full => Ok(capped.inner.into_inner()),
        Ok(_) => Err(too_large("the package is", PACKAGE_ZIP_BYTES_MAX as u64, entries)),
        Err(error) => match io::Error::from(error) {
            e if e.kind() == io::ErrorKind::FileTooLarge => {
                Err(too_large("the package is", PACKAGE_ZIP_BYTES_MAX as u64, entries))
            }
            e => Err(CliError::local(format!("cannot finish the package: {e}"))),
        },
    }
}

fn too_large(what: &str, max: u64, entries: &BTreeMap<String, Content>) -> CliError {
    let message = match what {
        "the package is" => format!("the package is larger than {}", bytes(max)),
        what => format!("{what}; the limit is {}", bytes(max)),
    };
    let hint = format!(
        "name what is not needed in {IGNORE_FILE}, or move dependencies to a layer (`mayfly layers publish DIR`)"
    );
    CliError::local(message).details(largest(entries)).hint(hint)
}

/// Where the size is: the largest names in the root, uncompressed.
fn largest(entries: &BTreeMap<String, Content>) -> String {
    let mut tops: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (name, content) in entries {
        let top = name.split_once('/').map_or_else(|| name.clone(), |(top, _)| format!("{top}/"));
        let sums = tops.entry(top).or_default();
        sums.0 += size(content);
        sums.1 += 1;
    }
    let mut tops: Vec<_> = tops.into_iter().collect();
    tops.sort_by_key(|(_, (size, _))| std::cmp::Reverse(*size));
    let line = |(name, (size, count)): &(String, (u64, u64))| match count {
        1 => format!("  {:>9}  {name}", bytes(*size)),
        n => format!("  {:>9}  {name} ({n} files)", bytes(*size)),
    };
    tops.iter().take(5).map(line).collect::<Vec<_>>().join("\n")
}

/// Names in the root of which nothing is in the package, but for those that never are, or were named to be left out.
fn left_out(root: &Path, entries: &BTreeMap<String, Content>, exclude: &Override) -> Result<Vec<String>, CliError> {
    let listing = fs::read_dir(root).map_err(|e| CliError::local(format!("cannot read the folder: {e}")))?;
    let mut names = Vec::new();
    for entry in listing.flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let below = format!("{name}/");
        let known = NEVER.contains(&name.as_str()) || NEVER_IN_ROOT.contains(&name.as_str());
        let packed = entries.contains_key(&name)
            || entries.range(below.clone()..).next().is_some_and(|(p, _)| p.starts_with(&below));
        if known || packed {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        // An empty folder is not left out by a rule: packages have files only.
        let empty = is_dir && fs::read_dir(entry.path()).is_ok_and(|mut d| d.next().is_none());
        if !empty && !exclude.matched(&name, is_dir).is_ignore() {
            names.push(if is_dir { below } else { name });
        }
    }
    names.sort();
    Ok(names)
}

/// A buffer that takes no more than a package may have.
struct Capped {
    inner: Cursor<Vec<u8>>,
    full: bool,
}

impl Write for Capped {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // What follows the refusal is the writer tidying up, whose result nobody reads.
        if self.full {
            return Ok(data.len());
        }
        if self.inner.position() + data.len() as u64 > PACKAGE_ZIP_BYTES_MAX as u64 {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.inner.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Capped {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
