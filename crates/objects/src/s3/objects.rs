//! Operations on objects.

use super::Api;
use super::convert::{
    also, body, cause, checked_tags, condition, conditions, etag, headers_of, is_private, place, refuse, source, tags,
    time, told, version, written,
};
use crate::ObjectError;
use crate::db::Copy;
use crate::entry::{Conditions, Entry, Sums, Verdict};
use crate::outgoing::Outgoing;
use crate::rules::EventKind;
use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Response, S3Result};
use std::ops::Range as Span;
use std::sync::Arc;

/// Whether an object's checksum is one of its bytes, or one of its parts' checksums.
pub(super) fn kind_of_sums(sums: &Sums) -> Option<ChecksumType> {
    let Sums { crc32, crc32c, crc64nvme, sha1, sha256 } = sums;
    let sum = [crc32, crc32c, crc64nvme, sha1, sha256].into_iter().flatten().next()?;
    // Base64 has no `-`.
    let kind = if sum.contains('-') { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT };
    Some(ChecksumType::from_static(kind))
}

macro_rules! sums_of {
    ($input:expr) => {
        Sums {
            crc32: $input.checksum_crc32.take(),
            crc32c: $input.checksum_crc32c.take(),
            crc64nvme: $input.checksum_crc64nvme.take(),
            sha1: $input.checksum_sha1.take(),
            sha256: $input.checksum_sha256.take(),
        }
    };
}
pub(super) use sums_of;

const NO_KEYS: &str = "Encryption with keys of a request's own is not to be had here; leave its headers out.";
const NO_ACL: &str =
    "Access lists are not to be had here: every request is signed. Leave the ACL out, or say `private`.";

/// What of an object a read is to give.
struct Wish {
    conditions: Conditions,
    range: Option<Range>,
    part: Option<i32>,
    sums: bool,
}

/// What it gives.
struct Found {
    entry: Entry,
    span: Span<u64>,
    partial: bool,
    sums: Sums,
}

impl Found {
    fn content_range(&self) -> Option<String> {
        let last = self.span.end.saturating_sub(1);
        self.partial.then(|| format!("bytes {}-{last}/{}", self.span.start, self.entry.size))
    }
}

fn choose(entry: Entry, wish: &Wish) -> S3Result<Found> {
    match wish.conditions.judge(Some((&entry.etag, entry.modified_ms))) {
        Verdict::Holds => {}
        Verdict::Fails => return Err(ObjectError::PreconditionFailed.into()),
        Verdict::NotModified => {
            let mut error = S3Error::from(ObjectError::NotModified);
            let mut headers = http::HeaderMap::new();
            if let Ok(value) = etag(&entry.etag).to_http_header() {
                headers.insert(http::header::ETAG, value);
            }
            error.set_headers(headers);
            return Err(error);
        }
    }
    let outside = || {
        let mut error = S3Error::from(ObjectError::RangeOutside);
        let mut headers = http::HeaderMap::new();
        if let Ok(value) = http::HeaderValue::try_from(format!("bytes */{}", entry.size)) {
            headers.insert(http::header::CONTENT_RANGE, value);
        }
        error.set_headers(headers);
        error
    };
    let (span, partial) = match (&wish.range, wish.part) {
        (Some(range), _) => (range.check(entry.size).map_err(|_| outside())?, true),
        (None, Some(number)) => {
            let at = usize::try_from(number).ok().and_then(|n| n.checked_sub(1)).ok_or_else(outside)?;
            if entry.parts.is_empty() && at == 0 {
                (0..entry.size, entry.size > 0)
            } else {
                let len = *entry.parts.get(at).ok_or_else(outside)?;
                let start: u64 = entry.parts[..at].iter().sum();
                (start..start + len, true)
            }
        }
        (None, None) => (0..entry.size, false),
    };
    let sums = if wish.sums && !partial { entry.sums.clone() } else { Sums::default() };
    Ok(Found { entry, span, partial, sums })
}

