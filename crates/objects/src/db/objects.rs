//! Changes of buckets and objects.

use super::{Copy, Outcome, Place, Put, Step, Stored, Taken, now_ms, signed, text_of};
use crate::ObjectError;
use crate::entry::{Conditions, CorsRule, Deleted, Headers, Slice, Sums, Verdict, Versioning};
use crate::outbox::{Cause, Notice};
use crate::rules::EventKind;
use sqlx::Row as _;

/// A row of an object as it is to be written.
pub(super) struct NewObject<'a> {
    pub(super) place: &'a Place,
    pub(super) size: u64,
    pub(super) etag: &'a str,
    pub(super) headers: &'a Headers,
    pub(super) tags: &'a [(String, String)],
    pub(super) sums: &'a Sums,
    pub(super) parts: &'a [u64],
    pub(super) slices: &'a [Slice],
    pub(super) inline: Option<&'a [u8]>,
    /// The upload that it was completed from.
    pub(super) upload: Option<&'a str>,
    pub(super) kind: EventKind,
    pub(super) cause: &'a Cause,
}

/// What a write finds.
pub(super) struct Ready {
    pub(super) old: Option<Old>,
    pub(super) versioning: Versioning,
}

/// What matters of an object that is to be replaced or removed.
pub(super) struct Old {
    pub(super) id: i64,
    pub(super) version: String,
    pub(super) etag: String,
    pub(super) modified_ms: i64,
    pub(super) size: u64,
    pub(super) slices: Vec<Slice>,
    pub(super) headers: String,
}

impl Old {
    pub(super) fn judge(&self, conditions: &Conditions) -> Verdict {
        let other = conditions.size.is_some_and(|s| s != self.size)
            || conditions.modified_s.is_some_and(|s| s != self.modified_ms.div_euclid(1000));
        if other { Verdict::Fails } else { conditions.judge(Some((&self.etag, self.modified_ms))) }
    }
}

