//! The blob port: immutable bytes named by their SHA-256.

use crate::StoreError;
use crate::sqlite::sync_parent;
use async_trait::async_trait;
use bytes::Bytes;
use mayfly_model::Digest;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A stored blob, as [`BlobStore::list`] tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Time since it was last put.
    pub age: Duration,
}

/// Where code and layers are kept.
#[async_trait]
pub trait BlobStore: Send + Sync {
    /// Stores the bytes and answers their name; durable when it returns, and never half there. Putting what is stored
    /// already makes it young again, and repairs it if it was damaged.
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError>;

    /// Reads a blob and checks it against its name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::Corrupt`] when the bytes are not those that were put.
    async fn get(&self, digest: &Digest) -> Result<Bytes, StoreError>;

    /// Removes a blob; no error when there is none.
    async fn delete(&self, digest: &Digest) -> Result<(), StoreError>;

    /// Every blob, in order of name.
    async fn list(&self) -> Result<Vec<BlobInfo>, StoreError>;
}

/// The name of these bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Blobs as files: `DIR/ab/cdef…`, the digest in hexadecimal cut after two digits.
#[derive(Clone, Debug)]
pub struct FileBlobs {
    dir: PathBuf,
}

/// Prefix of files that are being written. No digest starts so.
const TEMP_PREFIX: &str = "tmp-";

impl FileBlobs {
    /// Opens the store in `dir`, makes it where absent (mode 0700), and removes what interrupted writes left. One process at a
    /// time may have it open.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let io = StoreError::io("open the blob store");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(&io)?;
        for entry in fs::read_dir(dir).map_err(&io)? {
            let entry = entry.map_err(&io)?;
            if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                fs::remove_file(entry.path()).map_err(&io)?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.dir.join(&name[..2]).join(&name[2..])
    }

    fn put_blocking(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = digest_of(bytes);
        let path = self.path(&digest);
        if same_content(&path, bytes) {
            // Its age protects a blob from collection until the row that refers to it is committed.
            let touched = fs::File::options().write(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
            match touched {
                Ok(()) => return Ok(digest),
                // Collected meanwhile: write it again.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("refresh a blob")(error)),
            }
        }
        let io = StoreError::io("write a blob");
        let mut file = tempfile::Builder::new()
            .prefix(TEMP_PREFIX)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .tempfile_in(&self.dir)
            .map_err(&io)?;
        file.write_all(bytes).map_err(&io)?;
        file.as_file().sync_all().map_err(&io)?;
        let folder = path.parent().unwrap_or(&self.dir);
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Ok(()) => sync_parent(folder)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(error)),
        }
        file.persist(&path).map_err(|error| io(error.error))?;
        sync_parent(&path)?;
        Ok(digest)
    }

    fn get_blocking(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let bytes = fs::OpenOptions::new()
            .read(true)
            .custom_flags(NO_FOLLOW)
            .open(self.path(digest))
            .and_then(|mut file| {
                let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or(0));
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            })
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => StoreError::NotFound("the blob"),
                _ => StoreError::io("read a blob")(error),
            })?;
        if digest_of(&bytes) != *digest {
            return Err(StoreError::Corrupt("a blob does not match its name"));
        }
        Ok(bytes.into())
    }

    fn delete_blocking(&self, digest: &Digest) -> Result<(), StoreError> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete a blob")(error)),
            _ => Ok(()),
        }
    }

    fn list_blocking(&self) -> Result<Vec<BlobInfo>, StoreError> {
        let io = StoreError::io("list the blobs");
        let now = SystemTime::now();
        let mut found = Vec::new();
        for folder in fs::read_dir(&self.dir).map_err(&io)? {
            let folder = folder.map_err(&io)?;
            if !folder.file_type().map_err(&io)?.is_dir() {
                continue;
            }
            for file in fs::read_dir(folder.path()).map_err(&io)? {
                let file = file.map_err(&io)?;
                let name =
                    [folder.file_name(), file.file_name()].map(|part| part.to_string_lossy().into_owned()).concat();
                let Some(digest) = Digest::parse(&name) else { continue };
                // A blob that is deleted while the list is made is simply not on it.
                let Ok(meta) = file.metadata() else { continue };
                let age = meta.modified().ok().and_then(|t| now.duration_since(t).ok()).unwrap_or_default();
                found.push(BlobInfo { digest, bytes: meta.len(), age });
            }
        }
        found.sort_unstable_by_key(|blob| blob.digest);
        Ok(found)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let this = self.clone();
        tokio::task::spawn_blocking(move || work(&this)).await.map_err(|_| StoreError::Closed)?
    }
}

/// `O_NOFOLLOW` on Linux.
const NO_FOLLOW: i32 = 0o400000;

fn same_content(path: &Path, bytes: &[u8]) -> bool {
    let compare = || -> io::Result<bool> {
        let mut file = fs::OpenOptions::new().read(true).custom_flags(NO_FOLLOW).open(path)?;
        if file.metadata()?.len() != bytes.len() as u64 {
            return Ok(false);
        }
        let mut buffer = vec![0; 64 * 1024];
        for chunk in bytes.chunks(buffer.len()) {
            let part = &mut buffer[..chunk.len()];
            file.read_exact(part)?;
            if part != chunk {
                return Ok(false);
            }
        }
        Ok(true)
    };
    // What cannot be read is as good as damaged: it is written anew.
    compare().unwrap_or(false)
}

#[async_trait]
impl BlobStore for FileBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        self.blocking(move |this| this.put_blocking(&bytes)).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let digest = *digest;
        self.blocking(move |this| this.get_blocking(&digest)).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        let digest = *digest;
        self.blocking(move |this| this.delete_blocking(&digest)).await
    }

    async fn list(&self) -> Result<Vec<BlobInfo>, StoreError> {
        self.blocking(Self::list_blocking).await
    }
}

/// Blobs in memory: the fake. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct MemoryBlobs {
    blobs: Arc<Mutex<HashMap<Digest, (Bytes, Instant)>>>,
}

impl MemoryBlobs {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the bytes of a blob behind its back, as a failing disk would. No effect when there is none.
    pub fn damage(&self, digest: &Digest, bytes: Bytes) {
        if let Some(blob) = self.blobs.lock().get_mut(digest) {
            blob.0 = bytes;
        }
    }
}

#[async_trait]
impl BlobStore for MemoryBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        let digest = digest_of(&bytes);
        self.blobs.lock().insert(digest, (bytes, Instant::now()));
        Ok(digest)
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        let bytes = self.blobs.lock().get(digest).map(|blob| blob.0.clone());
        let bytes = bytes.ok_or(StoreError::NotFound("the blob"))?;
        if digest_of(&bytes) != *digest {
            return Err(StoreError::Corrupt("a blob does not match its name"));
        }
        Ok(bytes)
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.blobs.lock().remove(digest);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<BlobInfo>, StoreError> {
        let blobs = self.blobs.lock();
        let mut found: Vec<_> = blobs
            .iter()
            .map(|(digest, (bytes, put))| BlobInfo { digest: *digest, bytes: bytes.len() as u64, age: put.elapsed() })
            .collect();
        found.sort_unstable_by_key(|blob| blob.digest);
        Ok(found)
    }
}