/// The fields that answers to GET and HEAD share.
macro_rules! answer_of {
    ($output:ident, $found:expr) => {{
        let found = $found;
        let kind = kind_of_sums(&found.sums);
        let (content_range, headers) = (found.content_range(), &found.entry.headers);
        $output {
            accept_ranges: Some("bytes".into()),
            content_length: i64::try_from(found.span.end - found.span.start).ok(),
            content_range,
            content_type: headers.content_type.clone().or_else(|| Some("application/octet-stream".into())),
            cache_control: headers.cache_control.clone(),
            content_disposition: headers.content_disposition.clone(),
            content_encoding: headers.content_encoding.clone(),
            content_language: headers.content_language.clone(),
            expires: headers.expires_s.map(|s| time(s.saturating_mul(1000))),
            storage_class: headers.storage_class.clone().map(StorageClass::from),
            metadata: Some(headers.meta.clone().into_iter().collect()),
            e_tag: Some(etag(&found.entry.etag)),
            last_modified: Some(time(found.entry.modified_ms)),
            version_id: told(found.entry.version.as_deref()),
            parts_count: Some(found.entry.parts.len()).filter(|n| *n > 0).and_then(|n| i32::try_from(n).ok()),
            checksum_type: kind,
            checksum_crc32: found.sums.crc32.clone(),
            checksum_crc32c: found.sums.crc32c.clone(),
            checksum_crc64nvme: found.sums.crc64nvme.clone(),
            checksum_sha1: found.sums.sha1.clone(),
            checksum_sha256: found.sums.sha256.clone(),
            ..Default::default()
        }
    }};
}

impl Api {
    pub(super) async fn do_get(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        refuse(input.sse_customer_key.is_some(), NO_KEYS)?;
        let version = version(input.version_id.as_deref())?;
        let wish = Wish {
            conditions: conditions(
                input.if_match,
                input.if_none_match,
                input.if_modified_since.as_ref(),
                input.if_unmodified_since.as_ref(),
            ),
            range: input.range,
            part: input.part_number,
            sums: input.checksum_mode.is_some_and(|m| m.as_str() == ChecksumMode::ENABLED),
        };
        let looking = self.store.files.looking();
        let found = choose(self.store.object(&place(input.bucket, input.key), version.as_deref()).await?, &wish)?;
        let mut output = answer_of!(GetObjectOutput, &found);
        output.tag_count = i32::try_from(found.entry.tags.len()).ok().filter(|n| *n > 0);
        let outgoing = Outgoing::new(found.entry.content, found.span, looking, Arc::clone(&self.store.sent));
        output.body = Some(StreamingBlob::new(outgoing));
        Ok(S3Response::new(output))
    }

    pub(super) async fn do_head(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        refuse(input.sse_customer_key.is_some(), NO_KEYS)?;
        let version = version(input.version_id.as_deref())?;
        let wish = Wish {
            conditions: conditions(
                input.if_match,
                input.if_none_match,
                input.if_modified_since.as_ref(),
                input.if_unmodified_since.as_ref(),
            ),
            range: input.range,
            part: input.part_number,
            sums: input.checksum_mode.is_some_and(|m| m.as_str() == ChecksumMode::ENABLED),
        };
        let found = choose(self.store.object(&place(input.bucket, input.key), version.as_deref()).await?, &wish)?;
        let tags = found.entry.tags.len();
        let mut answer = S3Response::new(answer_of!(HeadObjectOutput, &found));
        if tags > 0 {
            // The type of the answer has no field for it.
            answer.headers.insert("x-amz-tagging-count", tags.into());
        }
        Ok(answer)
    }

