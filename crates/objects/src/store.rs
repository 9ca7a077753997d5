//! The store itself: what it keeps, without a word of HTTP.

use crate::ObjectError;
use crate::db::Gauges;
use crate::db::{
    Complete, Copy, CopyPart, Database, ListPage, ListQuery, Op, Opened, Outcome, Place, Put, UploadPage, VersionPage,
    VersionQuery, Writer,
};
use crate::entry::{Bucket, Conditions, Content, CorsRule, Deleted, Entry, Headers, Part, Sums, Upload};
use crate::error::io;
use crate::files::{Chore, Files, sweep, unlink};
use crate::ingest::{Incoming, Intake, Wanted};
use crate::limits::Limits;
use crate::outbox::{Cause, Depth, Outbox};
use crate::outgoing::{cut, md5_of};
use crate::rules::{EventKind, Rule, Rules};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Files removed by the janitor between two messages to the database.
const CHORES_MAX: usize = 256;
/// How often uploads are looked through for forgotten ones.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// A store of objects. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) db: Database,
    pub(crate) files: Arc<Files>,
    pub(crate) limits: Arc<Limits>,
    rules: Arc<Rules>,
    outbox: Outbox,
    gauges: Arc<Gauges>,
    pub(crate) sent: Arc<AtomicU64>,
    swept: watch::Receiver<bool>,
}

/// What a store holds and has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Objects.
    pub objects: u64,
    /// Bytes of objects; what copies share is counted for each.
    pub bytes: u64,
    /// Notices that wait.
    pub outbox: u64,
    /// Bytes received since the start.
    pub received: u64,
    /// Bytes of objects sent since the start.
    pub sent: u64,
}

/// What a put brings beside its body.
pub(crate) struct PutBody {
    pub(crate) body: Option<Incoming>,
    pub(crate) stated: Option<u64>,
    pub(crate) md5: Option<[u8; 16]>,
    pub(crate) wanted: Wanted,
    /// Gives the checksums that the client says the body has, once it has arrived: they may come after it.
    pub(crate) claimed: Box<dyn FnOnce() -> Sums + Send>,
}

impl Store {
    /// Opens the store in the folder `root`, makes it where absent, and begins to clear away what a killed run left. To be called on the
    /// runtime that is to carry its tasks.
    ///
    /// # Errors
    /// When the folder or the database in it cannot be used.
    pub async fn open(root: &Path, limits: Limits) -> Result<Self, ObjectError> {
        std::fs::create_dir_all(root).map_err(io("make the folder of the object store"))?;
        let (database, data) = (root.join("objects.db"), root.join("data"));
        std::fs::create_dir_all(&data).map_err(io("make the folder of objects' data"))?;
        let opened = Opened::open(&database).await?;
        let (boot, swept, garbage) = (opened.boot, opened.swept, opened.garbage.clone());
        let gauges = Arc::new(Gauges { objects: opened.objects.into(), bytes: opened.bytes.into() });
        let depth = Arc::new(Depth::new(opened.outbox.clone()));
        let limits = Arc::new(limits);
        let rules = Arc::new(Rules::default());
        let (janitor, chores) = mpsc::channel();
        let files = Arc::new(Files::open(&data, boot, limits.disk_free_min, janitor)?);
        let writer = Writer {
            limits: Arc::clone(&limits),
            rules: Arc::clone(&rules),
            depth: Arc::clone(&depth),
            files: Arc::clone(&files),
            gauges: Arc::clone(&gauges),
            cache: Arc::default(),
        };
        let db = Database::start(opened, &database, writer).await?;
        files.discard(garbage);
        let (done, watching) = watch::channel(false);
        tokio::spawn(clear_away(db.clone(), data.clone(), swept + 1..boot, done));
        start_janitor(data, chores, db.clone())?;
        let outbox = Outbox::new(db.clone(), depth);
        Ok(Self { db, files, limits, rules, outbox, gauges, sent: Arc::default(), swept: watching })
    }

    /// Finishes what was accepted and closes the database. Later changes fail.
    pub async fn close(&self) {
        self.db.close().await;
    }

    /// Waits until what an earlier run left is cleared away. The store serves before that too.
    pub async fn swept(&self) {
        let mut swept = self.swept.clone();
        // An error means that the task has ended, which is as good.
        let _ = swept.wait_for(|done| *done).await;
    }

    /// Says who wants to know of changes in a bucket, instead of who did before. To be called for all buckets before the store serves: a change
    /// that no rule matches when it is made is never told.
    pub fn set_rules(&self, bucket: &str, rules: Vec<Rule>) {
        self.rules.set(bucket, rules);
    }

    /// As [`Store::set_rules`] for every bucket at once: a bucket that is not named has none.
    pub fn set_all_rules(&self, rules: HashMap<String, Vec<Rule>>) {
        self.rules.set_all(rules);
    }

