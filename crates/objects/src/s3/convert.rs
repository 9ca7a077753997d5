//! Between the types of `s3s` and those of the store.

use crate::ObjectError;
use crate::db::{Outcome, Place};
use crate::entry::{Conditions, Headers, Listed, Sums, shown_version};
use crate::ingest::Wanted;
use crate::limits::Limits;
use crate::outbox::Cause;
use crate::store::PutBody;
use s3s::dto::{CopySource, ETag, ETagCondition, ObjectStorageClass, Owner, StreamingBlob, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result, TrailingHeaders, s3_error};
use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

impl From<ObjectError> for S3Error {
    fn from(error: ObjectError) -> Self {
        use ObjectError as E;
        let custom = |code: &'static str| S3ErrorCode::Custom(code.into());
        let (code, status) = match &error {
            E::NoSuchBucket => (S3ErrorCode::NoSuchBucket, 404),
            E::NoSuchKey => (S3ErrorCode::NoSuchKey, 404),
            E::NoSuchVersion => (S3ErrorCode::NoSuchVersion, 404),
            E::Marker { latest: true, .. } => (S3ErrorCode::NoSuchKey, 404),
            E::Marker { .. } => (S3ErrorCode::MethodNotAllowed, 405),
            E::NoSuchUpload => (S3ErrorCode::NoSuchUpload, 404),
            E::BucketExists => (S3ErrorCode::BucketAlreadyOwnedByYou, 409),
            E::BucketNotEmpty => (S3ErrorCode::BucketNotEmpty, 409),
            E::TooManyBuckets => (S3ErrorCode::TooManyBuckets, 400),
            E::TooManyUploads => (custom("TooManyUploads"), 400),
            E::BadBucketName => (S3ErrorCode::InvalidBucketName, 400),
            E::BadKey | E::BadArgument(_) => (S3ErrorCode::InvalidArgument, 400),
            E::KeyTooLong => (S3ErrorCode::KeyTooLongError, 400),
            E::MetadataTooLarge => (S3ErrorCode::MetadataTooLarge, 400),
            E::BadTag(_) => (S3ErrorCode::InvalidTag, 400),
            E::PreconditionFailed => (S3ErrorCode::PreconditionFailed, 412),
            E::NotModified => (custom("NotModified"), 304),
            E::RangeOutside => (S3ErrorCode::InvalidRange, 416),
            E::TooLarge => (S3ErrorCode::EntityTooLarge, 400),
            E::PartTooSmall => (S3ErrorCode::EntityTooSmall, 400),
            E::BadPart => (S3ErrorCode::InvalidPart, 400),
            E::PartOrder => (S3ErrorCode::InvalidPartOrder, 400),
            E::BadDigest => (S3ErrorCode::BadDigest, 400),
            E::MalformedDigest => (S3ErrorCode::InvalidDigest, 400),
            E::BadChecksum("x-amz-content-sha256") => (custom("XAmzContentSHA256Mismatch"), 400),
            E::BadChecksum(_) => (custom("BadDigest"), 400),
            E::BadChunkSignature => (S3ErrorCode::SignatureDoesNotMatch, 403),
            E::IncompleteBody => (S3ErrorCode::IncompleteBody, 400),
            E::SlowBody => (S3ErrorCode::RequestTimeout, 400),
            E::DiskFull => (custom("InsufficientStorage"), 507),
            E::OutboxFull => (S3ErrorCode::SlowDown, 503),
            E::Corrupt | E::Internal => (S3ErrorCode::InternalError, 500),
        };
        let mut out = Self::with_message(code, error.to_string());
        if let Ok(status) = http::StatusCode::from_u16(status) {
            out.set_status_code(status);
        }
        if let E::Marker { version, .. } = &error {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-amz-delete-marker", http::HeaderValue::from_static("true"));
            if let Ok(version) = http::HeaderValue::try_from(shown_version(version)) {
                headers.insert("x-amz-version-id", version);
            }
            out.set_headers(headers);
        }
        out
    }
}

/// What the front knows of a request.
pub(super) fn cause<T>(request: &S3Request<T>) -> Cause {
    request.extensions.get::<Cause>().cloned().unwrap_or_default()
}

pub(super) fn place(bucket: String, key: String) -> Place {
    Place { bucket, key }
}

pub(super) fn time(ms: i64) -> Timestamp {
    // Whole seconds: what headers can say, so that what a client was told can be said back.
    (UNIX_EPOCH + Duration::from_secs(ms.div_euclid(1000).unsigned_abs())).into()
}

pub(super) fn listed_time(ms: i64) -> Timestamp {
    (UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())).into()
}

pub(crate) fn seconds(time: &Timestamp) -> Option<i64> {
    let mut text = Vec::new();
    time.format(TimestampFormat::EpochSeconds, &mut text).ok()?;
    let text = String::from_utf8(text).ok()?;
    text.split('.').next()?.parse().ok()
}