impl Step<'_> {
    pub(super) async fn bucket_exists(&mut self, name: &str) -> Result<bool, sqlx::Error> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM buckets WHERE name = ?1")
            .bind(name)
            .fetch_optional(&mut *self.conn)
            .await?;
        Ok(found.is_some())
    }

    pub(super) async fn create_bucket(&mut self, name: &str) -> Taken {
        if self.bucket_exists(name).await? {
            return Ok(Err(ObjectError::BucketExists));
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM buckets").fetch_one(&mut *self.conn).await?;
        if count.unsigned_abs() >= self.writer.limits.buckets_max {
            return Ok(Err(ObjectError::TooManyBuckets));
        }
        sqlx::query("INSERT INTO buckets (name, created_ms) VALUES (?1, ?2)")
            .bind(name)
            .bind(now_ms())
            .execute(&mut *self.conn)
            .await?;
        Ok(Ok(Outcome::Done))
    }

    pub(super) async fn delete_bucket(&mut self, name: &str) -> Taken {
        if !self.bucket_exists(name).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        let used: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM objects WHERE bucket = ?1) OR EXISTS (SELECT 1 FROM versions WHERE bucket = ?1)
                 OR EXISTS (SELECT 1 FROM uploads WHERE bucket = ?1)",
        )
        .bind(name)
        .fetch_one(&mut *self.conn)
        .await?;
        if used {
            return Ok(Err(ObjectError::BucketNotEmpty));
        }
        sqlx::query("DELETE FROM buckets WHERE name = ?1").bind(name).execute(&mut *self.conn).await?;
        Ok(Ok(Outcome::Done))
    }

    pub(super) async fn set_cors(&mut self, bucket: &str, rules: &[CorsRule]) -> Taken {
        let set = sqlx::query("UPDATE buckets SET cors = ?2 WHERE name = ?1")
            .bind(bucket)
            .bind(text_of(&rules))
            .execute(&mut *self.conn)
            .await?;
        Ok(if set.rows_affected() == 0 { Err(ObjectError::NoSuchBucket) } else { Ok(Outcome::Done) })
    }

    pub(super) async fn put(&mut self, put: &Put) -> Taken {
        let ready = match self.may_write(&put.place, &put.conditions, put.kind).await? {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        let slices = self.adopt(&put.stored).await?;
        let new = NewObject {
            place: &put.place,
            size: put.stored.size,
            etag: &put.stored.etag,
            headers: &put.headers,
            tags: &put.tags,
            sums: &put.stored.sums,
            parts: &[],
            slices: &slices,
            inline: put.stored.inline.as_deref(),
            upload: None,
            kind: put.kind,
            cause: &put.cause,
        };
        Ok(Ok(self.replace(ready, new).await?))
    }

    /// Makes a file known, with one reference.
    pub(super) async fn adopt(&mut self, stored: &Stored) -> Result<Vec<Slice>, sqlx::Error> {
        let Some(fresh) = &stored.fresh else { return Ok(Vec::new()) };
        sqlx::query("INSERT INTO files (id, refs, size, sha256) VALUES (?1, 1, ?2, ?3)")
            .bind(fresh.id())
            .bind(signed(stored.size))
            .bind(&stored.sha256[..])
            .execute(&mut *self.conn)
            .await?;
        Ok(vec![Slice(fresh.id(), 0, stored.size)])
    }

    /// Checks what must hold before an object is written or removed, and finds what is there now.
    pub(super) async fn may_write(
        &mut self,
        place: &Place,
        conditions: &Conditions,
        kind: EventKind,
    ) -> Result<Result<Ready, ObjectError>, sqlx::Error> {
        let Some(versioning) = self.versioning(&place.bucket).await? else {
            return Ok(Err(ObjectError::NoSuchBucket));
        };
        if !self.has_room() && !self.writer.rules.matching(&place.bucket, kind, &place.key).is_empty() {
            return Ok(Err(ObjectError::OutboxFull));
        }
        let old = self.old(place).await?;
        if conditions.matches.is_some() && old.is_none() && !kind.removes() {
            return Ok(Err(ObjectError::NoSuchKey));
        }
        // What is not there is as good as removed, whatever it was to be.
        let verdict = match &old {
            Some(old) => old.judge(conditions),
            None if kind.removes() => Verdict::Holds,
            None => conditions.judge(None),
        };
        Ok(match verdict {
            Verdict::Holds => Ok(Ready { old, versioning }),
            Verdict::NotModified | Verdict::Fails => Err(ObjectError::PreconditionFailed),
        })
    }

    async fn old(&mut self, place: &Place) -> Result<Option<Old>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT id, etag, modified_ms, size, slices, headers, version FROM objects WHERE bucket = ?1 AND key = ?2",
        )
        .bind(&place.bucket)
        .bind(&place.key)
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(old_of).transpose()
    }

    /// Writes an object in the place of what is there, and the notices of it.
    pub(super) async fn replace(&mut self, ready: Ready, new: NewObject<'_>) -> Result<Outcome, sqlx::Error> {
        let versioning = ready.versioning;
        let (version, seq) = self.make_way(new.place, ready).await?;
        let modified_ms = now_ms();
        sqlx::query(
            "INSERT INTO objects (bucket, key, size, etag, modified_ms, storage_class, headers, tags, sums, parts, slices, inline, version, seq, upload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )
        .bind(&new.place.bucket)
        .bind(&new.place.key)
        .bind(signed(new.size))
        .bind(new.etag)
        .bind(modified_ms)
        .bind(new.headers.storage_class.as_deref())
        .bind(text_of(new.headers))
        .bind(text_of(&new.tags))
        .bind(text_of(new.sums))
        .bind(text_of(&new.parts))
        .bind(text_of(&new.slices))
        .bind(new.inline)
        .bind(&version)
        .bind(seq)
        .bind(new.upload)
        .execute(&mut *self.conn)
        .await?;
        self.gathered.objects += 1;
        self.gathered.bytes += signed(new.size);
        let version = (versioning != Versioning::Off).then_some(version);
        self.notice_of(&new, version.clone(), modified_ms).await?;
        let (etag, sums) = (new.etag.to_owned(), new.sums.clone());
        Ok(Outcome::Object { etag, modified_ms, sums, version })
    }

    pub(super) async fn notice_of(
        &mut self,
        new: &NewObject<'_>,
        version: Option<String>,
        time_ms: i64,
    ) -> Result<(), sqlx::Error> {
        let rules = self.writer.rules.matching(&new.place.bucket, new.kind, &new.place.key);
        if rules.is_empty() {
            return Ok(());
        }
        let notice = Notice {
            id: 0,
            rule: String::new(),
            kind: new.kind,
            bucket: new.place.bucket.clone(),
            key: new.place.key.clone(),
            version,
            size: new.size,
            etag: new.etag.to_owned(),
            content_type: new.headers.content_type.clone().unwrap_or_default(),
            meta: new.headers.meta.clone(),
            time_ms,
            cause: new.cause.clone(),
        };
        self.notify(rules, notice).await
    }

    pub(super) async fn remove(&mut self, old: &Old) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM objects WHERE id = ?1").bind(old.id).execute(&mut *self.conn).await?;
        self.gathered.objects -= 1;
        self.gathered.bytes -= signed(old.size);
        self.release(&old.slices).await
    }

    /// One reference more to each slice's file.
    pub(super) async fn share(&mut self, slices: &[Slice]) -> Result<(), sqlx::Error> {
        for slice in slices {
            sqlx::query("UPDATE files SET refs = refs + 1 WHERE id = ?1")
                .bind(slice.0)
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(())
    }

    /// One reference less; files without any become garbage.
    pub(super) async fn release(&mut self, slices: &[Slice]) -> Result<(), sqlx::Error> {
        for slice in slices {
            let refs: Option<i64> = sqlx::query_scalar("UPDATE files SET refs = refs - 1 WHERE id = ?1 RETURNING refs")
                .bind(slice.0)
                .fetch_optional(&mut *self.conn)
                .await?;
            if refs == Some(0) {
                sqlx::query("DELETE FROM files WHERE id = ?1").bind(slice.0).execute(&mut *self.conn).await?;
                sqlx::query("INSERT INTO garbage (id) VALUES (?1)").bind(slice.0).execute(&mut *self.conn).await?;
                self.gathered.garbage.push(slice.0);
            }
        }
        Ok(())
    }

    pub(super) async fn copy(&mut self, copy: &Copy) -> Taken {
        let Some(source) = (match self.source(&copy.from, copy.version.as_deref(), &copy.from_conditions).await? {
            Ok(source) => source,
            Err(error) => return Ok(Err(error)),
        }) else {
            return Ok(Err(ObjectError::NoSuchKey));
        };
        let ready = match self.may_write(&copy.place, &Conditions::default(), EventKind::Copy).await? {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        self.share(&source.slices).await?;
        let new = NewObject {
            place: &copy.place,
            size: source.size,
            etag: &source.etag,
            headers: copy.headers.as_ref().unwrap_or(&source.headers),
            tags: copy.tags.as_ref().unwrap_or(&source.tags),
            sums: &source.sums,
            parts: &source.parts,
            slices: &source.slices,
            inline: source.inline.as_deref(),
            upload: None,
            kind: EventKind::Copy,
            cause: &copy.cause,
        };
        Ok(Ok(self.replace(ready, new).await?))
    }

    /// The object that is to be copied.
    pub(super) async fn source(
        &mut self,
        place: &Place,
        version: Option<&str>,
        conditions: &Conditions,
    ) -> Result<Result<Option<Source>, ObjectError>, sqlx::Error> {
        if !self.bucket_exists(&place.bucket).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        let row = sqlx::query(
            "SELECT size, etag, modified_ms, headers, tags, sums, parts, slices, inline, 0 FROM objects
             WHERE bucket = ?1 AND key = ?2 AND (?3 IS NULL OR version = ?3)
             UNION ALL
             SELECT size, etag, modified_ms, headers, tags, sums, parts, slices, inline, marker FROM versions
             WHERE bucket = ?1 AND key = ?2 AND version = ?3",
        )
        .bind(&place.bucket)
        .bind(&place.key)
        .bind(version)
        .fetch_optional(&mut *self.conn)
        .await?;
        if version.is_some() && row.is_none() {
            return Ok(Err(ObjectError::NoSuchVersion));
        }
        let Some(row) = row else { return Ok(Ok(None)) };
        if row.try_get::<bool, _>(9)? {
            return Ok(Err(ObjectError::Marker { version: version.unwrap_or_default().to_owned(), latest: false }));
        }
        let source = Source {
            size: row.try_get::<i64, _>(0)?.unsigned_abs(),
            etag: row.try_get(1)?,
            headers: parsed(&row.try_get::<String, _>(3)?)?,
            tags: parsed(&row.try_get::<String, _>(4)?)?,
            sums: parsed(&row.try_get::<String, _>(5)?)?,
            parts: parsed(&row.try_get::<String, _>(6)?)?,
            slices: slices_of(&row.try_get::<String, _>(7)?)?,
            inline: row.try_get(8)?,
        };
        Ok(match conditions.judge(Some((&source.etag, row.try_get(2)?))) {
            Verdict::Holds => Ok(Some(source)),
            Verdict::NotModified | Verdict::Fails => Err(ObjectError::PreconditionFailed),
        })
    }

    pub(super) async fn delete(
        &mut self,
        place: &Place,
        version: Option<&str>,
        conditions: &Conditions,
        cause: &Cause,
    ) -> Taken {
        if let Some(version) = version {
            return self.delete_version(place, version, conditions, cause).await;
        }
        let Some(versioning) = self.versioning(&place.bucket).await? else {
            return Ok(Err(ObjectError::NoSuchBucket));
        };
        let kind = if versioning == Versioning::Off { EventKind::Delete } else { EventKind::DeleteMarkerCreated };
        let ready = match self.may_write(place, conditions, kind).await? {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        if versioning != Versioning::Off {
            return Ok(Ok(Outcome::Deleted(self.mark(place, ready, conditions, cause).await?)));
        }
        // Nothing there is as good as removed, and nobody is told.
        let Some(old) = ready.old else { return Ok(Ok(Outcome::Deleted(Deleted::default()))) };
        self.remove(&old).await?;
        self.notice_of_removal(place, &old, (kind, None), cause).await?;
        Ok(Ok(Outcome::Deleted(Deleted::default())))
    }

    pub(super) async fn notice_of_removal(
        &mut self,
        place: &Place,
        old: &Old,
        (kind, version): (EventKind, Option<String>),
        cause: &Cause,
    ) -> Result<(), sqlx::Error> {
        let new = NewObject {
            place,
            size: old.size,
            etag: &old.etag,
            headers: &parsed(&old.headers)?,
            tags: &[],
            sums: &Sums::default(),
            parts: &[],
            slices: &[],
            inline: None,
            upload: None,
            kind,
            cause,
        };
        self.notice_of(&new, version, now_ms()).await
    }

    pub(super) async fn delete_many(
        &mut self,
        bucket: &str,
        which: &[(String, Option<String>, Conditions)],
        cause: &Cause,
    ) -> Taken {
        let mut results = Vec::with_capacity(which.len());
        for (key, version, conditions) in which {
            let place = Place { bucket: bucket.to_owned(), key: key.clone() };
            results.push(match self.delete(&place, version.as_deref(), conditions, cause).await? {
                Ok(Outcome::Deleted(deleted)) => Ok(deleted),
                Ok(_) => Err(ObjectError::Internal),
                Err(ObjectError::NoSuchBucket) => return Ok(Err(ObjectError::NoSuchBucket)),
                Err(error) => Err(error),
            });
        }
        Ok(Ok(Outcome::Many(results)))
    }

    pub(super) async fn set_tags(&mut self, place: &Place, version: Option<&str>, tags: &[(String, String)]) -> Taken {
        if !self.bucket_exists(&place.bucket).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        let mut set = 0;
        for query in [
            "UPDATE objects SET tags = ?3 WHERE bucket = ?1 AND key = ?2 AND (?4 IS NULL OR version = ?4)",
            "UPDATE versions SET tags = ?3 WHERE bucket = ?1 AND key = ?2 AND version = ?4 AND NOT marker",
        ] {
            let done = sqlx::query(query).bind(&place.bucket).bind(&place.key).bind(text_of(&tags)).bind(version);
            set += done.execute(&mut *self.conn).await?.rows_affected();
        }
        let missing = if version.is_some() { ObjectError::NoSuchVersion } else { ObjectError::NoSuchKey };
        Ok(if set == 0 { Err(missing) } else { Ok(Outcome::Done) })
    }
}

pub(super) fn old_of(row: sqlx::sqlite::SqliteRow) -> Result<Old, sqlx::Error> {
    Ok(Old {
        id: row.try_get(0)?,
        etag: row.try_get(1)?,
        modified_ms: row.try_get(2)?,
        size: row.try_get::<i64, _>(3)?.unsigned_abs(),
        slices: slices_of(&row.try_get::<String, _>(4)?)?,
        headers: row.try_get(5)?,
        version: row.try_get(6)?,
    })
}

/// An object that is to be copied.
pub(super) struct Source {
    pub(super) size: u64,
    pub(super) etag: String,
    pub(super) headers: Headers,
    pub(super) tags: Vec<(String, String)>,
    pub(super) sums: Sums,
    pub(super) parts: Vec<u64>,
    pub(super) slices: Vec<Slice>,
    pub(super) inline: Option<Vec<u8>>,
}

/// Reads JSON that was written here.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn slices_of(text: &str) -> Result<Vec<Slice>, sqlx::Error> {
    parsed(text)
}
