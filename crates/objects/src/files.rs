//! The files that hold objects' bytes.
//!
//! A file is written once, under a name that was never used before, and is seen by nobody until the database refers to it. Its name is a number:
//! the run of the store that wrote it (32 bits) and a count within. So what a killed run left without a reference is found by looking at
//! the folders of runs that were not looked at yet, however many files there are in all.

use crate::ObjectError;
use crate::entry::Slice;
use crate::error::io;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;

/// Files in a folder: this many bits of the count.
const FOLDER_BITS: u32 = 12;

/// The files of a store.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    boot: u32,
    next: AtomicU32,
    free_min: u64,
    reserved: AtomicU64,
    written: AtomicU64,
    readers: Mutex<Readers>,
    janitor: mpsc::Sender<Chore>,
}

/// What the janitor is to do.
#[derive(Debug)]
pub(crate) enum Chore {
    /// Nothing refers to the file any more, and the database has it among its garbage.
    Discard(i64),
    /// The file never got a reference.
    Unlink(i64),
}

/// Who reads what: a file that nothing refers to any more goes once nobody reads it, and nobody can be about to.
#[derive(Debug, Default)]
struct Readers {
    /// Moments, counted.
    now: u64,
    /// Look-ups under way, by the moment they began.
    looking: BTreeMap<u64, usize>,
    /// Readers of each file.
    pinned: HashMap<i64, usize>,
    /// Files to go, with the moment they lost their last reference.
    garbage: Vec<(i64, u64)>,
}

impl Readers {
    /// Takes out what may go now.
    fn ripe(&mut self) -> Vec<i64> {
        if self.garbage.is_empty() {
            return Vec::new();
        }
        let oldest = self.looking.first_key_value().map_or(u64::MAX, |(moment, _)| *moment);
        let pinned = &self.pinned;
        let (ripe, left) =
            self.garbage.drain(..).partition::<Vec<_>, _>(|(id, moment)| *moment < oldest && !pinned.contains_key(id));
        self.garbage = left;
        ripe.into_iter().map(|(id, _)| id).collect()
    }
}

impl Files {
    /// The files under `root`, for the run `boot`. Chores go to `janitor`.
    pub(crate) fn open(
        root: &Path,
        boot: u32,
        free_min: u64,
        janitor: mpsc::Sender<Chore>,
    ) -> Result<Self, ObjectError> {
        let own = root.join(format!("{boot:08x}"));
        fs::create_dir_all(&own).map_err(io("make a folder for objects"))?;
        sync(root)?;
        Ok(Self {
            root: root.to_owned(),
            boot,
            next: AtomicU32::new(0),
            free_min,
            reserved: AtomicU64::new(0),
            written: AtomicU64::new(0),
            readers: Mutex::default(),
            janitor,
        })
    }

    fn path(&self, id: i64) -> PathBuf {
        path_of(&self.root, id)
    }

    /// Makes a new file. Blocks.
    pub(crate) fn create(self: &Arc<Self>) -> Result<Fresh, ObjectError> {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        if count == u32::MAX {
            // Not within one run; but a number that comes again would damage what is there.
            return Err(ObjectError::Internal);
        }
        let id = i64::from(self.boot) << 32 | i64::from(count);
        let path = self.path(id);
        let open = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let folder = path.parent().expect("files are in folders");
                fs::create_dir_all(folder).map_err(io("make a folder for objects"))?;
                sync(&self.root.join(format!("{:08x}", self.boot)))?;
                open()
            }
            other => other,
        };
        let file = file.map_err(io("make a file for an object"))?;
        Ok(Fresh { files: Arc::clone(self), id, file: Some(file), kept: false })
    }

    /// Opens a file for reading.
    pub(crate) fn read(&self, id: i64) -> Result<File, ObjectError> {
        File::open(self.path(id)).map_err(|error| {
            tracing::error!(%error, file = id, "an object's file cannot be opened");
            ObjectError::Corrupt
        })
    }

    /// Sets disk space aside for an upload.
    pub(crate) fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { files: Arc::clone(self), held: 0 }
    }

    /// Bytes that clients put, since the start.
    pub(crate) fn written(&self) -> &AtomicU64 {
        &self.written
    }

    /// To be held from before an object is looked up until its files are pinned.
    pub(crate) fn looking(self: &Arc<Self>) -> Looking {
        let mut readers = self.readers.lock();
        let moment = readers.now;
        *readers.looking.entry(moment).or_default() += 1;
        Looking { files: Arc::clone(self), moment }
    }

    /// The database does not refer to these files any more.
    pub(crate) fn discard(&self, ids: impl IntoIterator<Item = i64>) {
        let ripe = {
            let mut readers = self.readers.lock();
            let moment = readers.now;
            readers.now += 1;
            readers.garbage.extend(ids.into_iter().map(|id| (id, moment)));
            readers.ripe()
        };
        self.chores(ripe);
    }

    fn chores(&self, ripe: Vec<i64>) {
        for id in ripe {
            // When the janitor has ended, the store has; the next start clears away.
            let _ = self.janitor.send(Chore::Discard(id));
        }
    }

    fn free(&self) -> Result<u64, ObjectError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|e| io("ask for free disk space")(e.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

fn path_of(root: &Path, id: i64) -> PathBuf {
    let (boot, count) = (id >> 32, id & 0xffff_ffff);
    root.join(format!("{boot:08x}/{:05x}/{:03x}", count >> FOLDER_BITS, count & ((1 << FOLDER_BITS) - 1)))
}

fn sync(folder: &Path) -> Result<(), ObjectError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync a folder"))
}