    /// The notices of changes.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Figures.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            objects: self.gauges.objects.load(Ordering::Acquire),
            bytes: self.gauges.bytes.load(Ordering::Acquire),
            outbox: self.outbox.depth(),
            received: self.files.written().load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }

    /// Aborts uploads that are too old, now and then, until dropped.
    pub async fn tidy(&self) {
        let mut tick = tokio::time::interval(TIDY_EVERY);
        loop {
            tick.tick().await;
            match self.abort_old_uploads(self.limits.upload_age_max).await {
                Ok(0) => {}
                Ok(aborted) => tracing::info!(aborted, "uploads that nobody completed were cleared away"),
                Err(error) => tracing::warn!(%error, "looking for uploads that nobody completed"),
            }
        }
    }

    /// Aborts uploads that began longer ago than `age`. Returns how many.
    ///
    /// # Errors
    /// [`ObjectError::Internal`] when the database fails.
    pub async fn abort_old_uploads(&self, age: Duration) -> Result<usize, ObjectError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before_ms = i64::try_from(now.saturating_sub(age).as_millis()).unwrap_or(i64::MAX);
        let mut aborted = 0;
        loop {
            let old = self.db.old_uploads(before_ms, 100).await?;
            if old.is_empty() {
                return Ok(aborted);
            }
            for (place, upload) in old {
                match self.db.write(Op::Abort { place, upload }).await {
                    Ok(_) => aborted += 1,
                    // Somebody was quicker.
                    Err(ObjectError::NoSuchUpload) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Reads every file again and compares it with what its hash was. Returns how many files are damaged; the log names them.
    ///
    /// # Errors
    /// [`ObjectError::Internal`] when the database fails.
    pub async fn scrub(&self) -> Result<usize, ObjectError> {
        let (mut after, mut damaged) = (-1, 0);
        loop {
            let looking = self.files.looking();
            let found = self.db.files(after, 100).await?;
            let Some((last, ..)) = found.last() else { return Ok(damaged) };
            after = *last;
            let slices: Vec<_> = found.iter().map(|(id, size, _)| crate::entry::Slice(*id, 0, *size)).collect();
            let pinned = looking.pin(&slices);
            let checked = tokio::task::spawn_blocking(move || {
                let bad = found.iter().filter(|(id, size, sum)| !is_whole(pinned.files(), *id, *size, sum));
                bad.inspect(|(id, ..)| tracing::error!(file = id, "an object's file is damaged")).count()
            });
            damaged += checked.await.map_err(|_| ObjectError::Internal)?;
        }
    }

    pub(crate) async fn buckets(&self) -> Result<Vec<Bucket>, ObjectError> {
        self.db.buckets().await
    }

    pub(crate) async fn bucket(&self, name: &str) -> Result<Bucket, ObjectError> {
        self.db.bucket(name).await
    }

    pub(crate) async fn create_bucket(&self, name: &str) -> Result<(), ObjectError> {
        // S3 has that rule beside those that every name is held to.
        if name.contains(".-") || name.contains("-.") {
            return Err(ObjectError::BadBucketName);
        }
        self.change(Op::CreateBucket(name.to_owned())).await
    }

    pub(crate) async fn delete_bucket(&self, name: &str) -> Result<(), ObjectError> {
        self.change(Op::DeleteBucket(name.to_owned())).await
    }

    pub(crate) async fn set_cors(&self, bucket: &str, rules: Vec<CorsRule>) -> Result<(), ObjectError> {
        self.change(Op::SetCors { bucket: bucket.to_owned(), rules }).await
    }

    async fn change(&self, op: Op) -> Result<(), ObjectError> {
        self.db.write(op).await.map(|_| ())
    }

    async fn receive(&self, put: PutBody, inline: bool) -> Result<crate::db::Stored, ObjectError> {
        let PutBody { body, stated, md5, wanted, claimed } = put;
        let intake = Intake { files: &self.files, limits: &self.limits, stated, wanted, inline };
        let received = intake.receive(body).await?;
        if md5.is_some_and(|md5| md5 != received.md5) {
            return Err(ObjectError::BadDigest);
        }
        agree(&claimed(), &received.sums)?;
        Ok(received.into())
    }

    pub(crate) async fn put(
        &self,
        place: Place,
        body: PutBody,
        (headers, tags): (Headers, Vec<(String, String)>),
        conditions: Conditions,
        (kind, cause): (EventKind, Cause),
    ) -> Result<Outcome, ObjectError> {
        check_key(&place.key, &self.limits)?;
        // Before the body is taken in: most mistakes are known by now.
        self.db.bucket(&place.bucket).await?;
        let stored = self.receive(body, true).await?;
        self.db.write(Op::Put(Box::new(Put { place, stored, headers, tags, conditions, kind, cause }))).await
    }

    pub(crate) async fn put_part(
        &self,
        place: Place,
        upload: String,
        number: u32,
        body: PutBody,
    ) -> Result<Outcome, ObjectError> {
        if number == 0 || number > self.limits.parts_max {
            return Err(ObjectError::BadArgument("part numbers are from 1 to 10000"));
        }
        self.db.upload(&place, &upload).await?;
        let stored = self.receive(body, false).await?;
        self.db.write(Op::PutPart { place, upload, number, stored }).await
    }

    pub(crate) async fn copy(&self, copy: Copy) -> Result<Outcome, ObjectError> {
        check_key(&copy.place.key, &self.limits)?;
        self.db.write(Op::Copy(Box::new(copy))).await
    }

    /// `range`: of the source, all of it when `None`.
    pub(crate) async fn copy_part(
        &self,
        (from, version): (Place, Option<String>),
        conditions: Conditions,
        range: Option<Range<u64>>,
        (place, upload, number): (Place, String, u32),
    ) -> Result<Outcome, ObjectError> {
        if number == 0 || number > self.limits.parts_max {
            return Err(ObjectError::BadArgument("part numbers are from 1 to 10000"));
        }
        let looking = self.files.looking();
        let entry = self.db.object(&from, version.as_deref()).await?;
        if conditions.judge(Some((&entry.etag, entry.modified_ms))) != crate::entry::Verdict::Holds {
            return Err(ObjectError::PreconditionFailed);
        }
        let range = range.unwrap_or(0..entry.size);
        if range.end > entry.size || range.start >= range.end && entry.size > 0 {
            return Err(ObjectError::RangeOutside);
        }
        if range.end - range.start > self.limits.put_bytes_max {
            return Err(ObjectError::TooLarge);
        }
        let from_etag = entry.etag;
        let whole = range == (0..entry.size) && entry.parts.is_empty();
        let slices = match entry.content {
            Content::Files(slices) => cut(&slices, range.clone()),
            Content::Inline(bytes) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                let bytes = bytes.slice(at(range.start)..at(range.end));
                let stated = Some(bytes.len() as u64);
                let body = Some(body_of(bytes));
                let body =
                    PutBody { body, stated, md5: None, wanted: Wanted::default(), claimed: Box::new(Sums::default) };
                return self.put_part(place, upload, number, body).await;
            }
        };
        // The bytes are shared; only their MD5 has to be known.
        let etag = if whole {
            from_etag.clone()
        } else {
            let pinned = looking.pin(&slices);
            let digest = tokio::task::spawn_blocking(move || md5_of(&slices, &pinned));
            let digest = digest.await.map_err(|_| ObjectError::Internal)?;
            hex::encode(digest.map_err(io("read an object's file"))?)
        };
        let copy = CopyPart { from, version, from_etag, range, place, upload, number, etag };
        self.db.write(Op::CopyPart(Box::new(copy))).await
    }

    pub(crate) async fn complete(&self, complete: Complete) -> Result<Outcome, ObjectError> {
        self.db.write(Op::Complete(Box::new(complete))).await
    }

    pub(crate) async fn abort(&self, place: Place, upload: String) -> Result<(), ObjectError> {
        self.change(Op::Abort { place, upload }).await
    }

    pub(crate) async fn create_upload(
        &self,
        place: Place,
        headers: Headers,
        tags: Vec<(String, String)>,
        full_sum: bool,
    ) -> Result<String, ObjectError> {
        check_key(&place.key, &self.limits)?;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| ObjectError::Internal)?;
        let id = hex::encode(random);
        self.change(Op::CreateUpload { place, id: id.clone(), headers, tags, full_sum }).await?;
        Ok(id)
    }

    pub(crate) async fn parts(&self, upload: &str, after: u32, limit: usize) -> Result<(Vec<Part>, bool), ObjectError> {
        self.db.parts(upload, after, limit).await
    }

    pub(crate) async fn upload(&self, place: &Place, id: &str) -> Result<Upload, ObjectError> {
        self.db.upload(place, id).await
    }

    pub(crate) async fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: (&str, &str),
        limit: usize,
    ) -> Result<UploadPage, ObjectError> {
        self.db.uploads(bucket, prefix, after, limit).await
    }

    pub(crate) async fn delete(
        &self,
        place: Place,
        version: Option<String>,
        conditions: Conditions,
        cause: Cause,
    ) -> Result<Deleted, ObjectError> {
        match self.db.write(Op::Delete { place, version, conditions, cause }).await? {
            Outcome::Deleted(deleted) => Ok(deleted),
            _ => Err(ObjectError::Internal),
        }
    }

    pub(crate) async fn delete_many(
        &self,
        bucket: String,
        which: Vec<(String, Option<String>, Conditions)>,
        cause: Cause,
    ) -> Result<Vec<Result<Deleted, ObjectError>>, ObjectError> {
        match self.db.write(Op::DeleteMany { bucket, which, cause }).await? {
            Outcome::Many(results) => Ok(results),
            _ => Err(ObjectError::Internal),
        }
    }

    pub(crate) async fn set_tags(
        &self,
        place: Place,
        version: Option<String>,
        tags: Vec<(String, String)>,
    ) -> Result<(), ObjectError> {
        self.change(Op::SetTags { place, version, tags }).await
    }

    /// An object as it is now, or one version of it.
    pub(crate) async fn object(&self, place: &Place, version: Option<&str>) -> Result<Entry, ObjectError> {
        self.db.object(place, version).await
    }

    pub(crate) async fn versions(&self, bucket: &str, query: &VersionQuery) -> Result<VersionPage, ObjectError> {
        self.db.versions(bucket, query).await
    }

    /// Keeps what is replaced and deleted from now on, or makes no more versions.
    pub(crate) async fn set_versioning(&self, bucket: &str, on: bool) -> Result<(), ObjectError> {
        self.change(Op::SetVersioning { bucket: bucket.to_owned(), on }).await
    }

    pub(crate) async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.db.list(bucket, query).await
    }
}