    pub(super) async fn do_put(
        &self,
        mut req: S3Request<PutObjectInput>,
        kind: EventKind,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let cause = cause(&req);
        let input = &mut req.input;
        refuse(input.sse_customer_key.is_some() || input.server_side_encryption.is_some(), NO_KEYS)?;
        refuse(!is_private(input.acl.as_ref().map(|a| a.as_str())), NO_ACL)?;
        refuse(
            input.write_offset_bytes.is_some(),
            "Appending to objects is not to be had here; put the whole object.",
        )?;
        let headers = headers_of!(input, &self.store.limits)?;
        let tags = tags(input.tagging.take(), &self.store.limits)?;
        let conditions = conditions(input.if_match.take(), input.if_none_match.take(), None, None);
        let claimed = sums_of!(input);
        let content_length = input.content_length.filter(|_| kind == EventKind::Put);
        let body = body(
            input.body.take(),
            content_length,
            input.content_md5.as_deref(),
            claimed,
            (&req.headers, req.trailing_headers.take()),
        )?;
        let place = place(std::mem::take(&mut input.bucket), std::mem::take(&mut input.key));
        let outcome = self.store.put(place, body, (headers, tags), conditions, (kind, cause)).await?;
        let done = written(outcome)?;
        let sums = done.sums;
        let full = sums != Sums::default();
        Ok(S3Response::new(PutObjectOutput {
            e_tag: Some(etag(&done.etag)),
            version_id: done.version,
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            checksum_type: full.then(|| ChecksumType::from_static(ChecksumType::FULL_OBJECT)),
            ..Default::default()
        }))
    }