/// Removes the file of `id`; one that is not there is fine. Its folder stays.
pub(crate) fn unlink(root: &Path, id: i64) -> bool {
    match fs::remove_file(path_of(root, id)) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(%error, file = id, "a file that is not needed any more cannot be removed");
            false
        }
    }
}

/// Removes what the run `boot` left without a reference, and folders that are empty. Blocks. Returns how many files went.
pub(crate) fn sweep(root: &Path, boot: u32, live: &HashSet<i64>) -> usize {
    let mut swept = 0;
    let top = root.join(format!("{boot:08x}"));
    for folder in fs::read_dir(&top).into_iter().flatten().flatten() {
        let Some(high) = folder.file_name().to_str().and_then(|n| i64::from_str_radix(n, 16).ok()) else { continue };
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let low = file.file_name().to_str().and_then(|n| i64::from_str_radix(n, 16).ok());
            let id = low.map(|low| i64::from(boot) << 32 | high << FOLDER_BITS | low);
            if id.is_some_and(|id| !live.contains(&id) && unlink(root, id)) {
                swept += 1;
            }
        }
        // Fails where something is left, as it should.
        let _ = fs::remove_dir(folder.path());
    }
    let _ = fs::remove_dir(top);
    swept
}

/// A file that the database does not know yet. Dropped before it does, it goes.
#[derive(Debug)]
pub(crate) struct Fresh {
    files: Arc<Files>,
    id: i64,
    file: Option<File>,
    kept: bool,
}

impl Fresh {
    /// Its number.
    pub(crate) fn id(&self) -> i64 {
        self.id
    }

    /// To write to.
    pub(crate) fn file(&mut self) -> Result<&mut File, ObjectError> {
        self.file.as_mut().ok_or(ObjectError::Internal)
    }

    /// Makes it durable, entry in its folder and all. Blocks.
    pub(crate) fn seal(&mut self) -> Result<(), ObjectError> {
        if let Some(file) = self.file.take() {
            file.sync_all().map_err(io("sync an object's file"))?;
            sync(self.files.path(self.id).parent().expect("files are in folders"))?;
        }
        Ok(())
    }

    /// The database refers to it, or may.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if !self.kept {
            let _ = self.files.janitor.send(Chore::Unlink(self.id));
        }
    }
}

/// Disk space set aside.
#[derive(Debug)]
pub(crate) struct Reservation {
    files: Arc<Files>,
    held: u64,
}

impl Reservation {
    /// Sets aside until there are `bytes` in all.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> Result<(), ObjectError> {
        let more = bytes.saturating_sub(self.held);
        if more == 0 {
            return Ok(());
        }
        let all = self.files.reserved.fetch_add(more, Ordering::AcqRel).saturating_add(more);
        self.held += more;
        // What is written already is counted twice, here and by the file system: early, never late.
        if self.files.free()? < all.saturating_add(self.files.free_min) {
            return Err(ObjectError::DiskFull);
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.files.reserved.fetch_sub(self.held, Ordering::AcqRel);
    }
}

/// A look-up under way: no file that an object had when it began is removed.
#[derive(Debug)]
pub(crate) struct Looking {
    files: Arc<Files>,
    moment: u64,
}

impl Looking {
    /// Goes on reading these files.
    pub(crate) fn pin(self, slices: &[Slice]) -> Pinned {
        let ids: Vec<i64> = slices.iter().map(|s| s.0).collect();
        let mut readers = self.files.readers.lock();
        for id in &ids {
            *readers.pinned.entry(*id).or_default() += 1;
        }
        drop(readers);
        Pinned { files: Arc::clone(&self.files), ids }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let ripe = {
            let mut readers = self.files.readers.lock();
            if let Some(count) = readers.looking.get_mut(&self.moment) {
                *count -= 1;
                if *count == 0 {
                    readers.looking.remove(&self.moment);
                }
            }
            readers.ripe()
        };
        self.files.chores(ripe);
    }
}

/// Files that are being read.
#[derive(Debug)]
pub(crate) struct Pinned {
    files: Arc<Files>,
    ids: Vec<i64>,
}

impl Pinned {
    /// The files of the store.
    pub(crate) fn files(&self) -> &Arc<Files> {
        &self.files
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let ripe = {
            let mut readers = self.files.readers.lock();
            for id in &self.ids {
                if let Some(count) = readers.pinned.get_mut(id) {
                    *count -= 1;
                    if *count == 0 {
                        readers.pinned.remove(id);
                    }
                }
            }
            readers.ripe()
        };
        self.files.chores(ripe);
    }
}