/// What the client says of the body must be what was received.
fn agree(claimed: &Sums, found: &Sums) -> Result<(), ObjectError> {
    for (name, claimed, found) in [
        ("CRC32", &claimed.crc32, &found.crc32),
        ("CRC32C", &claimed.crc32c, &found.crc32c),
        ("CRC64NVME", &claimed.crc64nvme, &found.crc64nvme),
        ("SHA1", &claimed.sha1, &found.sha1),
        ("SHA256", &claimed.sha256, &found.sha256),
    ] {
        if claimed.is_some() && claimed != found {
            return Err(ObjectError::BadChecksum(name));
        }
    }
    Ok(())
}

fn check_key(key: &str, limits: &Limits) -> Result<(), ObjectError> {
    if key.len() > limits.key_bytes_max {
        return Err(ObjectError::KeyTooLong);
    }
    // XML cannot say these, so no list could show them.
    if key.is_empty() || key.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{7f}'..='\u{9f}')) {
        return Err(ObjectError::BadKey);
    }
    Ok(())
}

fn is_whole(files: &Files, id: i64, size: u64, sum: &[u8]) -> bool {
    let Ok(mut file) = files.read(id) else { return false };
    let mut hash = Hashing(Sha256::new());
    std::io::copy(&mut file, &mut hash).is_ok_and(|n| n == size) && hash.0.finalize()[..] == *sum
}

