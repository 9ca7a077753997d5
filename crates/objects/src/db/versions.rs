//! Versions: what was replaced or deleted is kept in a table of its own, so that what is current stays as quick to find as without.
//!
//! Of the versions of a key the one with the highest `seq` is what it stands for. If that is an object it is in `objects`; if it is a delete
//! marker, `objects` has no row of the key. All others are in `versions`.

use super::objects::{Ready, old_of, parsed};
use super::read::{common, successor};
use super::{Database, Outcome, Place, Step, Taken, now_ms};
use crate::ObjectError;
use crate::entry::{Conditions, Deleted, Listed, ListedVersion, Sums, Verdict, Versioning};
use crate::outbox::Cause;
use crate::rules::EventKind;
use sqlx::Row as _;

/// Columns that both tables have, but for the id.
macro_rules! columns {
    () => {
        "bucket, key, size, etag, modified_ms, storage_class, headers, tags, sums, parts, slices, inline, version, seq, upload"
    };
}

/// What a list of versions is to show.
#[derive(Clone, Debug, Default)]
pub struct VersionQuery {
    /// What keys begin with.
    pub prefix: String,
    /// Keys that have this after the prefix are shown as one common prefix. Empty: none are.
    pub delimiter: String,
    /// Only what comes after this key or common prefix.
    pub after: String,
    /// With a key in `after`: and the versions of it that are older than this one.
    pub after_version: Option<String>,
    /// Most versions and common prefixes together.
    pub limit: usize,
}

/// What it shows.
#[derive(Clone, Debug, Default)]
pub struct VersionPage {
    /// Versions and delete markers, by key, newest first.
    pub versions: Vec<ListedVersion>,
    /// Common prefixes.
    pub prefixes: Vec<String>,
    /// Where to go on: the last key or common prefix shown, and the version if it was one. `None`: that was all.
    pub next: Option<(String, Option<String>)>,
}

