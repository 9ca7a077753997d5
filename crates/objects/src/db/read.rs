//! Questions.

use super::objects::{parsed, slices_of};
use super::schema::known_files;
use super::{Database, Place};
use crate::ObjectError;
use crate::entry::{Bucket, Content, Entry, Listed, Part, Upload, Versioning};
use crate::outbox::Notice;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use std::collections::HashSet;

/// Rows read at a time while a list is made.
const BATCH: usize = 1000;

/// What a list is to show.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// What keys begin with.
    pub prefix: String,
    /// Keys that have this after the prefix are shown as one common prefix. Empty: none are.
    pub delimiter: String,
    /// Only what comes after this key or common prefix.
    pub after: String,
    /// Most keys and common prefixes together.
    pub limit: usize,
}

/// What it shows.
#[derive(Clone, Debug, Default)]
pub struct ListPage {
    /// Objects.
    pub objects: Vec<Listed>,
    /// Common prefixes.
    pub prefixes: Vec<String>,
    /// Where to go on: the last key or common prefix shown. `None`: that was all.
    pub next: Option<String>,
}

/// A page of uploads.
#[derive(Clone, Debug, Default)]
pub struct UploadPage {
    /// Uploads by key, then id.
    pub uploads: Vec<Upload>,
    /// Whether there are more.
    pub more: bool,
}

