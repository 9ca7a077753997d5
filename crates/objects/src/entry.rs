//! What the store keeps: objects, parts, uploads.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A stretch of a file of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice(
    /// The file.
    pub i64,
    /// Where it begins, in bytes.
    pub u64,
    /// How long it is, in bytes.
    pub u64,
);

/// Where the bytes of an object are.
#[derive(Clone, Debug)]
pub enum Content {
    /// In the database.
    Inline(Bytes),
    /// In files, one after the other.
    Files(Vec<Slice>),
}

/// The headers that are kept with an object and given back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Headers {
    /// `Content-Type`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `Cache-Control`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_language: Option<String>,
    /// `Expires`, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<i64>,
    /// Storage class as given; it changes nothing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// `x-cos-meta-*`, `x-amz-meta-*`, names without that.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// Checksums beyond MD5, in base64, as S3's clients give and want them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sums {
    /// CRC-32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    /// CRC-32C.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
    /// CRC-64/NVME.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    /// SHA-1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha1: Option<String>,
    /// SHA-256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Sums {
    /// Whether those of `found` that are known are what these say.
    pub(crate) fn fits(&self, found: &Self) -> bool {
        [
            (&self.crc32, &found.crc32),
            (&self.crc32c, &found.crc32c),
            (&self.crc64nvme, &found.crc64nvme),
            (&self.sha1, &found.sha1),
            (&self.sha256, &found.sha256),
        ]
        .into_iter()
        .all(|(said, found)| said.is_none() || found.is_none() || said == found)
    }
}

/// An object.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How many bytes it has.
    pub size: u64,
    /// Its ETag, without quotes: the MD5 in hex, or for objects of parts the MD5 of their MD5s and `-<parts>`.
    pub etag: String,
    /// When it was last changed, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Its headers.
    pub headers: Headers,
    /// Its tags.
    pub tags: Vec<(String, String)>,
    /// Its checksums.
    pub sums: Sums,
    /// Sizes of its parts, for objects that were put in parts.
    pub parts: Vec<u64>,
    /// Its bytes.
    pub content: Content,
    /// Its version, where its bucket has or had versions: empty for the one that S3 calls null.
    pub version: Option<String>,
}

/// Whether a bucket keeps what is replaced and deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versioning {
    /// It never did.
    #[default]
    Off,
    /// It does.
    On,
    /// It did: the versions are kept, and further changes make no new ones.
    Suspended,
}

impl Versioning {
    /// As the database has it.
    pub(crate) fn from_number(number: i64) -> Self {
        match number {
            1 => Self::On,
            2 => Self::Suspended,
            _ => Self::Off,
        }
    }

    /// As the database has it.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Off => 0,
            Self::On => 1,
            Self::Suspended => 2,
        }
    }
}

/// A version's id as clients see it.
pub(crate) fn shown_version(version: &str) -> &str {
    if version.is_empty() { "null" } else { version }
}

/// A version of an object, or a delete marker, in a list of versions.
#[derive(Clone, Debug)]
pub struct ListedVersion {
    /// What a list of objects shows of it.
    pub listed: Listed,
    /// Its id; empty for the one that S3 calls null.
    pub version: String,
    /// Whether it is what the key stands for now.
    pub latest: bool,
    /// Whether it says only that there is nothing.
    pub marker: bool,
}

/// What a delete did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The version that was removed, or that of the marker that was set. `None`: there are no versions.
    pub version: Option<String>,
    /// Whether that is a delete marker.
    pub marker: bool,
}

/// What a list shows of an object.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// ETag without quotes.
    pub etag: String,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Storage class as given.
    pub storage_class: Option<String>,
}

/// A bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// Its CORS rules.
    pub cors: Vec<CorsRule>,
    /// Whether it keeps versions.
    pub versioning: Versioning,
}

/// Which pages of other sites may use a bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CorsRule {
    /// A name.
    pub id: Option<String>,
    /// `https://example.com`, `https://*.example.com`, `*`.
    pub origins: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Headers that requests may have; `*` in them stands for anything.
    pub headers: Vec<String>,
    /// Headers of answers that pages may read.
    pub expose: Vec<String>,
    /// How long browsers may remember, in seconds.
    pub max_age_s: Option<i32>,
}

/// An upload in parts that is not completed.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// The key it is for.
    pub key: String,
    /// When it began, in milliseconds since the Unix epoch.
    pub created_ms: i64,
    /// What the object will have.
    pub headers: Headers,
}

/// A part of an upload.
#[derive(Clone, Debug)]
pub struct Part {
    /// 1 to 10,000.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// ETag without quotes.
    pub etag: String,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Its checksums.
    pub sums: Sums,
}

/// What must hold of an object that is there, or is not, for a request to be carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: an ETag, or `*`.
    pub matches: Option<String>,
    /// `If-None-Match`: an ETag, or `*`.
    pub none_match: Option<String>,
    /// `If-Modified-Since`, in seconds since the Unix epoch.
    pub modified_since_s: Option<i64>,
    /// `If-Unmodified-Since`, in seconds since the Unix epoch.
    pub unmodified_since_s: Option<i64>,
    /// `x-amz-if-match-size`: bytes, for deletes.
    pub size: Option<u64>,
    /// `x-amz-if-match-last-modified-time`: seconds since the Unix epoch, for deletes.
    pub modified_s: Option<i64>,
}

/// What conditions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Holds,
    /// 304, for reads.
    NotModified,
    /// 412.
    Fails,
}

impl Conditions {
    /// Judges by RFC 9110, section 13.2.2. `found`: ETag and time of the object in milliseconds, if there is one.
    pub fn judge(&self, found: Option<(&str, i64)>) -> Verdict {
        let same = |wanted: &str| found.is_some_and(|(etag, _)| wanted == "*" || wanted == etag);
        let modified_s = found.map(|(_, ms)| ms.div_euclid(1000));
        match (&self.matches, self.unmodified_since_s) {
            (Some(wanted), _) if !same(wanted) => return Verdict::Fails,
            (None, Some(since)) if modified_s.is_some_and(|m| m > since) => return Verdict::Fails,
            _ => {}
        }
        match (&self.none_match, self.modified_since_s) {
            (Some(wanted), _) if same(wanted) => Verdict::NotModified,
            (None, Some(since)) if modified_s.is_some_and(|m| m <= since) => Verdict::NotModified,
            _ => Verdict::Holds,
        }
    }
}
