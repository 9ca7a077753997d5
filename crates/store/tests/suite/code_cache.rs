//! The code cache: built once, checked after a restart, rebuilt when damaged, collected when unused.

use crate::rawzip::{Raw, dir, file, link, zip};
use async_trait::async_trait;
use bytes::Bytes;
use mayfly_model::{CodeRef, Digest};
use mayfly_store::package::check;
use mayfly_store::{BlobInfo, BlobStore, CodeCache, Collected, MemoryBlobs, PackageLimits, StoreError};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Blobs that count how often they are read.
#[derive(Clone, Default)]
struct Counting {
    inner: MemoryBlobs,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl BlobStore for Counting {
    async fn put(&self, bytes: Bytes) -> Result<Digest, StoreError> {
        self.inner.put(bytes).await
    }

    async fn get(&self, digest: &Digest) -> Result<Bytes, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get(digest).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.inner.delete(digest).await
    }

    async fn list(&self) -> Result<Vec<BlobInfo>, StoreError> {
        self.inner.list().await
    }
}

struct World {
    dir: TempDir,
    blobs: Counting,
}

impl World {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), blobs: Counting::default() }
    }

    fn open(&self) -> CodeCache {
        CodeCache::open(&self.dir.path().join("code"), Arc::new(self.blobs.clone())).unwrap()
    }

    async fn put(&self, zip: Vec<u8>) -> CodeRef {
        let summary = check(&zip, &PackageLimits::default()).unwrap();
        let zip_bytes = zip.len() as u64;
        let digest = self.blobs.put(zip.into()).await.unwrap();
        CodeRef { digest, zip_bytes, unpacked_bytes: summary.unpacked_bytes }
    }

    fn reads(&self) -> usize {
        self.blobs.reads.load(Ordering::SeqCst)
    }

    /// Names in the cache directory.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path().join("code"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

type Damage = fn(&Path);

fn package(tag: &str) -> Vec<u8> {
    zip(&[
        Raw { deflate: true, ..file("index.py", &format!("tag = '{tag}'\n").repeat(50).into_bytes()) },
        Raw { mode: 0o100_755, ..file("bin/run", b"#!/bin/sh\n") },
        dir("empty/"),
        link("bin/alias", "run"),
    ])
}

#[tokio::test]
async fn a_package_is_unpacked_once_and_then_ready() {
    let world = World::new();
    let code = world.put(package("a")).await;
    let cache = world.open();
    assert!(cache.get_ready(&code.digest).is_none());
    let tree = cache.ensure(&code).await.unwrap();
    assert!(fs::read_to_string(tree.path.join("index.py")).unwrap().starts_with("tag = 'a'"));
    assert!(Arc::ptr_eq(&tree, &cache.ensure(&code).await.unwrap()));
    assert!(Arc::ptr_eq(&tree, &cache.get_ready(&code.digest).unwrap()));
    assert_eq!(world.reads(), 1);
    assert_eq!(world.names(), [code.digest.to_string(), format!("{}.manifest", code.digest)]);
}

#[tokio::test]
async fn concurrent_calls_share_the_work() {
    let world = World::new();
    let cache = world.open();
    let mut codes = Vec::new();
    for i in 0..4 {
        codes.push(world.put(package(&i.to_string())).await);
    }
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let (cache, code) = (cache.clone(), codes[i % 4]);
            tokio::spawn(async move { cache.ensure(&code).await.unwrap() })
        })
        .collect();
    // Callers that go away at once must not stop the work or leave the others hanging.
    for code in &codes {
        let _ = tokio::time::timeout(Duration::ZERO, cache.ensure(code)).await;
    }
    for task in tasks {
        assert!(task.await.unwrap().path.join("index.py").exists());
    }
    assert_eq!(world.reads(), 4);
}

#[tokio::test]
async fn a_whole_tree_is_kept_over_a_restart() {
    let world = World::new();
    let code = world.put(package("a")).await;
    world.open().ensure(&code).await.unwrap();
    let cache = world.open();
    assert!(cache.get_ready(&code.digest).is_none(), "not checked yet");
    cache.ensure(&code).await.unwrap();
    assert_eq!(world.reads(), 1);
}

#[tokio::test]
async fn any_damage_is_found_after_a_restart_and_repaired() {
    let damages: [(&str, Damage); 12] = [
        ("a changed byte", |tree| {
            let mut text = fs::read(tree.join("index.py")).unwrap();
            text[7] = b'X';
            fs::write(tree.join("index.py"), text).unwrap();
        }),
        ("a cut file", |tree| fs::write(tree.join("index.py"), "").unwrap()),
        ("a missing file", |tree| fs::remove_file(tree.join("bin/run")).unwrap()),
        ("a missing directory", |tree| fs::remove_dir(tree.join("empty")).unwrap()),
        ("a file too many", |tree| fs::write(tree.join("empty/more"), "x").unwrap()),
        ("a mode", |tree| fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o644)).unwrap()),
        ("a writable directory", |tree| fs::set_permissions(tree, fs::Permissions::from_mode(0o777)).unwrap()),
        ("a link elsewhere", |tree| {
            fs::remove_file(tree.join("bin/alias")).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", tree.join("bin/alias")).unwrap();
        }),
        ("a file made a link", |tree| {
            fs::rename(tree.join("index.py"), tree.join("empty/i")).unwrap();
            std::os::unix::fs::symlink("empty/i", tree.join("index.py")).unwrap();
        }),
        ("no manifest", |tree| fs::remove_file(tree.with_extension("manifest")).unwrap()),
        ("a cut manifest", |tree| {
            let path = tree.with_extension("manifest");
            let text = fs::read(&path).unwrap();
            fs::write(&path, &text[..text.len() / 2]).unwrap();
        }),
        ("no tree", |tree| fs::remove_dir_all(tree).unwrap()),
    ];
    let world = World::new();
    let code = world.put(package("a")).await;
    let tree = world.open().ensure(&code).await.unwrap().path.clone();
    for (i, (what, damage)) in damages.into_iter().enumerate() {
        damage(&tree);
        world.open().ensure(&code).await.unwrap();
        assert_eq!(world.reads(), i + 2, "{what} was not found");
        // And the repaired tree is whole.
        world.open().ensure(&code).await.unwrap();
        assert_eq!(world.reads(), i + 2, "{what} was not repaired");
    }
}

