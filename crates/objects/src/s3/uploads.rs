//! Operations on uploads in parts.

use super::Api;
use super::convert::{
    body, cause, conditions, etag, headers_of, is_private, listed_time, place, refuse, source, tags, time, told,
    written,
};
use super::objects::sums_of;
use crate::ObjectError;
use crate::db::Complete;
use crate::entry::Sums;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use std::ops::Range as Span;

fn part_number(number: i32) -> Result<u32, ObjectError> {
    u32::try_from(number).map_err(|_| ObjectError::BadArgument("part numbers are from 1 to 10000"))
}

/// `bytes=first-last`, both given.
fn span(text: &str) -> S3Result<Span<u64>> {
    let numbers = text.strip_prefix("bytes=").and_then(|t| t.split_once('-'));
    let span = numbers.and_then(|(first, last)| Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?));
    span.filter(|s: &Span<u64>| s.start < s.end)
        .ok_or_else(|| s3_error!(InvalidArgument, "The range of a copied part is `bytes=first-last`."))
}

impl Api {
    pub(super) async fn do_create_upload(
        &self,
        mut req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = &mut req.input;
        refuse(
            input.sse_customer_key.is_some() || input.server_side_encryption.is_some(),
            "Encryption with keys of a request's own is not to be had here; leave its headers out.",
        )?;
        refuse(
            !is_private(input.acl.as_ref().map(|a| a.as_str())),
            "Access lists are not to be had here; leave the ACL out.",
        )?;
        let headers = headers_of!(input, &self.store.limits)?;
        let tags = tags(input.tagging.take(), &self.store.limits)?;
        let full = input.checksum_type.as_ref().is_some_and(|t| t.as_str() == ChecksumType::FULL_OBJECT);
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let upload_id = self.store.create_upload(place(bucket.clone(), key.clone()), headers, tags, full).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            upload_id: Some(upload_id),
            checksum_algorithm: input.checksum_algorithm.take(),
            checksum_type: input.checksum_type.take(),
            ..Default::default()
        }))
    }

    pub(super) async fn do_put_part(
        &self,
        mut req: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = &mut req.input;
        refuse(input.sse_customer_key.is_some(), "Encryption with keys of a request's own is not to be had here.")?;
        let claimed = sums_of!(input);
        let body = body(
            input.body.take(),
            input.content_length,
            input.content_md5.as_deref(),
            claimed,
            (&req.headers, req.trailing_headers.take()),
        )?;
        let place = place(std::mem::take(&mut input.bucket), std::mem::take(&mut input.key));
        let (upload, number) = (std::mem::take(&mut input.upload_id), part_number(input.part_number)?);
        let done = written(self.store.put_part(place, upload, number, body).await?)?;
        let sums = done.sums;
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(etag(&done.etag)),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
            ..Default::default()
        }))
    }

    pub(super) async fn do_copy_part(
        &self,
        req: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = req.input;
        let range = input.copy_source_range.as_deref().map(span).transpose()?;
        let conditions = conditions(
            input.copy_source_if_match,
            input.copy_source_if_none_match,
            input.copy_source_if_modified_since.as_ref(),
            input.copy_source_if_unmodified_since.as_ref(),
        );
        let to = (place(input.bucket, input.key), input.upload_id, part_number(input.part_number)?);
        let from = source(input.copy_source)?;
        let copy_source_version_id = told(from.1.as_deref());
        let done = written(self.store.copy_part(from, conditions, range, to).await?)?;
        let result = CopyPartResult {
            e_tag: Some(etag(&done.etag)),
            last_modified: Some(time(done.modified_ms)),
            ..Default::default()
        };
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            copy_source_version_id,
            ..Default::default()
        }))
    }

    pub(super) async fn do_list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = req.input;
        let max_parts = input.max_parts.unwrap_or(1000).clamp(0, 1000);
        let after = input.part_number_marker.unwrap_or(0);
        let upload = self.store.upload(&place(input.bucket.clone(), input.key.clone()), &input.upload_id).await?;
        let limit = usize::try_from(max_parts).unwrap_or(0);
        let (parts, more) = self.store.parts(&upload.id, part_number(after)?, limit).await?;
        let last = parts.last().and_then(|p| i32::try_from(p.number).ok());
        let part = |p: crate::entry::Part| {
            let Sums { crc32, crc32c, crc64nvme, sha1, sha256 } = p.sums;
            Part {
                part_number: i32::try_from(p.number).ok(),
                size: i64::try_from(p.size).ok(),
                e_tag: Some(etag(&p.etag)),
                last_modified: Some(listed_time(p.modified_ms)),
                checksum_crc32: crc32,
                checksum_crc32c: crc32c,
                checksum_crc64nvme: crc64nvme,
                checksum_sha1: sha1,
                checksum_sha256: sha256,
            }
        };
        let owner = self.owner.to_string();
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload.id),
            max_parts: Some(max_parts),
            part_number_marker: Some(after),
            next_part_number_marker: Some(last.unwrap_or(after)),
            is_truncated: Some(more),
            initiator: Some(Initiator { id: Some(owner.clone()), display_name: Some(owner.clone()) }),
            owner: Some(Owner { id: Some(owner.clone()), display_name: Some(owner) }),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            parts: Some(parts.into_iter().map(part).collect()),
            ..Default::default()
        }))
    }

    pub(super) async fn do_complete(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let cause = cause(&req);
        let host = req.headers.get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("").to_owned();
        let mut input = req.input;
        let claimed = sums_of!(input);
        let given = input.multipart_upload.and_then(|u| u.parts).unwrap_or_default();
        if given.is_empty() || given.len() > self.store.limits.parts_max as usize {
            return Err(s3_error!(MalformedXML, "The list of parts has 1 to 10000 of them."));
        }
        let part = |mut p: CompletedPart| {
            let sums = sums_of!(p);
            Ok::<_, ObjectError>((part_number(p.part_number.unwrap_or(0))?, p.e_tag.map(ETag::into_value), sums))
        };
        let (bucket, key) = (input.bucket, input.key);
        let complete = Complete {
            place: place(bucket.clone(), key.clone()),
            upload: input.upload_id,
            parts: given.into_iter().map(part).collect::<Result<_, _>>()?,
            claimed,
            size: input.mpu_object_size.and_then(|n| u64::try_from(n).ok()),
            conditions: conditions(input.if_match, input.if_none_match, None, None),
            cause,
        };
        let done = written(self.store.complete(complete).await?)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("http://{host}/{key}")),
            bucket: Some(bucket),
            key: Some(key),
            e_tag: Some(etag(&done.etag)),
            version_id: done.version,
            checksum_type: super::objects::kind_of_sums(&done.sums),
            checksum_crc32: done.sums.crc32,
            checksum_crc32c: done.sums.crc32c,
            checksum_crc64nvme: done.sums.crc64nvme,
            checksum_sha1: done.sums.sha1,
            checksum_sha256: done.sums.sha256,
            ..Default::default()
        }))
    }

    pub(super) async fn do_abort(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.store.abort(place(req.input.bucket, req.input.key), req.input.upload_id).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