impl Database {
    pub(crate) async fn buckets(&self) -> Result<Vec<Bucket>, ObjectError> {
        let rows = sqlx::query("SELECT name, created_ms, cors, versioning FROM buckets ORDER BY name")
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(bucket_of).collect::<Result<_, _>>()?)
    }

    pub(crate) async fn bucket(&self, name: &str) -> Result<Bucket, ObjectError> {
        let row = sqlx::query("SELECT name, created_ms, cors, versioning FROM buckets WHERE name = ?1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        let row = row.ok_or(ObjectError::NoSuchBucket)?;
        Ok(bucket_of(&row)?)
    }

    /// An object as it is now, or one version of it.
    pub(crate) async fn object(&self, place: &Place, version: Option<&str>) -> Result<Entry, ObjectError> {
        if version.is_some() {
            return self.look_up(place, version).await;
        }
        match self.cache.find(&place.bucket, &place.key) {
            Ok(entry) => Ok((*entry).clone()),
            Err(ticket) => {
                let entry = self.look_up(place, None).await?;
                self.cache.put(ticket, &place.bucket, &place.key, &entry);
                Ok(entry)
            }
        }
    }

    async fn look_up(&self, place: &Place, version: Option<&str>) -> Result<Entry, ObjectError> {
        let row = match version {
            None => {
                sqlx::query(
                    "SELECT size, etag, modified_ms, headers, tags, sums, parts, slices, inline, version,
                         (SELECT versioning FROM buckets WHERE name = ?1), 0 FROM objects WHERE bucket = ?1 AND key = ?2",
                )
                .bind(&place.bucket)
                .bind(&place.key)
                .fetch_optional(&self.readers)
                .await?
            }
            Some(version) => {
                sqlx::query(
                    "SELECT size, etag, modified_ms, headers, tags, sums, parts, slices, inline, version,
                         (SELECT versioning FROM buckets WHERE name = ?1), 0 FROM objects
                         WHERE bucket = ?1 AND key = ?2 AND version = ?3
                     UNION ALL
                     SELECT size, etag, modified_ms, headers, tags, sums, parts, slices, inline, version, 1, marker FROM versions
                         WHERE bucket = ?1 AND key = ?2 AND version = ?3",
                )
                .bind(&place.bucket)
                .bind(&place.key)
                .bind(version)
                .fetch_optional(&self.readers)
                .await?
            }
        };
        let Some(row) = row else {
            let bucket = self.bucket(&place.bucket).await?;
            if version.is_some() {
                return Err(ObjectError::NoSuchVersion);
            }
            if bucket.versioning == Versioning::Off {
                return Err(ObjectError::NoSuchKey);
            }
            // Where nothing is current, the newest version is a marker.
            let marker: Option<String> = sqlx::query_scalar(
                "SELECT version FROM versions WHERE bucket = ?1 AND key = ?2 AND marker ORDER BY seq DESC LIMIT 1",
            )
            .bind(&place.bucket)
            .bind(&place.key)
            .fetch_optional(&self.readers)
            .await?;
            return Err(marker.map_or(ObjectError::NoSuchKey, |version| ObjectError::Marker { version, latest: true }));
        };
        if row.try_get::<bool, _>(11)? {
            return Err(ObjectError::Marker { version: row.try_get(9)?, latest: false });
        }
        let versioned = row.try_get::<Option<i64>, _>(10)?.unwrap_or(0) != Versioning::Off.number();
        let inline: Option<Vec<u8>> = row.try_get(8)?;
        let content = match inline {
            Some(bytes) => Content::Inline(bytes.into()),
            None => Content::Files(slices_of(&row.try_get::<String, _>(7)?)?),
        };
        Ok(Entry {
            size: row.try_get::<i64, _>(0)?.unsigned_abs(),
            etag: row.try_get(1)?,
            modified_ms: row.try_get(2)?,
            headers: parsed(&row.try_get::<String, _>(3)?)?,
            tags: parsed(&row.try_get::<String, _>(4)?)?,
            sums: parsed(&row.try_get::<String, _>(5)?)?,
            parts: parsed(&row.try_get::<String, _>(6)?)?,
            content,
            version: Some(row.try_get(9)?).filter(|_| versioned),
        })
    }

    pub(crate) async fn list(&self, bucket: &str, query: &ListQuery) -> Result<ListPage, ObjectError> {
        self.bucket(bucket).await?;
        let mut page = ListPage::default();
        if query.limit == 0 {
            return Ok(page);
        }
        // What comes next must be greater than `from`, or at least `at_least`.
        let (mut from, mut at_least) = (query.after.clone(), query.prefix.clone());
        if let Some(shown) = common(&query.after, &query.prefix, &query.delimiter) {
            // Everything under a common prefix that was shown is behind us.
            let Some(next) = successor(&shown) else { return Ok(page) };
            at_least = at_least.max(next);
        }
        let end = successor(&query.prefix);
        'batches: loop {
            let rows = sqlx::query(
                "SELECT key, size, etag, modified_ms, storage_class FROM objects
                 WHERE bucket = ?1 AND key > ?2 AND key >= ?3 AND (?4 IS NULL OR key < ?4) ORDER BY key LIMIT ?5",
            )
            .bind(bucket)
            .bind(&from)
            .bind(&at_least)
            .bind(if query.prefix.is_empty() { None } else { end.as_deref() })
            .bind(i64::try_from(BATCH.min(query.limit + 1)).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
            if rows.is_empty() {
                return Ok(page);
            }
            for row in rows {
                let key: String = row.try_get(0)?;
                let shown = common(&key, &query.prefix, &query.delimiter);
                if page.objects.len() + page.prefixes.len() >= query.limit {
                    page.next = last_of(&page);
                    return Ok(page);
                }
                if let Some(shown) = shown {
                    let Some(next) = successor(&shown) else {
                        page.prefixes.push(shown);
                        return Ok(page);
                    };
                    page.prefixes.push(shown);
                    // All keys under it are skipped, however many there are.
                    at_least = next;
                    continue 'batches;
                }
                from.clone_from(&key);
                page.objects.push(Listed {
                    key,
                    size: row.try_get::<i64, _>(1)?.unsigned_abs(),
                    etag: row.try_get(2)?,
                    modified_ms: row.try_get(3)?,
                    storage_class: row.try_get(4)?,
                });
            }
        }
    }

    pub(crate) async fn upload(&self, place: &Place, id: &str) -> Result<Upload, ObjectError> {
        let row =
            sqlx::query("SELECT id, key, created_ms, headers FROM uploads WHERE id = ?1 AND bucket = ?2 AND key = ?3")
                .bind(id)
                .bind(&place.bucket)
                .bind(&place.key)
                .fetch_optional(&self.readers)
                .await?;
        let Some(row) = row else {
            self.bucket(&place.bucket).await?;
            return Err(ObjectError::NoSuchUpload);
        };
        Ok(upload_of(&row)?)
    }

    /// Uploads after `(key, id)`; an empty id means after all uploads of that key.
    pub(crate) async fn uploads(
        &self,
        bucket: &str,
        prefix: &str,
        (key, id): (&str, &str),
        limit: usize,
    ) -> Result<UploadPage, ObjectError> {
        self.bucket(bucket).await?;
        // Ids are hexadecimal digits: nothing comes after `~`.
        let after = if id.is_empty() && !key.is_empty() { "~" } else { id };
        let rows = sqlx::query(
            "SELECT id, key, created_ms, headers FROM uploads
             WHERE bucket = ?1 AND (key, id) > (?2, ?3) AND key >= ?4 AND (?5 IS NULL OR key < ?5) ORDER BY key, id LIMIT ?6",
        )
        .bind(bucket)
        .bind(key)
        .bind(after)
        .bind(prefix)
        .bind(successor(prefix).filter(|_| !prefix.is_empty()))
        .bind(i64::try_from(limit + 1).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        let more = rows.len() > limit;
        let uploads = rows.iter().take(limit).map(upload_of).collect::<Result<_, _>>()?;
        Ok(UploadPage { uploads, more })
    }

    /// Bucket, key and id of uploads that began before `before_ms`.
    pub(crate) async fn old_uploads(&self, before_ms: i64, limit: u32) -> Result<Vec<(Place, String)>, ObjectError> {
        let rows: Vec<(String, String, String)> =
            sqlx::query_as("SELECT bucket, key, id FROM uploads WHERE created_ms < ?1 ORDER BY created_ms LIMIT ?2")
                .bind(before_ms)
                .bind(limit)
                .fetch_all(&self.readers)
                .await?;
        Ok(rows.into_iter().map(|(bucket, key, id)| (Place { bucket, key }, id)).collect())
    }

    /// Parts with numbers above `after`.
    pub(crate) async fn parts(&self, upload: &str, after: u32, limit: usize) -> Result<(Vec<Part>, bool), ObjectError> {
        let rows = sqlx::query(
            "SELECT number, size, etag, modified_ms, sums FROM parts WHERE upload = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
        )
        .bind(upload)
        .bind(after)
        .bind(i64::try_from(limit + 1).unwrap_or(i64::MAX))
        .fetch_all(&self.readers)
        .await?;
        let more = rows.len() > limit;
        let part = |row: &SqliteRow| {
            Ok::<_, sqlx::Error>(Part {
                number: row.try_get(0)?,
                size: row.try_get::<i64, _>(1)?.unsigned_abs(),
                etag: row.try_get(2)?,
                modified_ms: row.try_get(3)?,
                sums: parsed(&row.try_get::<String, _>(4)?)?,
            })
        };
        Ok((rows.iter().take(limit).map(part).collect::<Result<_, _>>()?, more))
    }

    /// The notices of these ids, and then those after `after`: `limit` of the latter at most.
    pub(crate) async fn notices(&self, ids: &[i64], after: i64, limit: usize) -> Result<Vec<Notice>, ObjectError> {
        let mut rows: Vec<(i64, String)> = Vec::new();
        for id in ids {
            let row = sqlx::query_as("SELECT id, notice FROM outbox WHERE id = ?1").bind(id);
            rows.extend(row.fetch_optional(&self.readers).await?);
        }
        rows.extend(
            sqlx::query_as::<_, (i64, String)>("SELECT id, notice FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2")
                .bind(after)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(&self.readers)
                .await?,
        );
        let notice = |(id, text): (i64, String)| Ok(Notice { id, ..parsed::<Notice>(&text)? });
        Ok(rows.into_iter().map(notice).collect::<Result<_, sqlx::Error>>()?)
    }

    /// The oldest notices of one rule.
    pub(crate) async fn notices_of(&self, rule: &str, limit: usize) -> Result<Vec<Notice>, ObjectError> {
        let rows: Vec<(i64, String)> =
            sqlx::query_as("SELECT id, notice FROM outbox WHERE rule = ?1 ORDER BY id LIMIT ?2")
                .bind(rule)
                .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                .fetch_all(&self.readers)
                .await?;
        let notice = |(id, text): (i64, String)| Ok(Notice { id, ..parsed::<Notice>(&text)? });
        Ok(rows.into_iter().map(notice).collect::<Result<_, sqlx::Error>>()?)
    }

    /// Files of a run that something refers to.
    pub(crate) async fn known_files(&self, boot: u32) -> Result<HashSet<i64>, ObjectError> {
        known_files(&self.readers, boot).await
    }

    /// Every file that something refers to, with its size and SHA-256, from `after` on.
    pub(crate) async fn files(&self, after: i64, limit: u32) -> Result<Vec<(i64, u64, Vec<u8>)>, ObjectError> {
        let rows: Vec<(i64, i64, Vec<u8>)> =
            sqlx::query_as("SELECT id, size, sha256 FROM files WHERE id > ?1 ORDER BY id LIMIT ?2")
                .bind(after)
                .bind(limit)
                .fetch_all(&self.readers)
                .await?;
        Ok(rows.into_iter().map(|(id, size, sum)| (id, size.unsigned_abs(), sum)).collect())
    }
}

fn bucket_of(row: &SqliteRow) -> Result<Bucket, sqlx::Error> {
    Ok(Bucket {
        name: row.try_get(0)?,
        created_ms: row.try_get(1)?,
        cors: parsed(&row.try_get::<String, _>(2)?)?,
        versioning: Versioning::from_number(row.try_get(3)?),
    })
}

fn upload_of(row: &SqliteRow) -> Result<Upload, sqlx::Error> {
    Ok(Upload {
        id: row.try_get(0)?,
        key: row.try_get(1)?,
        created_ms: row.try_get(2)?,
        headers: parsed(&row.try_get::<String, _>(3)?)?,
    })
}

/// The common prefix that a key is shown as, if it is shown as one.
pub(super) fn common(key: &str, prefix: &str, delimiter: &str) -> Option<String> {
    if delimiter.is_empty() {
        return None;
    }
    let rest = key.strip_prefix(prefix)?;
    let at = rest.find(delimiter)?;
    Some(key[..prefix.len() + at + delimiter.len()].to_owned())
}

fn last_of(page: &ListPage) -> Option<String> {
    let object = page.objects.last().map(|o| o.key.clone());
    object.max(page.prefixes.last().cloned())
}

/// The least text that is greater than every text that begins with `prefix`, in the order of code points.
pub(super) fn successor(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are no characters: the next after U+D7FF is U+E000.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_prefix() {
        assert_eq!(successor("a/").as_deref(), Some("a0"));
        assert_eq!(successor("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(successor("\u{10ffff}"), None);
        assert_eq!(successor("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(successor(""), None);
    }
}