impl Step<'_> {
    /// `None`: there is no such bucket.
    pub(super) async fn versioning(&mut self, bucket: &str) -> Result<Option<Versioning>, sqlx::Error> {
        let found: Option<i64> = sqlx::query_scalar("SELECT versioning FROM buckets WHERE name = ?1")
            .bind(bucket)
            .fetch_optional(&mut *self.conn)
            .await?;
        Ok(found.map(Versioning::from_number))
    }

    pub(super) async fn set_versioning(&mut self, bucket: &str, state: Versioning) -> Taken {
        let set = sqlx::query("UPDATE buckets SET versioning = ?2 WHERE name = ?1")
            .bind(bucket)
            .bind(state.number())
            .execute(&mut *self.conn)
            .await?;
        Ok(if set.rows_affected() == 0 { Err(ObjectError::NoSuchBucket) } else { Ok(Outcome::Done) })
    }

    /// Makes room for what a key is to stand for, and tells the version and the number that it has.
    pub(super) async fn make_way(&mut self, place: &Place, ready: Ready) -> Result<(String, i64), sqlx::Error> {
        let Ready { old, versioning } = ready;
        if versioning == Versioning::Off {
            if let Some(old) = &old {
                self.remove(old).await?;
            }
            return Ok((String::new(), 0));
        }
        match &old {
            // There is one null version at most.
            Some(old) if versioning == Versioning::Suspended && old.version.is_empty() => self.remove(old).await?,
            Some(old) => {
                sqlx::query(concat!(
                    "INSERT INTO versions (",
                    columns!(),
                    ", marker) SELECT ",
                    columns!(),
                    ", 0 FROM objects WHERE id = ?1"
                ))
                .bind(old.id)
                .execute(&mut *self.conn)
                .await?;
                sqlx::query("DELETE FROM objects WHERE id = ?1").bind(old.id).execute(&mut *self.conn).await?;
                self.gathered.objects -= 1;
            }
            None => {}
        }
        let seq: i64 = sqlx::query_scalar("UPDATE state SET value = value + 1 WHERE name = 'version' RETURNING value")
            .fetch_one(&mut *self.conn)
            .await?;
        if versioning == Versioning::Suspended {
            // Nothing that was to hold of it can fail.
            let _ = self.take_version(place, "", &Conditions::default()).await?;
            return Ok((String::new(), seq));
        }
        Ok((format!("{:012x}{seq:012x}", now_ms()), seq))
    }

    /// Says by a marker that there is nothing, and keeps what there was.
    pub(super) async fn mark(
        &mut self,
        place: &Place,
        ready: Ready,
        conditions: &Conditions,
        cause: &Cause,
    ) -> Result<Deleted, sqlx::Error> {
        let bound = *conditions != Conditions::default();
        if bound && ready.old.is_none() {
            // What was to be deleted only if it is a certain one is not there.
            return Ok(Deleted::default());
        }
        let (version, seq) = self.make_way(place, ready).await?;
        let modified_ms = now_ms();
        sqlx::query(concat!(
            "INSERT INTO versions (",
            columns!(),
            ", marker) VALUES (?1, ?2, 0, '', ?3, NULL, '{}', '[]', '{}', '[]', '[]', NULL, ?4, ?5, NULL, 1)"
        ))
        .bind(&place.bucket)
        .bind(&place.key)
        .bind(modified_ms)
        .bind(&version)
        .bind(seq)
        .execute(&mut *self.conn)
        .await?;
        let new = super::objects::NewObject {
            place,
            size: 0,
            etag: "",
            headers: &crate::entry::Headers::default(),
            tags: &[],
            sums: &Sums::default(),
            parts: &[],
            slices: &[],
            inline: None,
            upload: None,
            kind: EventKind::DeleteMarkerCreated,
            cause,
        };
        self.notice_of(&new, Some(version.clone()), modified_ms).await?;
        Ok(Deleted { version: Some(version), marker: true })
    }

    /// Removes one version for good. What is left newest is what the key stands for then.
    pub(super) async fn delete_version(
        &mut self,
        place: &Place,
        version: &str,
        conditions: &Conditions,
        cause: &Cause,
    ) -> Taken {
        let Some(versioning) = self.versioning(&place.bucket).await? else {
            return Ok(Err(ObjectError::NoSuchBucket));
        };
        let kind = EventKind::Delete;
        if !self.has_room() && !self.writer.rules.matching(&place.bucket, kind, &place.key).is_empty() {
            return Ok(Err(ObjectError::OutboxFull));
        }
        let told = (versioning != Versioning::Off).then(|| version.to_owned());
        let current = sqlx::query(
            "SELECT id, etag, modified_ms, size, slices, headers, version FROM objects WHERE bucket = ?1 AND key = ?2 AND version = ?3",
        )
        .bind(&place.bucket)
        .bind(&place.key)
        .bind(version)
        .fetch_optional(&mut *self.conn)
        .await?;
        let mut marker = false;
        let removed = match current.map(old_of).transpose()? {
            Some(old) => {
                if old.judge(conditions) != Verdict::Holds {
                    return Ok(Err(ObjectError::PreconditionFailed));
                }
                self.remove(&old).await?;
                Some(old)
            }
            None => match self.take_version(place, version, conditions).await? {
                Ok(Some((old, was_marker))) => {
                    marker = was_marker;
                    Some(old).filter(|_| !was_marker)
                }
                Ok(None) => return Ok(Ok(Outcome::Deleted(Deleted { version: told, marker: false }))),
                Err(error) => return Ok(Err(error)),
            },
        };
        self.promote(place).await?;
        if let Some(old) = removed {
            self.notice_of_removal(place, &old, (kind, told.clone()), cause).await?;
        }
        Ok(Ok(Outcome::Deleted(Deleted { version: told, marker })))
    }

    /// Takes a version that is not current out, if it is there; tells whether it was a marker.
    async fn take_version(
        &mut self,
        place: &Place,
        version: &str,
        conditions: &Conditions,
    ) -> Result<Result<Option<(super::objects::Old, bool)>, ObjectError>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT id, etag, modified_ms, size, slices, headers, version, marker FROM versions
             WHERE bucket = ?1 AND key = ?2 AND version = ?3",
        )
        .bind(&place.bucket)
        .bind(&place.key)
        .bind(version)
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(row) = row else { return Ok(Ok(None)) };
        let marker: bool = row.try_get(7)?;
        let old = old_of(row)?;
        if old.judge(conditions) != Verdict::Holds {
            return Ok(Err(ObjectError::PreconditionFailed));
        }
        sqlx::query("DELETE FROM versions WHERE id = ?1").bind(old.id).execute(&mut *self.conn).await?;
        self.gathered.bytes -= super::signed(old.size);
        self.release(&old.slices).await?;
        Ok(Ok(Some((old, marker))))
    }

    /// Makes the newest version what the key stands for, when nothing is.
    async fn promote(&mut self, place: &Place) -> Result<(), sqlx::Error> {
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM objects WHERE bucket = ?1 AND key = ?2)")
            .bind(&place.bucket)
            .bind(&place.key)
            .fetch_one(&mut *self.conn)
            .await?;
        if there {
            return Ok(());
        }
        let newest: Option<(i64, bool)> =
            sqlx::query_as("SELECT id, marker FROM versions WHERE bucket = ?1 AND key = ?2 ORDER BY seq DESC LIMIT 1")
                .bind(&place.bucket)
                .bind(&place.key)
                .fetch_optional(&mut *self.conn)
                .await?;
        let Some((id, false)) = newest else { return Ok(()) };
        sqlx::query(concat!(
            "INSERT INTO objects (",
            columns!(),
            ") SELECT ",
            columns!(),
            " FROM versions WHERE id = ?1"
        ))
        .bind(id)
        .execute(&mut *self.conn)
        .await?;
        sqlx::query("DELETE FROM versions WHERE id = ?1").bind(id).execute(&mut *self.conn).await?;
        self.gathered.objects += 1;
        Ok(())
    }

    /// What an upload that is no more was completed to.
    pub(super) async fn completed(&mut self, place: &Place, upload: &str) -> Taken {
        let row = sqlx::query(
            "SELECT etag, modified_ms, sums, version, (SELECT versioning FROM buckets WHERE name = ?1) FROM (
                 SELECT etag, modified_ms, sums, version FROM objects WHERE bucket = ?1 AND key = ?2 AND upload = ?3
                 UNION ALL
                 SELECT etag, modified_ms, sums, version FROM versions WHERE bucket = ?1 AND key = ?2 AND upload = ?3)",
        )
        .bind(&place.bucket)
        .bind(&place.key)
        .bind(upload)
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(row) = row else { return Ok(Err(ObjectError::NoSuchUpload)) };
        let versioned = row.try_get::<i64, _>(4)? != Versioning::Off.number();
        Ok(Ok(Outcome::Object {
            etag: row.try_get(0)?,
            modified_ms: row.try_get(1)?,
            sums: parsed(&row.try_get::<String, _>(2)?)?,
            version: Some(row.try_get(3)?).filter(|_| versioned),
        }))
    }
}

