//! Reading what was made in a sandbox. Everything there was written by user code: nothing is opened by a path that it could bend, nothing
//! but files, directories and links is taken, and no more than a package may hold.

use mayfly_model::limits::{PACKAGE_ENTRIES_MAX, PACKAGE_UNPACKED_BYTES_MAX};
use mayfly_store::package::{DEPTH_MAX, PATH_BYTES_MAX};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, readlinkat, statat};
use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

const MODE_EXECUTABLE: u32 = 0o755;
const MODE_PLAIN: u32 = 0o644;

/// Why what was made cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// It is larger than a package may be.
    #[error("what was installed has more than {} MB or {PACKAGE_ENTRIES_MAX} files", PACKAGE_UNPACKED_BYTES_MAX >> 20)]
    TooLarge,
    /// A name that packages cannot have.
    #[error("what was installed holds a name that packages cannot have: {0}")]
    Name(String),
    /// The machine failed.
    #[error("reading what was installed: {0}")]
    Io(#[from] io::Error),
}

struct Collector {
    zip: ZipWriter<Cursor<Vec<u8>>>,
    entries: usize,
    bytes: u64,
}

/// A zip of the directory `names` below `root`, whose entries begin with `prefix`; an empty zip when there is none. Links are taken as links.
/// Equal content gives equal bytes. Blocks.
///
/// # Errors
/// [`CollectError`].
pub fn collect(root: BorrowedFd<'_>, names: &[&str], prefix: &str) -> Result<Vec<u8>, CollectError> {
    let mut collector = Collector { zip: ZipWriter::new(Cursor::new(Vec::new())), entries: 0, bytes: 0 };
    let mut directory = root.try_clone_to_owned()?;
    for name in names {
        match open_directory(directory.as_fd(), *name) {
            Ok(next) => directory = next,
            Err(rustix::io::Errno::NOENT) => return finish(collector),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    collector.walk(&directory, prefix, 0)?;
    finish(collector)
}

fn finish(collector: Collector) -> Result<Vec<u8>, CollectError> {
    Ok(collector.zip.finish().map_err(io::Error::from)?.into_inner())
}

fn open_directory(parent: BorrowedFd<'_>, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

impl Collector {
    fn count(&mut self) -> Result<(), CollectError> {
        self.entries += 1;
        if self.entries > PACKAGE_ENTRIES_MAX { Err(CollectError::TooLarge) } else { Ok(()) }
    }

    fn walk(&mut self, directory: &OwnedFd, prefix: &str, depth: usize) -> Result<(), CollectError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(io::Error::from)? {
            let entry = entry.map_err(io::Error::from)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
            if names.len() > PACKAGE_ENTRIES_MAX {
                return Err(CollectError::TooLarge);
            }
        }
        names.sort();
        for name in names {
            let text = name.to_str().map_err(|_| CollectError::Name(shown(&name.to_string_lossy())))?;
            let path = if prefix.is_empty() { text.to_owned() } else { format!("{prefix}/{text}") };
            if depth >= DEPTH_MAX || path.len() > PATH_BYTES_MAX || text.contains('\\') {
                return Err(CollectError::Name(shown(&path)));
            }
            let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
            let options = SimpleFileOptions::default().last_modified_time(DateTime::default());
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.count()?;
                    let next = open_directory(directory.as_fd(), &name).map_err(io::Error::from)?;
                    self.walk(&next, &path, depth + 1)?;
                }
                FileType::Symlink => {
                    self.count()?;
                    let target = readlinkat(directory, &name, Vec::new()).map_err(io::Error::from)?;
                    let target = target.into_string().map_err(|_| CollectError::Name(shown(&path)))?;
                    self.zip.add_symlink(path, target, options).map_err(io::Error::from)?;
                }
                FileType::RegularFile => {
                    self.count()?;
                    self.file(directory, &name, path, options)?;
                }
                // Sockets and pipes are nobody's dependencies.
                _ => {}
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        directory: &OwnedFd,
        name: &std::ffi::CStr,
        path: String,
        options: SimpleFileOptions,
    ) -> Result<(), CollectError> {
        // Non-blocking: it may have become a pipe meanwhile.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(directory, name, flags, Mode::empty()).map_err(io::Error::from)?);
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Ok(());
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions());
        let mode = if mode & 0o111 == 0 { MODE_PLAIN } else { MODE_EXECUTABLE };
        let left = PACKAGE_UNPACKED_BYTES_MAX - self.bytes;
        let options =
            options.unix_permissions(mode).compression_method(CompressionMethod::Deflated).compression_level(Some(3));
        self.zip.start_file(path, options).map_err(io::Error::from)?;
        let mut limited = file.take(left + 1);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = limited.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            self.bytes += n as u64;
            if self.bytes > PACKAGE_UNPACKED_BYTES_MAX {
                return Err(CollectError::TooLarge);
            }
            self.zip.write_all(&buffer[..n])?;
        }
    }
}

fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn files_and_links_are_taken_and_nothing_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("out/made");
        fs::create_dir_all(made.join("sub")).unwrap();
        fs::write(dir.path().join("secret"), "host").unwrap();
        fs::write(made.join("sub/a.py"), "a").unwrap();
        fs::write(made.join("run"), "r").unwrap();
        fs::set_permissions(made.join("run"), fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("../../secret", made.join("link")).unwrap();
        std::os::unix::net::UnixListener::bind(made.join("socket")).unwrap();
        let root = File::open(dir.path()).unwrap();
        let zip = collect(root.as_fd(), &["out", "made"], "lib").unwrap();
        assert_eq!(zip, collect(root.as_fd(), &["out", "made"], "lib").unwrap());
        let mut archive = zip::ZipArchive::new(Cursor::new(&zip)).unwrap();
        let names: Vec<String> = archive.file_names().map(|n| n.unwrap().into_owned()).collect();
        assert_eq!(names, ["lib/link", "lib/run", "lib/sub/a.py"]);
        assert!(archive.by_name("lib/link").unwrap().is_symlink());
        assert_eq!(archive.by_name("lib/run").unwrap().unix_mode().unwrap() & 0o7777, 0o755);
        // The rules for packages refuse what leads out.
        let limits = mayfly_store::PackageLimits::default();
        assert!(mayfly_store::package::check(&zip, &limits).is_err());

        let none = collect(root.as_fd(), &["nothing"], "").unwrap();
        assert_eq!(zip::ZipArchive::new(Cursor::new(none)).unwrap().len(), 0);
        symlink("/", dir.path().join("away")).unwrap();
        assert!(collect(root.as_fd(), &["away"], "").is_err());
    }
}
