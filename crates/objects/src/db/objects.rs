//! Changes of buckets and objects.

use super::{Copy, Outcome, Place, Put, Step, Stored, Taken, now_ms, signed, text_of};
use crate::ObjectError;
use crate::entry::{Conditions, CorsRule, Headers, Slice, Sums, Verdict};
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
    pub(super) kind: EventKind,
    pub(super) cause: &'a Cause,
}

/// What matters of an object that is to be replaced or removed.
pub(super) struct Old {
    id: i64,
    pub(super) etag: String,
    pub(super) modified_ms: i64,
    size: u64,
    slices: Vec<Slice>,
    headers: String,
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
            "SELECT EXISTS (SELECT 1 FROM objects WHERE bucket = ?1) OR EXISTS (SELECT 1 FROM uploads WHERE bucket = ?1)",
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
        let old = match self.may_write(&put.place, &put.conditions, put.kind).await? {
            Ok(old) => old,
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
            kind: put.kind,
            cause: &put.cause,
        };
        Ok(Ok(self.replace(old, new).await?))
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
    ) -> Result<Result<Option<Old>, ObjectError>, sqlx::Error> {
        if !self.bucket_exists(&place.bucket).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        if !self.has_room() && !self.writer.rules.matching(&place.bucket, kind, &place.key).is_empty() {
            return Ok(Err(ObjectError::OutboxFull));
        }
        let old = self.old(place).await?;
        let found = old.as_ref().map(|o| (o.etag.as_str(), o.modified_ms));
        if conditions.matches.is_some() && found.is_none() {
            return Ok(Err(ObjectError::NoSuchKey));
        }
        Ok(match conditions.judge(found) {
            Verdict::Holds => Ok(old),
            Verdict::NotModified | Verdict::Fails => Err(ObjectError::PreconditionFailed),
        })
    }

    async fn old(&mut self, place: &Place) -> Result<Option<Old>, sqlx::Error> {
        let row = sqlx::query(
            "SELECT id, etag, modified_ms, size, slices, headers FROM objects WHERE bucket = ?1 AND key = ?2",
        )
        .bind(&place.bucket)
        .bind(&place.key)
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|row| {
            Ok(Old {
                id: row.try_get(0)?,
                etag: row.try_get(1)?,
                modified_ms: row.try_get(2)?,
                size: row.try_get::<i64, _>(3)?.unsigned_abs(),
                slices: slices_of(&row.try_get::<String, _>(4)?)?,
                headers: row.try_get(5)?,
            })
        })
        .transpose()
    }

    /// Writes an object in the place of `old`, and the notices of it.
    pub(super) async fn replace(&mut self, old: Option<Old>, new: NewObject<'_>) -> Result<Outcome, sqlx::Error> {
        if let Some(old) = old {
            self.remove(&old).await?;
        }
        let modified_ms = now_ms();
        sqlx::query(
            "INSERT INTO objects (bucket, key, size, etag, modified_ms, storage_class, headers, tags, sums, parts, slices, inline)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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
        .execute(&mut *self.conn)
        .await?;
        self.gathered.objects += 1;
        self.gathered.bytes += signed(new.size);
        self.notice_of(&new, modified_ms).await?;
        Ok(Outcome::Object { etag: new.etag.to_owned(), modified_ms, size: new.size, sums: new.sums.clone() })
    }

    async fn notice_of(&mut self, new: &NewObject<'_>, time_ms: i64) -> Result<(), sqlx::Error> {
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
            size: new.size,
            etag: new.etag.to_owned(),
            content_type: new.headers.content_type.clone().unwrap_or_default(),
            meta: new.headers.meta.clone(),
            time_ms,
            cause: new.cause.clone(),
        };
        self.notify(rules, notice).await
    }

    async fn remove(&mut self, old: &Old) -> Result<(), sqlx::Error> {
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
        let Some(source) = (match self.source(&copy.from, &copy.from_conditions).await? {
            Ok(source) => source,
            Err(error) => return Ok(Err(error)),
        }) else {
            return Ok(Err(ObjectError::NoSuchKey));
        };
        let old = match self.may_write(&copy.place, &Conditions::default(), EventKind::Copy).await? {
            Ok(old) => old,
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
            kind: EventKind::Copy,
            cause: &copy.cause,
        };
        Ok(Ok(self.replace(old, new).await?))
    }

    /// The object that is to be copied.
    pub(super) async fn source(
        &mut self,
        place: &Place,
        conditions: &Conditions,
    ) -> Result<Result<Option<Source>, ObjectError>, sqlx::Error> {
        if !self.bucket_exists(&place.bucket).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        let row = sqlx::query(
            "SELECT size, etag, modified_ms, headers, tags, sums, parts, slices, inline FROM objects WHERE bucket = ?1 AND key = ?2",
        )
        .bind(&place.bucket)
        .bind(&place.key)
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(row) = row else { return Ok(Ok(None)) };
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

    pub(super) async fn delete(&mut self, place: &Place, conditions: &Conditions, cause: &Cause) -> Taken {
        let old = match self.may_write(place, conditions, EventKind::Delete).await? {
            Ok(old) => old,
            Err(error) => return Ok(Err(error)),
        };
        // Nothing there is as good as removed, and nobody is told.
        let Some(old) = old else { return Ok(Ok(Outcome::Done)) };
        self.remove(&old).await?;
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
            kind: EventKind::Delete,
            cause,
        };
        self.notice_of(&new, now_ms()).await?;
        Ok(Ok(Outcome::Done))
    }

    pub(super) async fn delete_many(&mut self, bucket: &str, keys: &[String], cause: &Cause) -> Taken {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            let place = Place { bucket: bucket.to_owned(), key: key.clone() };
            let result = self.delete(&place, &Conditions::default(), cause).await?;
            if matches!(result, Err(ObjectError::NoSuchBucket)) {
                return Ok(result);
            }
            results.push(result.map(|_| ()));
        }
        Ok(Ok(Outcome::Many(results)))
    }

    pub(super) async fn set_tags(&mut self, place: &Place, tags: &[(String, String)]) -> Taken {
        if !self.bucket_exists(&place.bucket).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        let set = sqlx::query("UPDATE objects SET tags = ?3 WHERE bucket = ?1 AND key = ?2")
            .bind(&place.bucket)
            .bind(&place.key)
            .bind(text_of(&tags))
            .execute(&mut *self.conn)
            .await?;
        Ok(if set.rows_affected() == 0 { Err(ObjectError::NoSuchKey) } else { Ok(Outcome::Done) })
    }
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
