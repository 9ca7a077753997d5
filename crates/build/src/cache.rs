//! What installs have made, by key, in files; bounded, and the least recently used goes first.

use bytes::Bytes;
use mayfly_model::Digest;
use mayfly_store::blobs::digest_of;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Begins the names of files that are being written.
const TEMP_PREFIX: &str = "tmp-";

/// The cache. A file is called `<key>-<sha256 of its content>`; its modification time is when it was last used.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    /// Held while files are put or removed.
    writer: Mutex<()>,
}

struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    /// Opens the cache in `dir`, makes it (mode 0700) where absent, and removes what interrupted writes left.
    ///
    /// # Errors
    /// When the directory cannot be made or read.
    pub fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                fs::remove_file(entry.path())?;
            }
        }
        let cache = Self { dir: dir.to_owned(), bytes_max, writer: Mutex::default() };
        cache.shrink(0, None)?;
        Ok(cache)
    }

    /// What is kept under `key`. A file that is not what was written is removed and counts as none.
    pub fn get(&self, key: &str) -> Option<Bytes> {
        let entries = fs::read_dir(&self.dir).ok()?.flatten();
        let (path, digest) = entries.into_iter().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let digest = Digest::parse(name.strip_prefix(key)?.strip_prefix('-')?)?;
            Some((entry.path(), digest))
        })?;
        let bytes = fs::read(&path).ok()?;
        if digest_of(&bytes) != digest {
            tracing::warn!(key, "a file of the cache of dependencies is damaged; it is made anew");
            let _ = fs::remove_file(&path);
            return None;
        }
        // Its age decides what goes first; nothing else depends on it.
        let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(Bytes::from(bytes))
    }

    /// Keeps `bytes` under `key`, and removes what has not been used for longest if that makes too much. What is larger than the
    /// whole cache is not kept.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put(&self, key: &str, bytes: &[u8]) -> io::Result<()> {
        let _writer = self.writer.lock();
        let size = bytes.len() as u64;
        if size > self.bytes_max {
            return Ok(());
        }
        let path = self.dir.join(format!("{key}-{}", digest_of(bytes)));
        self.shrink(size, Some(&path))?;
        let temp = self.dir.join(format!("{TEMP_PREFIX}{key}"));
        let written = File::create(&temp).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        let placed = written.and_then(|()| fs::rename(&temp, &path));
        if placed.is_err() {
            let _ = fs::remove_file(&temp);
        }
        placed
    }

    /// Removes the least recently used files until `room` more bytes fit. `keep` is about to be written again.
    fn shrink(&self, room: u64, keep: Option<&Path>) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            if keep != Some(entry.path().as_path()) {
                let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(Entry { path: entry.path(), bytes: meta.len(), used });
            }
        }
        entries.sort_by_key(|entry| entry.used);
        let mut held: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries {
            if held.saturating_add(room) <= self.bytes_max {
                break;
            }
            fs::remove_file(&entry.path)?;
            held -= entry.bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn age(dir: &Path, key: &str, seconds: u64) {
        let entry = fs::read_dir(dir).unwrap().flatten().find(|e| e.file_name().to_string_lossy().starts_with(key));
        let file = File::options().append(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn the_least_recently_used_goes_first_and_damage_is_a_miss() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 100).unwrap();
        let (old, used, new) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
        cache.put(&old, &[1; 40]).unwrap();
        cache.put(&used, &[2; 40]).unwrap();
        age(dir.path(), &old, 50);
        age(dir.path(), &used, 100);
        assert_eq!(cache.get(&used).unwrap(), vec![2; 40]);
        cache.put(&new, &[3; 40]).unwrap();
        assert!(cache.get(&old).is_none() && cache.get(&used).is_some() && cache.get(&new).is_some());
        cache.put(&old, &[4; 101]).unwrap();
        assert!(cache.get(&old).is_none() && cache.get(&new).is_some());

        fs::write(dir.path().join("tmp-half"), "x").unwrap();
        let again = Cache::open(dir.path(), 100).unwrap();
        assert!(!dir.path().join("tmp-half").exists());
        assert_eq!(again.get(&new).unwrap(), vec![3; 40]);
        let path =
            fs::read_dir(dir.path()).unwrap().flatten().find(|e| e.file_name().to_string_lossy().starts_with(&new));
        fs::write(path.unwrap().path(), "damage").unwrap();
        assert!(again.get(&new).is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(Cache::open(dir.path(), 10).unwrap().get(&used).is_none());
    }
}
