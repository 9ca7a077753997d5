//! Unpacked packages, named by the digest of their zip, ready to be mounted.
//!
//! `DIR/<digest>/` is a tree, `DIR/<digest>.manifest` the list it is checked by. A tree is built under a temporary name
//! and moved into place, its manifest last: a tree without a manifest is an interrupted one.

mod manifest;

use crate::package::unpack_with;
use crate::{BlobStore, PackageLimits, StoreError};
use manifest::{ManifestWriter, tree_is_whole};
use mayfly_model::{CodeRef, Digest};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore};

/// Packages unpacked at once: each holds its zip in memory meanwhile.
const BUILDS_MAX: usize = 2;
/// Begins the names of trees that are being built or removed. No digest starts so.
const TEMP_PREFIX: &str = "tmp-";
const MANIFEST_SUFFIX: &str = ".manifest";

/// An unpacked package. It stays on disk as long as anybody holds it.
#[derive(Debug)]
pub struct CodeTree {
    /// Its directory: owned by the user Mayfly runs as (root), mode 0755, files 0644 or 0755.
    pub path: PathBuf,
}

/// What [`CodeCache::collect`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Unpacked trees.
    pub trees: usize,
    /// Blobs.
    pub blobs: usize,
    /// Size of those blobs, in bytes.
    pub blob_bytes: u64,
}

/// Keeps unpacked packages. Cheap to clone.
#[derive(Clone)]
pub struct CodeCache {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    blobs: Arc<dyn BlobStore>,
    /// Trees that were built or checked since this process started.
    ready: RwLock<HashMap<Digest, Arc<CodeTree>>>,
    /// One lock for each tree that is being built, checked or removed.
    flights: Mutex<HashMap<Digest, Arc<AsyncMutex<()>>>>,
    builds: Semaphore,
    next_temp: AtomicU64,
}

impl CodeCache {
    /// Opens the cache in `dir`, makes it where absent (mode 0711: sandboxes mount trees from here, nobody lists them), and removes
    /// what interrupted work left. One process at a time may have it open.
    pub fn open(dir: &Path, blobs: Arc<dyn BlobStore>) -> Result<Self, StoreError> {
        let io = StoreError::io("open the code cache");
        fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(&io)?;
        for entry in fs::read_dir(dir).map_err(&io)? {
            let entry = entry.map_err(&io)?;
            if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                remove(&entry.path()).map_err(&io)?;
            }
        }
        Ok(Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                blobs,
                ready: RwLock::default(),
                flights: Mutex::default(),
                builds: Semaphore::new(BUILDS_MAX),
                next_temp: AtomicU64::new(0),
            }),
        })
    }

    /// The tree, when it was already built or checked since this process started: never waits for the disk or for work on
    /// another tree.
    pub fn get_ready(&self, digest: &Digest) -> Option<Arc<CodeTree>> {
        self.inner.ready.read().get(digest).cloned()
    }

    /// The tree of this package: at once when it is ready, else checked against its manifest, else unpacked from the blob.
    /// Concurrent calls for one package share the work, and the work goes on when its callers go away.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] or [`StoreError::Corrupt`] when the blob is gone or damaged, [`StoreError::Package`] when
    /// it is not a package that would have been accepted, [`StoreError::Full`] or [`StoreError::Io`] from the disk.
    pub async fn ensure(&self, code: &CodeRef) -> Result<Arc<CodeTree>, StoreError> {
        if let Some(tree) = self.get_ready(&code.digest) {
            return Ok(tree);
        }
        let (inner, code) = (Arc::clone(&self.inner), *code);
        tokio::spawn(async move { inner.prepare(code).await }).await.map_err(|_| StoreError::Closed)?
    }

    /// Removes trees and blobs that are not `live`, not held by anybody, and were put (built) `min_age` ago or longer. `min_age`
    /// must be longer than the time from storing a blob to committing what refers to it.
    pub async fn collect(&self, live: &HashSet<Digest>, min_age: Duration) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let inner = Arc::clone(&self.inner);
        for digest in blocking(move || inner.old_trees(min_age)).await? {
            if !live.contains(&digest) && self.inner.collect_tree(digest).await? {
                collected.trees += 1;
            }
        }
        for blob in self.inner.blobs.list().await? {
            if !live.contains(&blob.digest) && blob.age >= min_age {
                self.inner.blobs.delete(&blob.digest).await?;
                collected.blobs += 1;
                collected.blob_bytes += blob.bytes;
            }
        }
        Ok(collected)
    }
}