pub(super) fn etag(text: &str) -> ETag {
    ETag::Strong(text.to_owned())
}

pub(super) fn condition(condition: Option<ETagCondition>) -> Option<String> {
    condition.map(|c| match c {
        ETagCondition::Any => "*".to_owned(),
        ETagCondition::ETag(etag) => etag.into_value(),
    })
}

pub(super) fn conditions(
    matches: Option<ETagCondition>,
    none_match: Option<ETagCondition>,
    modified_since: Option<&Timestamp>,
    unmodified_since: Option<&Timestamp>,
) -> Conditions {
    Conditions {
        matches: condition(matches),
        none_match: condition(none_match),
        modified_since_s: modified_since.and_then(seconds),
        unmodified_since_s: unmodified_since.and_then(seconds),
        ..Conditions::default()
    }
}

/// What a delete holds an object against, beside its ETag.
pub(super) fn also(conditions: Conditions, size: Option<i64>, modified: Option<&Timestamp>) -> Conditions {
    Conditions { size: size.and_then(|n| u64::try_from(n).ok()), modified_s: modified.and_then(seconds), ..conditions }
}

/// The version that a request names; empty for the one called null.
pub(super) fn version(asked: Option<&str>) -> S3Result<Option<String>> {
    match asked {
        None | Some("") => Ok(None),
        Some("null") => Ok(Some(String::new())),
        Some(id) if id.len() <= 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(Some(id.to_owned())),
        Some(_) => Err(s3_error!(InvalidArgument, "The version id is not one that was given here.")),
    }
}

/// The version that an answer names.
pub(super) fn told(version: Option<&str>) -> Option<String> {
    version.map(|v| shown_version(v).to_owned())
}

pub(super) fn source(source: CopySource) -> S3Result<(Place, Option<String>)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => {
            Ok((place(bucket.into(), key.into()), version(version_id.as_deref())?))
        }
        _ => Err(s3_error!(NotImplemented, "The source of a copy must be a bucket and a key.")),
    }
}

/// The headers that an object is given, from any of the requests that give some.
macro_rules! headers_of {
    ($input:expr, $limits:expr) => {
        $crate::s3::convert::headers(
            $crate::entry::Headers {
                content_type: $input.content_type.take().map(|v| v.to_string()),
                cache_control: $input.cache_control.take(),
                content_disposition: $input.content_disposition.take(),
                content_encoding: $input.content_encoding.take(),
                content_language: $input.content_language.take(),
                expires_s: $input.expires.as_ref().and_then($crate::s3::convert::seconds),
                storage_class: $input.storage_class.as_ref().map(|c| c.as_str().to_owned()),
                meta: std::collections::BTreeMap::new(),
            },
            $input.metadata.take(),
            $limits,
        )
    };
}
pub(super) use headers_of;

pub(super) fn headers(
    mut headers: Headers,
    metadata: Option<HashMap<String, String>>,
    limits: &Limits,
) -> Result<Headers, ObjectError> {
    // How the body travelled is not how the object is.
    headers.content_encoding = headers.content_encoding.and_then(|value| {
        let kept: Vec<&str> =
            value.split(',').map(str::trim).filter(|v| !v.is_empty() && *v != "aws-chunked").collect();
        Some(kept.join(", ")).filter(|v| !v.is_empty())
    });
    headers.storage_class = headers.storage_class.filter(|c| c != "STANDARD");
    headers.meta = metadata.unwrap_or_default().into_iter().collect();
    let bytes: usize = headers.meta.iter().map(|(n, v)| n.len() + v.len()).sum();
    if bytes > limits.metadata_bytes_max {
        return Err(ObjectError::MetadataTooLarge);
    }
    Ok(headers)
}

/// The texts of the `x-amz-tagging` header.
pub(super) fn tags(header: Option<String>, limits: &Limits) -> Result<Vec<(String, String)>, ObjectError> {
    let pairs = form_urlencoded::parse(header.as_deref().unwrap_or("").as_bytes());
    checked_tags(pairs.into_owned().collect(), limits)
}

/// By their keys, as S3 gives them back.
fn sorted(mut tags: Vec<(String, String)>) -> Vec<(String, String)> {
    tags.sort();
    tags
}

pub(super) fn checked_tags(tags: Vec<(String, String)>, limits: &Limits) -> Result<Vec<(String, String)>, ObjectError> {
    if tags.len() > limits.tags_max {
        return Err(ObjectError::BadTag("there are more than 10"));
    }
    for (i, (name, value)) in tags.iter().enumerate() {
        if name.is_empty() || name.chars().count() > 128 {
            return Err(ObjectError::BadTag("a key has 1 to 128 characters"));
        }
        if value.chars().count() > 256 {
            return Err(ObjectError::BadTag("a value has at most 256 characters"));
        }
        if tags[..i].iter().any(|(other, _)| other == name) {
            return Err(ObjectError::BadTag("a key appears twice"));
        }
    }
    Ok(sorted(tags))
}

