//! Changes of uploads in parts.

use super::objects::{NewObject, parsed, slices_of};
use super::{Complete, CopyPart, Outcome, Place, Step, Stored, Taken, now_ms, signed, text_of};
use crate::ObjectError;
use crate::combine::combined;
use crate::entry::{Conditions, Headers, Slice, Sums};
use crate::outgoing::cut;
use crate::rules::EventKind;
use md5::{Digest as _, Md5};
use sqlx::Row as _;
use std::collections::HashMap;

/// A part that is to become a piece of an object.
struct Piece {
    size: u64,
    etag: String,
    slices: Vec<Slice>,
    sums: Sums,
}

impl Step<'_> {
    pub(super) async fn create_upload(
        &mut self,
        place: &Place,
        id: &str,
        (headers, tags): (&Headers, &[(String, String)]),
        full_sum: bool,
    ) -> Taken {
        if !self.bucket_exists(&place.bucket).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM uploads").fetch_one(&mut *self.conn).await?;
        if count.unsigned_abs() >= self.writer.limits.uploads_max {
            return Ok(Err(ObjectError::TooManyUploads));
        }
        sqlx::query("INSERT INTO uploads (id, bucket, key, created_ms, headers, tags, full_sum) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")
            .bind(id)
            .bind(&place.bucket)
            .bind(&place.key)
            .bind(now_ms())
            .bind(text_of(headers))
            .bind(text_of(&tags))
            .bind(full_sum)
            .execute(&mut *self.conn)
            .await?;
        Ok(Ok(Outcome::Done))
    }

    /// The headers and tags that an upload began with.
    async fn upload(
        &mut self,
        place: &Place,
        id: &str,
    ) -> Result<Result<(String, String, bool), ObjectError>, sqlx::Error> {
        if !self.bucket_exists(&place.bucket).await? {
            return Ok(Err(ObjectError::NoSuchBucket));
        }
        let found: Option<(String, String, bool)> =
            sqlx::query_as("SELECT headers, tags, full_sum FROM uploads WHERE id = ?1 AND bucket = ?2 AND key = ?3")
                .bind(id)
                .bind(&place.bucket)
                .bind(&place.key)
                .fetch_optional(&mut *self.conn)
                .await?;
        Ok(found.ok_or(ObjectError::NoSuchUpload))
    }

    pub(super) async fn put_part(&mut self, place: &Place, upload: &str, number: u32, stored: &Stored) -> Taken {
        if let Err(error) = self.upload(place, upload).await? {
            return Ok(Err(error));
        }
        let slices = self.adopt(stored).await?;
        Ok(Ok(self.write_part(upload, number, (stored.size, &stored.etag, &stored.sums), &slices).await?))
    }

    async fn write_part(
        &mut self,
        upload: &str,
        number: u32,
        (size, etag, sums): (u64, &str, &Sums),
        slices: &[Slice],
    ) -> Result<Outcome, sqlx::Error> {
        let old: Option<String> =
            sqlx::query_scalar("DELETE FROM parts WHERE upload = ?1 AND number = ?2 RETURNING slices")
                .bind(upload)
                .bind(number)
                .fetch_optional(&mut *self.conn)
                .await?;
        if let Some(old) = old {
            self.release(&slices_of(&old)?).await?;
        }
        let modified_ms = now_ms();
        sqlx::query(
            "INSERT INTO parts (upload, number, size, etag, modified_ms, sums, slices) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(upload)
        .bind(number)
        .bind(signed(size))
        .bind(etag)
        .bind(modified_ms)
        .bind(text_of(sums))
        .bind(text_of(&slices))
        .execute(&mut *self.conn)
        .await?;
        Ok(Outcome::Object { etag: etag.to_owned(), modified_ms, sums: sums.clone(), version: None })
    }

    pub(super) async fn copy_part(&mut self, copy: &CopyPart) -> Taken {
        if let Err(error) = self.upload(&copy.place, &copy.upload).await? {
            return Ok(Err(error));
        }
        // The ETag of the part was computed from the object as it was: it must be the same still.
        let unchanged = Conditions { matches: Some(copy.from_etag.clone()), ..Conditions::default() };
        let source = match self.source(&copy.from, copy.version.as_deref(), &unchanged).await? {
            Ok(Some(source)) => source,
            Ok(None) => return Ok(Err(ObjectError::NoSuchKey)),
            Err(error) => return Ok(Err(error)),
        };
        let slices = cut(&source.slices, copy.range.clone());
        self.share(&slices).await?;
        let size = copy.range.end - copy.range.start;
        let part = (size, copy.etag.as_str(), &Sums::default());
        Ok(Ok(self.write_part(&copy.upload, copy.number, part, &slices).await?))
    }

    pub(super) async fn complete(&mut self, complete: &Complete) -> Taken {
        let (headers, tags, full_sum) = match self.upload(&complete.place, &complete.upload).await? {
            Ok(found) => found,
            // A client that lost the answer asks again, and is told what came of it.
            Err(ObjectError::NoSuchUpload) => return self.completed(&complete.place, &complete.upload).await,
            Err(error) => return Ok(Err(error)),
        };
        let mut pieces = self.pieces(&complete.upload).await?;
        let (mut chosen, mut before) = (Vec::with_capacity(complete.parts.len()), 0);
        for (number, etag, claimed) in &complete.parts {
            if *number <= before {
                return Ok(Err(ObjectError::PartOrder));
            }
            before = *number;
            match pieces.remove(number) {
                Some(piece) if etag.as_ref().is_none_or(|e| *e == piece.etag) && claimed.fits(&piece.sums) => {
                    chosen.push(piece);
                }
                _ => return Ok(Err(ObjectError::BadPart)),
            }
        }
        let Some((_, all_but_last)) = chosen.split_last() else { return Ok(Err(ObjectError::BadPart)) };
        if all_but_last.iter().any(|piece| piece.size < self.writer.limits.part_bytes_min) {
            return Ok(Err(ObjectError::PartTooSmall));
        }
        let size: u64 = chosen.iter().map(|p| p.size).sum();
        if size > self.writer.limits.object_bytes_max {
            return Ok(Err(ObjectError::TooLarge));
        }
        if complete.size.is_some_and(|stated| stated != size) {
            return Ok(Err(ObjectError::BadArgument("the stated size is not the size of the parts together")));
        }
        let parts: Vec<(u64, &Sums)> = chosen.iter().map(|p| (p.size, &p.sums)).collect();
        let sums = combined(&parts, full_sum);
        if !complete.claimed.fits(&sums) {
            return Ok(Err(ObjectError::BadChecksum("stated")));
        }
        let kind = EventKind::CompleteMultipartUpload;
        let ready = match self.may_write(&complete.place, &complete.conditions, kind).await? {
            Ok(ready) => ready,
            Err(error) => return Ok(Err(error)),
        };
        let mut md5 = Md5::new();
        for piece in &chosen {
            md5.update(hex::decode(&piece.etag).unwrap_or_default());
        }
        let etag = format!("{}-{}", hex::encode(md5.finalize()), chosen.len());
        let slices: Vec<Slice> = chosen.iter().flat_map(|p| p.slices.iter().copied()).collect();
        for left in pieces.into_values() {
            self.release(&left.slices).await?;
        }
        self.forget(&complete.upload).await?;
        let sizes: Vec<u64> = chosen.iter().map(|p| p.size).collect();
        let new = NewObject {
            place: &complete.place,
            size,
            etag: &etag,
            headers: &parsed(&headers)?,
            tags: &parsed::<Vec<(String, String)>>(&tags)?,
            sums: &sums,
            parts: &sizes,
            slices: &slices,
            inline: None,
            upload: Some(&complete.upload),
            kind,
            cause: &complete.cause,
        };
        Ok(Ok(self.replace(ready, new).await?))
    }

    async fn pieces(&mut self, upload: &str) -> Result<HashMap<u32, Piece>, sqlx::Error> {
        let rows = sqlx::query("SELECT number, size, etag, slices, sums FROM parts WHERE upload = ?1")
            .bind(upload)
            .fetch_all(&mut *self.conn)
            .await?;
        let read = |row: sqlx::sqlite::SqliteRow| {
            let piece = Piece {
                size: row.try_get::<i64, _>(1)?.unsigned_abs(),
                etag: row.try_get(2)?,
                slices: slices_of(&row.try_get::<String, _>(3)?)?,
                sums: parsed(&row.try_get::<String, _>(4)?)?,
            };
            Ok((row.try_get(0)?, piece))
        };
        rows.into_iter().map(read).collect()
    }

    async fn forget(&mut self, upload: &str) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM parts WHERE upload = ?1").bind(upload).execute(&mut *self.conn).await?;
        sqlx::query("DELETE FROM uploads WHERE id = ?1").bind(upload).execute(&mut *self.conn).await?;
        Ok(())
    }

    pub(super) async fn abort(&mut self, place: &Place, upload: &str) -> Taken {
        if let Err(error) = self.upload(place, upload).await? {
            return Ok(Err(error));
        }
        for piece in self.pieces(upload).await?.into_values() {
            self.release(&piece.slices).await?;
        }
        self.forget(upload).await?;
        Ok(Ok(Outcome::Done))
    }
}