struct Hashing(Sha256);

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Looks through the folders of earlier runs, once for each run.
async fn clear_away(db: Database, data: PathBuf, boots: Range<u32>, done: watch::Sender<bool>) {
    for boot in boots {
        let live: Result<std::collections::HashSet<i64>, _> = db.known_files(boot).await;
        let Ok(live) = live else { return };
        let root = data.clone();
        match tokio::task::spawn_blocking(move || sweep(&root, boot, &live)).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "cleared away what uploads of a killed run left"),
            Err(_) => return,
        }
        if db.write(Op::Swept(boot)).await.is_err() {
            return;
        }
    }
    let _ = done.send(true);
}

/// Removes files on a thread of its own: that of a large one takes long.
fn start_janitor(data: PathBuf, chores: mpsc::Receiver<Chore>, db: Database) -> Result<(), ObjectError> {
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        while let Ok(first) = chores.recv() {
            let mut gone = Vec::new();
            for chore in std::iter::once(first).chain(std::iter::from_fn(|| chores.try_recv().ok())).take(CHORES_MAX) {
                match chore {
                    Chore::Unlink(id) => drop(unlink(&data, id)),
                    Chore::Discard(id) => gone.extend(unlink(&data, id).then_some(id)),
                }
            }
            if !gone.is_empty() {
                let db = db.clone();
                // Forgotten too late is harmless: it is removed again at the next start.
                runtime.spawn(async move { db.write(Op::Forget(gone)).await.map(|_| ()) });
            }
        }
    };
    std::thread::Builder::new().name("objects-janitor".into()).spawn(work).map_err(io("start a thread"))?;
    Ok(())
}

/// A body of bytes that are there.
pub(crate) fn body_of(bytes: Bytes) -> Incoming {
    struct Once(Option<Bytes>);
    impl futures_core::Stream for Once {
        type Item = Result<Bytes, s3s::StdError>;
        fn poll_next(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(self.get_mut().0.take().map(Ok))
        }
    }
    Box::pin(Once(Some(bytes)))
}