/// Rows read at a time while a list is made.
const BATCH: usize = 1000;

impl Database {
    pub(crate) async fn versions(&self, bucket: &str, query: &VersionQuery) -> Result<VersionPage, ObjectError> {
        self.bucket(bucket).await?;
        let mut page = VersionPage::default();
        if query.limit == 0 {
            return Ok(page);
        }
        let (mut key, mut below) = (query.after.clone(), 0);
        if let Some(version) = &query.after_version {
            let seq: Option<i64> = sqlx::query_scalar(
                "SELECT seq FROM objects WHERE bucket = ?1 AND key = ?2 AND version = ?3
                 UNION ALL SELECT seq FROM versions WHERE bucket = ?1 AND key = ?2 AND version = ?3",
            )
            .bind(bucket)
            .bind(&key)
            .bind(version)
            .fetch_optional(&self.readers)
            .await?;
            // One that has been deleted since: the rest of its key's are passed over rather than shown twice.
            below = seq.unwrap_or(0);
        }
        let mut at_least = query.prefix.clone();
        let shown_before = common(&query.after, &query.prefix, &query.delimiter);
        if let Some(shown) = shown_before {
            let Some(next) = successor(&shown) else { return Ok(page) };
            at_least = at_least.max(next);
        }
        let end = successor(&query.prefix).filter(|_| !query.prefix.is_empty());
        let mut before = query.after_version.as_ref().map(|_| key.clone());
        'batches: loop {
            let rows = sqlx::query(
                "SELECT key, version, seq, 1 AS current, 0 AS marker, size, etag, modified_ms, storage_class FROM objects
                     WHERE bucket = ?1 AND key >= ?2 AND (key > ?2 OR seq < ?3) AND key >= ?4 AND (?5 IS NULL OR key < ?5)
                 UNION ALL
                 SELECT key, version, seq, 0, marker, size, etag, modified_ms, storage_class FROM versions
                     WHERE bucket = ?1 AND key >= ?2 AND (key > ?2 OR seq < ?3) AND key >= ?4 AND (?5 IS NULL OR key < ?5)
                 ORDER BY 1, 3 DESC LIMIT ?6",
            )
            .bind(bucket)
            .bind(&key)
            .bind(below)
            .bind(&at_least)
            .bind(end.as_deref())
            .bind(i64::try_from(BATCH.min(query.limit + 1)).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
            if rows.is_empty() {
                return Ok(page);
            }
            for row in rows {
                let found: String = row.try_get(0)?;
                if page.versions.len() + page.prefixes.len() >= query.limit {
                    page.next = page.last();
                    return Ok(page);
                }
                if let Some(shown) = common(&found, &query.prefix, &query.delimiter) {
                    let next = successor(&shown);
                    page.prefixes.push(shown);
                    // All keys under it are skipped, however many there are.
                    let Some(next) = next else { return Ok(page) };
                    at_least = next;
                    continue 'batches;
                }
                let latest = before.as_ref() != Some(&found);
                before = Some(found.clone());
                (key, below) = (found.clone(), row.try_get(2)?);
                page.versions.push(ListedVersion {
                    listed: Listed {
                        key: found,
                        size: row.try_get::<i64, _>(5)?.unsigned_abs(),
                        etag: row.try_get(6)?,
                        modified_ms: row.try_get(7)?,
                        storage_class: row.try_get(8)?,
                    },
                    version: row.try_get(1)?,
                    latest,
                    marker: row.try_get(4)?,
                });
            }
        }
    }
}

impl VersionPage {
    fn last(&self) -> Option<(String, Option<String>)> {
        let version = self.versions.last().map(|v| (v.listed.key.clone(), Some(v.version.clone())));
        let prefix = self.prefixes.last().map(|p| (p.clone(), None));
        match (version, prefix) {
            (Some(version), Some(prefix)) => Some(if version.0 > prefix.0 { version } else { prefix }),
            (version, prefix) => version.or(prefix),
        }
    }
}