impl Inner {
    fn tree_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}{MANIFEST_SUFFIX}"))
    }

    fn temp_path(&self) -> PathBuf {
        self.dir.join(format!("{TEMP_PREFIX}{}", self.next_temp.fetch_add(1, Ordering::Relaxed)))
    }

    async fn prepare(self: Arc<Self>, code: CodeRef) -> Result<Arc<CodeTree>, StoreError> {
        let digest = code.digest;
        let lock = Arc::clone(self.flights.lock().entry(digest).or_default());
        let guard = lock.lock_owned().await;
        let result = self.prepare_alone(&code).await;
        self.land(digest, guard);
        result
    }

    async fn prepare_alone(self: &Arc<Self>, code: &CodeRef) -> Result<Arc<CodeTree>, StoreError> {
        let digest = code.digest;
        if let Some(tree) = self.ready.read().get(&digest) {
            return Ok(Arc::clone(tree));
        }
        let this = Arc::clone(self);
        let whole = blocking(move || Ok(tree_is_whole(&this.tree_path(&digest), &this.manifest_path(&digest)))).await?;
        if !whole {
            let _permit = self.builds.acquire().await.map_err(|_| StoreError::Closed)?;
            let zip = self.blobs.get(&digest).await?;
            let (this, code) = (Arc::clone(self), *code);
            blocking(move || this.build(&zip, &code)).await?;
        }
        let tree = Arc::new(CodeTree { path: self.tree_path(&digest) });
        self.ready.write().insert(digest, Arc::clone(&tree));
        Ok(tree)
    }

    /// Releases the lock of a tree, and forgets it when nobody waits for it.
    fn land(&self, digest: Digest, guard: OwnedMutexGuard<()>) {
        let mut flights = self.flights.lock();
        let lock = Arc::clone(OwnedMutexGuard::mutex(&guard));
        drop(guard);
        // The map's and this one; waiters hold one each, and get it under the lock of the map.
        if Arc::strong_count(&lock) == 2 {
            flights.remove(&digest);
        }
    }

    fn build(&self, zip: &[u8], code: &CodeRef) -> Result<(), StoreError> {
        let io = StoreError::io("unpack a package");
        let temp = TempDir::create(self.temp_path()).map_err(&io)?;
        let (tree, manifest) = (temp.path.join("tree"), temp.path.join("manifest"));
        // The package was checked when it was accepted, and the reference says what it was found to hold.
        let limits = PackageLimits {
            zip_bytes_max: code.zip_bytes,
            unpacked_bytes_max: code.unpacked_bytes,
            entries_max: usize::try_from(u32::MAX).unwrap_or(usize::MAX),
        };
        let mut writer = ManifestWriter::create(&manifest).map_err(&io)?;
        unpack_with(zip, &tree, &limits, |placed| writer.add(placed)).map_err(|error| match error {
            crate::PackageError::Io(error) => StoreError::io("unpack a package")(error),
            error => StoreError::Package(Arc::new(error)),
        })?;
        writer.finish().map_err(&io)?;
        self.discard(&code.digest)?;
        fs::rename(&tree, self.tree_path(&code.digest)).map_err(&io)?;
        fs::rename(&manifest, self.manifest_path(&code.digest)).map_err(&io)
    }

    /// Removes a tree and its manifest. The manifest goes first, and the tree goes at once by being renamed, so that what is
    /// left of it after a crash is never taken for a tree.
    fn discard(&self, digest: &Digest) -> Result<(), StoreError> {
        let io = StoreError::io("remove an unpacked package");
        remove(&self.manifest_path(digest)).map_err(&io)?;
        let temp = self.temp_path();
        match fs::rename(self.tree_path(digest), &temp) {
            Ok(()) => remove(&temp).map_err(&io),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io(error)),
        }
    }

    /// Trees (also those without a manifest, and manifests without a tree) that were made `min_age` ago or longer.
    fn old_trees(&self, min_age: Duration) -> Result<HashSet<Digest>, StoreError> {
        let io = StoreError::io("list the code cache");
        let now = SystemTime::now();
        let mut found = HashSet::new();
        for entry in fs::read_dir(&self.dir).map_err(&io)? {
            let entry = entry.map_err(&io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(digest) = Digest::parse(name.strip_suffix(MANIFEST_SUFFIX).unwrap_or(&name)) else { continue };
            // Unpacking sets the time of the directory; packages cannot: their own times are not kept.
            let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) else { continue };
            if now.duration_since(modified).unwrap_or_default() >= min_age {
                found.insert(digest);
            }
        }
        Ok(found)
    }

    async fn collect_tree(self: &Arc<Self>, digest: Digest) -> Result<bool, StoreError> {
        let lock = Arc::clone(self.flights.lock().entry(digest).or_default());
        // Somebody is about to use it.
        let Ok(guard) = lock.try_lock_owned() else { return Ok(false) };
        let result = if self.forget_unheld(&digest) {
            let this = Arc::clone(self);
            blocking(move || this.discard(&digest)).await.map(|()| true)
        } else {
            Ok(false)
        };
        self.land(digest, guard);
        result
    }

    /// Takes a tree off the ready list unless somebody holds it. True when it may be removed.
    fn forget_unheld(&self, digest: &Digest) -> bool {
        let mut ready = self.ready.write();
        match ready.get(digest) {
            // New holders come by the list only, and the list is locked.
            Some(tree) if Arc::strong_count(tree) > 1 => false,
            _ => {
                ready.remove(digest);
                true
            }
        }
    }
}

/// A directory that is removed with whatever is still in it.
struct TempDir {
    path: PathBuf,
}

impl TempDir {
    fn create(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(%error, "removing a temporary directory of the code cache");
        }
    }
}

/// Removes a file or a tree, without following links; no error when there is none.
fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StoreError::Closed)?
}
