//! The contract of `BlobStore`.

use bytes::Bytes;
use mayfly_model::Digest;
use mayfly_store::{BlobStore, FileBlobs, MemoryBlobs, StoreError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

trait Fixture: Send + Sync {
    fn store(&self) -> Arc<dyn BlobStore>;
    /// Replaces the stored bytes behind the store's back.
    fn damage(&self, digest: &Digest, bytes: &'static [u8]);
}

struct Files(TempDir);

impl Files {
    fn path(&self, digest: &Digest) -> PathBuf {
        let name = digest.to_string();
        self.0.path().join("blobs").join(&name[..2]).join(&name[2..])
    }
}

impl Fixture for Files {
    fn store(&self) -> Arc<dyn BlobStore> {
        Arc::new(FileBlobs::open(&self.0.path().join("blobs")).unwrap())
    }

    fn damage(&self, digest: &Digest, bytes: &'static [u8]) {
        std::fs::write(self.path(digest), bytes).unwrap();
    }
}

struct Memory(MemoryBlobs);

impl Fixture for Memory {
    fn store(&self) -> Arc<dyn BlobStore> {
        Arc::new(self.0.clone())
    }

    fn damage(&self, digest: &Digest, bytes: &'static [u8]) {
        self.0.damage(digest, Bytes::from_static(bytes));
    }
}

fn files() -> Files {
    Files(tempfile::tempdir().unwrap())
}

macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod on_files {
            $(#[tokio::test] async fn $test() { super::$test(&super::files()).await })*
        }
        mod on_memory {
            $(#[tokio::test] async fn $test() { super::$test(&super::Memory(Default::default())).await })*
        }
    };
}

contract!(what_is_put_comes_back, damage_is_found_and_a_put_repairs_it, concurrent_puts_of_one_blob, lists_all);

async fn what_is_put_comes_back(fixture: &dyn Fixture) {
    let store = fixture.store();
    for bytes in [Bytes::new(), Bytes::from_static(b"hello"), Bytes::from(vec![7; 1 << 20])] {
        let digest = store.put(bytes.clone()).await.unwrap();
        assert_eq!(store.put(bytes.clone()).await.unwrap(), digest);
        assert_eq!(fixture.store().get(&digest).await.unwrap(), bytes);
        store.delete(&digest).await.unwrap();
        store.delete(&digest).await.unwrap();
        assert!(matches!(store.get(&digest).await, Err(StoreError::NotFound(_))));
    }
    let known = store.put(Bytes::from_static(b"abc")).await.unwrap();
    assert_eq!(known.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

async fn damage_is_found_and_a_put_repairs_it(fixture: &dyn Fixture) {
    let store = fixture.store();
    let digest = store.put(Bytes::from_static(b"hello")).await.unwrap();
    for damaged in [&b"jello"[..], b"", b"hello!"] {
        fixture.damage(&digest, damaged);
        assert!(matches!(store.get(&digest).await, Err(StoreError::Corrupt(_))));
        store.put(Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(store.get(&digest).await.unwrap(), "hello");
    }
}

async fn concurrent_puts_of_one_blob(fixture: &dyn Fixture) {
    let store = fixture.store();
    let bytes = Bytes::from(vec![3; 300_000]);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (store, bytes) = (Arc::clone(&store), bytes.clone());
            tokio::spawn(async move {
                let digest = store.put(bytes.clone()).await.unwrap();
                assert_eq!(store.get(&digest).await.unwrap(), bytes);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.list().await.unwrap().len(), 1);
}

async fn lists_all(fixture: &dyn Fixture) {
    let store = fixture.store();
    let mut digests = Vec::new();
    for i in 0..20usize {
        digests.push((store.put(Bytes::from(vec![1; i])).await.unwrap(), i as u64));
    }
    digests.sort();
    let listed = store.list().await.unwrap();
    assert_eq!(listed.iter().map(|blob| (blob.digest, blob.bytes)).collect::<Vec<_>>(), digests);
    assert!(listed.iter().all(|blob| blob.age < Duration::from_secs(60)));
}

#[tokio::test]
async fn interrupted_writes_are_removed_and_strangers_ignored() {
    let files = files();
    let store = files.store();
    let digest = store.put(Bytes::from_static(b"hello")).await.unwrap();
    let dir = files.0.path().join("blobs");
    std::fs::write(dir.join("tmp-abc"), "half").unwrap();
    std::fs::create_dir(dir.join("lost+found")).unwrap();
    std::fs::write(dir.join("lost+found/x"), "x").unwrap();
    let store = files.store();
    assert!(!dir.join("tmp-abc").exists());
    assert_eq!(store.list().await.unwrap().iter().map(|blob| blob.digest).collect::<Vec<_>>(), [digest]);
}

#[tokio::test]
async fn putting_again_makes_young() {
    let files = files();
    let store = files.store();
    let digest = store.put(Bytes::from_static(b"hello")).await.unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(files.path(&digest)).unwrap().set_modified(old).unwrap();
    assert!(store.list().await.unwrap()[0].age >= Duration::from_secs(3599));
    store.put(Bytes::from_static(b"hello")).await.unwrap();
    assert!(store.list().await.unwrap()[0].age < Duration::from_secs(60));
}