/// A body as it came, and what the client says of it.
pub(super) fn body(
    body: Option<StreamingBlob>,
    content_length: Option<i64>,
    content_md5: Option<&str>,
    claimed: Sums,
    (headers, trailers): (&http::HeaderMap, Option<TrailingHeaders>),
) -> Result<PutBody, ObjectError> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let trailer = header("x-amz-trailer").unwrap_or("").to_ascii_lowercase();
    let asked = header("x-amz-sdk-checksum-algorithm").unwrap_or("").to_ascii_lowercase();
    let wants = |name: &str, claimed: &Option<String>| {
        claimed.is_some() || asked == name || trailer.contains(&format!("x-amz-checksum-{name}"))
    };
    let wanted = Wanted {
        crc32: trailer.split(',').any(|t| t.trim() == "x-amz-checksum-crc32")
            || claimed.crc32.is_some()
            || asked == "crc32",
        crc32c: wants("crc32c", &claimed.crc32c),
        crc64nvme: wants("crc64nvme", &claimed.crc64nvme),
        sha1: wants("sha1", &claimed.sha1),
        sha256: wants("sha256", &claimed.sha256),
    };
    // The length of an `aws-chunked` body is stated beside that of what is sent.
    let chunked = header("x-amz-decoded-content-length").and_then(|v| v.parse().ok());
    let stated = chunked.or_else(|| content_length.and_then(|n| u64::try_from(n).ok()));
    let md5 = match content_md5 {
        None => None,
        Some(text) => {
            let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, text.trim()).ok();
            Some(bytes.and_then(|b| b.try_into().ok()).ok_or(ObjectError::MalformedDigest)?)
        }
    };
    let claimed = move || {
        let mut claimed = claimed;
        let map = trailers.and_then(|t| t.take()).unwrap_or_default();
        let from_trailer = |name: &str| map.get(name).and_then(|v| v.to_str().ok()).map(|v| v.trim().to_owned());
        for (name, sum) in [
            ("x-amz-checksum-crc32", &mut claimed.crc32),
            ("x-amz-checksum-crc32c", &mut claimed.crc32c),
            ("x-amz-checksum-crc64nvme", &mut claimed.crc64nvme),
            ("x-amz-checksum-sha1", &mut claimed.sha1),
            ("x-amz-checksum-sha256", &mut claimed.sha256),
        ] {
            *sum = sum.take().or_else(|| from_trailer(name));
        }
        claimed
    };
    let body = body.map(|b| Box::pin(b) as crate::ingest::Incoming);
    Ok(PutBody { body, stated, md5, wanted, claimed: Box::new(claimed) })
}

/// What was written.
pub(super) struct Written {
    pub(super) etag: String,
    /// Milliseconds since the Unix epoch.
    pub(super) modified_ms: i64,
    pub(super) sums: Sums,
    /// As clients see it.
    pub(super) version: Option<String>,
}

pub(super) fn written(outcome: Outcome) -> S3Result<Written> {
    match outcome {
        Outcome::Object { etag, modified_ms, sums, version, .. } => {
            Ok(Written { etag, modified_ms, sums, version: told(version.as_deref()) })
        }
        _ => Err(ObjectError::Internal.into()),
    }
}

/// What is not to be had is refused, not silently left out.
pub(super) fn refuse(wanted: bool, what: &'static str) -> S3Result<()> {
    if wanted { Err(S3Error::with_message(S3ErrorCode::NotImplemented, what)) } else { Ok(()) }
}

/// Whether a canned ACL says no more than what always holds: the owner may do everything, nobody else anything.
pub(super) fn is_private(acl: Option<&str>) -> bool {
    matches!(acl, None | Some("" | "default" | "private" | "bucket-owner-full-control" | "bucket-owner-read"))
}

/// Percent-encodes a key for `encoding-type=url`.
pub(super) fn shown(key: &str, encode: bool) -> String {
    if !encode {
        return key.to_owned();
    }
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/*".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

pub(super) fn object(listed: Listed, encode: bool, owner: Option<Owner>) -> s3s::dto::Object {
    s3s::dto::Object {
        key: Some(shown(&listed.key, encode)),
        e_tag: Some(etag(&listed.etag)),
        last_modified: Some(listed_time(listed.modified_ms)),
        size: i64::try_from(listed.size).ok(),
        storage_class: Some(ObjectStorageClass::from(listed.storage_class.unwrap_or_else(|| "STANDARD".to_owned()))),
        owner,
        ..Default::default()
    }
}