    pub(super) async fn do_copy(&self, mut req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let cause = cause(&req);
        let input = &mut req.input;
        refuse(input.sse_customer_key.is_some() || input.server_side_encryption.is_some(), NO_KEYS)?;
        refuse(!is_private(input.acl.as_ref().map(|a| a.as_str())), NO_ACL)?;
        let new_headers = headers_of!(input, &self.store.limits)?;
        // COS says `Replaced` where S3 says `REPLACE`.
        let replaces = |d: Option<&str>| d.is_some_and(|d| d.to_ascii_lowercase().starts_with("replace"));
        let headers = replaces(input.metadata_directive.as_ref().map(|d| d.as_str())).then_some(new_headers);
        let retag = replaces(input.tagging_directive.as_ref().map(|d| d.as_str()));
        let tags = if retag { Some(tags(input.tagging.take(), &self.store.limits)?) } else { None };
        let (from, version) = source(input.copy_source.clone())?;
        let place = place(std::mem::take(&mut input.bucket), std::mem::take(&mut input.key));
        let onto_itself = from.bucket == place.bucket && from.key == place.key && version.is_none();
        if onto_itself && headers.is_none() && tags.is_none() {
            return Err(S3Error::with_message(
                s3s::S3ErrorCode::InvalidRequest,
                "An object copied onto itself must be given new metadata: set the metadata directive to REPLACE.",
            ));
        }
        let from_conditions = conditions(
            input.copy_source_if_match.take(),
            input.copy_source_if_none_match.take(),
            input.copy_source_if_modified_since.as_ref(),
            input.copy_source_if_unmodified_since.as_ref(),
        );
        let source_version = told(version.as_deref());
        let outcome = self.store.copy(Copy { from, version, from_conditions, place, headers, tags, cause }).await?;
        let done = written(outcome)?;
        let sums = done.sums;
        let result = CopyObjectResult {
            e_tag: Some(etag(&done.etag)),
            last_modified: Some(time(done.modified_ms)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        };
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            copy_source_version_id: source_version,
            version_id: done.version,
            ..Default::default()
        }))
    }

    pub(super) async fn do_delete(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let cause = cause(&req);
        let input = req.input;
        let version = version(input.version_id.as_deref())?;
        let conditions = conditions(input.if_match, None, None, None);
        let conditions = also(conditions, input.if_match_size, input.if_match_last_modified_time.as_ref());
        let deleted = self.store.delete(place(input.bucket, input.key), version, conditions, cause).await?;
        Ok(S3Response::new(DeleteObjectOutput {
            delete_marker: deleted.marker.then_some(true),
            version_id: told(deleted.version.as_deref()),
            ..Default::default()
        }))
    }

    pub(super) async fn do_delete_many(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let cause = cause(&req);
        let Delete { objects, quiet } = req.input.delete;
        if objects.len() > 1000 {
            return Err(s3s::s3_error!(MalformedXML, "At most 1000 objects can be deleted by one request."));
        }
        let mut output = DeleteObjectsOutput::default();
        let mut errors = Vec::new();
        let mut which = Vec::new();
        for object in objects {
            let bound =
                Conditions { matches: condition(object.e_tag.map(ETagCondition::ETag)), ..Conditions::default() };
            let bound = also(bound, object.size, object.last_modified_time.as_ref());
            match version(object.version_id.as_deref()) {
                Ok(version) => which.push((object.key, version, bound)),
                Err(error) => errors.push((object.key, object.version_id, error)),
            }
        }
        let results = self.store.delete_many(req.input.bucket, which.clone(), cause).await?;
        let mut deleted = Vec::new();
        for ((key, version, _), result) in which.into_iter().zip(results) {
            let asked = told(version.as_deref());
            match result {
                Ok(done) => {
                    let told = told(done.version.as_deref());
                    deleted.push(DeletedObject {
                        key: Some(key),
                        delete_marker: done.marker.then_some(true),
                        delete_marker_version_id: told.filter(|_| done.marker),
                        version_id: asked,
                    });
                }
                Err(error) => errors.push((key, asked, error.into())),
            }
        }
        output.deleted = Some(deleted).filter(|_| quiet != Some(true));
        let error = |(key, version_id, error): (String, Option<String>, S3Error)| Error {
            key: Some(key),
            version_id,
            code: Some(error.code().as_str().to_owned()),
            message: error.message().map(str::to_owned),
        };
        output.errors = Some(errors.into_iter().map(error).collect());
        Ok(S3Response::new(output))
    }

    pub(super) async fn do_put_tags(
        &self,
        req: S3Request<PutObjectTaggingInput>,
    ) -> S3Result<S3Response<PutObjectTaggingOutput>> {
        let version = version(req.input.version_id.as_deref())?;
        let tags = req.input.tagging.tag_set.into_iter();
        let tags = tags.map(|t| (t.key.unwrap_or_default(), t.value.unwrap_or_default())).collect();
        let tags = checked_tags(tags, &self.store.limits)?;
        let version_id = told(version.as_deref());
        self.store.set_tags(place(req.input.bucket, req.input.key), version, tags).await?;
        Ok(S3Response::new(PutObjectTaggingOutput { version_id }))
    }

    pub(super) async fn do_get_tags(
        &self,
        req: S3Request<GetObjectTaggingInput>,
    ) -> S3Result<S3Response<GetObjectTaggingOutput>> {
        let version = version(req.input.version_id.as_deref())?;
        let entry = self.store.object(&place(req.input.bucket, req.input.key), version.as_deref()).await?;
        let version_id = told(entry.version.as_deref());
        let tag_set = entry.tags.into_iter().map(|(key, value)| Tag { key: Some(key), value: Some(value) }).collect();
        Ok(S3Response::new(GetObjectTaggingOutput { tag_set, version_id }))
    }

    pub(super) async fn do_delete_tags(
        &self,
        req: S3Request<DeleteObjectTaggingInput>,
    ) -> S3Result<S3Response<DeleteObjectTaggingOutput>> {
        let version = version(req.input.version_id.as_deref())?;
        let version_id = told(version.as_deref());
        self.store.set_tags(place(req.input.bucket, req.input.key), version, Vec::new()).await?;
        Ok(S3Response::new(DeleteObjectTaggingOutput { version_id }))
    }
}