#[tokio::test]
async fn missing_and_damaged_blobs_are_typed_errors_and_leave_nothing() {
    let world = World::new();
    let cache = world.open();
    let code = world.put(package("a")).await;
    world.blobs.inner.damage(&code.digest, Bytes::from_static(b"other"));
    assert!(matches!(cache.ensure(&code).await, Err(StoreError::Corrupt(_))));
    world.blobs.delete(&code.digest).await.unwrap();
    assert!(matches!(cache.ensure(&code).await, Err(StoreError::NotFound(_))));
    let evil = zip(&[file("a", b"x"), Raw { crc: Some(1), ..file("b", b"x") }]);
    let digest = world.blobs.put(evil.clone().into()).await.unwrap();
    let evil = CodeRef { digest, zip_bytes: evil.len() as u64, unpacked_bytes: 2 };
    assert!(matches!(cache.ensure(&evil).await, Err(StoreError::Package(_))));
    assert!(world.names().is_empty(), "{:?}", world.names());
    // The failure is not remembered.
    let code = world.put(package("a")).await;
    cache.ensure(&code).await.unwrap();
}

#[tokio::test]
async fn a_package_larger_than_its_reference_says_is_refused() {
    let world = World::new();
    let code = world.put(package("a")).await;
    let lying = CodeRef { unpacked_bytes: code.unpacked_bytes - 1, ..code };
    assert!(matches!(world.open().ensure(&lying).await, Err(StoreError::Package(_))));
}

#[tokio::test]
async fn only_what_nobody_needs_is_collected() {
    let world = World::new();
    let cache = world.open();
    let (live, held, dead) =
        (world.put(package("live")).await, world.put(package("held")).await, world.put(package("dead")).await);
    cache.ensure(&live).await.unwrap();
    cache.ensure(&dead).await.unwrap();
    let holder = cache.ensure(&held).await.unwrap();
    let keep = HashSet::from([live.digest]);

    assert_eq!(cache.collect(&keep, Duration::from_secs(3600)).await.unwrap(), Collected::default());
    let collected = cache.collect(&keep, Duration::ZERO).await.unwrap();
    let blob_bytes = held.zip_bytes + dead.zip_bytes;
    assert_eq!(collected, Collected { trees: 1, blobs: 2, blob_bytes });
    assert!(cache.get_ready(&dead.digest).is_none());
    assert!(holder.path.join("index.py").exists());
    assert!(cache.get_ready(&live.digest).is_some());

    drop(holder);
    assert_eq!(cache.collect(&keep, Duration::ZERO).await.unwrap(), Collected { trees: 1, ..Collected::default() });
    assert_eq!(world.names(), [live.digest.to_string(), format!("{}.manifest", live.digest)]);
}

#[tokio::test]
async fn trees_of_an_earlier_process_are_collected_and_leftovers_removed() {
    let world = World::new();
    let code = world.put(package("a")).await;
    world.open().ensure(&code).await.unwrap();
    let dir = world.dir.path().join("code");
    fs::create_dir_all(dir.join("tmp-7/tree/sub")).unwrap();
    fs::write(dir.join("tmp-8"), "x").unwrap();
    fs::write(dir.join(format!("{}.manifest", Digest([9; 32]))), "half").unwrap();
    let cache = world.open();
    assert_eq!(world.names().len(), 3, "{:?}", world.names());
    let collected = cache.collect(&HashSet::new(), Duration::ZERO).await.unwrap();
    assert_eq!((collected.trees, collected.blobs), (2, 1));
    assert!(world.names().is_empty());
}

#[tokio::test]
async fn collecting_while_in_use_never_pulls_a_tree_away() {
    let world = World::new();
    let code = world.put(package("a")).await;
    let cache = world.open();
    let collector = {
        let (cache, live) = (cache.clone(), HashSet::new());
        tokio::spawn(async move {
            for _ in 0..40 {
                // Its blob must stay for the next round.
                cache.collect(&live, Duration::ZERO).await.unwrap();
            }
        })
    };
    while !collector.is_finished() {
        world.put(package("a")).await;
        match cache.ensure(&code).await {
            Ok(tree) => assert!(tree.path.join("bin/run").exists()),
            // Collected between the two calls, as the caller asked.
            Err(error) => assert!(matches!(error, StoreError::NotFound(_)), "{error}"),
        }
        tokio::task::yield_now().await;
    }
    collector.await.unwrap();
}
