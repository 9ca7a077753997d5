//! Operations on buckets, and lists.

use super::Api;
use super::convert::{is_private, listed_time, object, refuse, shown};
use crate::db::{ListPage, ListQuery};
use crate::entry::CorsRule;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

/// Most keys on a page.
const PAGE_MAX: i32 = 1000;
/// Most CORS rules of a bucket, as in COS and S3.
const CORS_RULES_MAX: usize = 100;

pub(super) fn limit(asked: Option<i32>) -> S3Result<(i32, usize)> {
    let asked = asked.unwrap_or(PAGE_MAX);
    if asked < 0 {
        return Err(s3_error!(InvalidArgument, "The number of keys on a page is not negative."));
    }
    let keys = asked.min(PAGE_MAX);
    Ok((keys, usize::try_from(keys).unwrap_or(0)))
}

pub(super) fn encodes(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding.map(EncodingType::as_str) {
        None | Some("") => Ok(false),
        Some("url") => Ok(true),
        Some(_) => Err(s3_error!(InvalidArgument, "The encoding type is `url`, or is left out.")),
    }
}

/// What XML can say of a list in whatever encoding was asked for.
fn page(page: ListPage, encode: bool, owner: Option<&Owner>) -> (ObjectList, CommonPrefixList, bool) {
    let more = page.next.is_some();
    let contents = page.objects.into_iter().map(|o| object(o, encode, owner.cloned())).collect();
    let prefix = |p: String| CommonPrefix { prefix: Some(shown(&p, encode)) };
    (contents, page.prefixes.into_iter().map(prefix).collect(), more)
}

impl Api {
    pub(super) fn owner(&self) -> Owner {
        Owner { id: Some(self.owner.to_string()), display_name: Some(self.owner.to_string()) }
    }

    pub(super) async fn do_list_buckets(
        &self,
        req: S3Request<ListBucketsInput>,
    ) -> S3Result<S3Response<ListBucketsOutput>> {
        let prefix = req.input.prefix.clone().unwrap_or_default();
        let after = req.input.continuation_token.unwrap_or_default();
        let most = req.input.max_buckets.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let all = self.store.buckets().await?;
        let mut found: Vec<_> = all.into_iter().filter(|b| b.name.starts_with(&prefix) && b.name > after).collect();
        let more = most.is_some_and(|most| found.len() > most);
        found.truncate(most.unwrap_or(usize::MAX));
        let continuation_token = found.last().map(|b| b.name.clone()).filter(|_| more);
        let buckets = found.into_iter().map(|b| Bucket {
            bucket_region: Some(self.region.to_string()),
            creation_date: Some(listed_time(b.created_ms)),
            name: Some(b.name),
        });
        let buckets = Some(buckets.collect());
        Ok(S3Response::new(ListBucketsOutput {
            buckets,
            owner: Some(self.owner()),
            continuation_token,
            prefix: req.input.prefix,
        }))
    }

    pub(super) async fn do_create_bucket(
        &self,
        req: S3Request<CreateBucketInput>,
    ) -> S3Result<S3Response<CreateBucketOutput>> {
        refuse(
            !is_private(req.input.acl.as_ref().map(|a| a.as_str())),
            "Access lists are not to be had here: every request is signed. Leave the ACL out, or say `private`.",
        )?;
        refuse(req.input.object_lock_enabled_for_bucket == Some(true), "Object locks are not to be had here.")?;
        self.store.create_bucket(&req.input.bucket).await?;
        let location = Some(format!("/{}", req.input.bucket));
        Ok(S3Response::new(CreateBucketOutput { location }))
    }

    pub(super) async fn do_head_bucket(
        &self,
        req: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        self.store.bucket(&req.input.bucket).await?;
        let bucket_region = Some(self.region.to_string());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    pub(super) async fn do_location(
        &self,
        req: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.store.bucket(&req.input.bucket).await?;
        let location_constraint = Some(BucketLocationConstraint::from(self.region.to_string()));
        Ok(S3Response::new(GetBucketLocationOutput { location_constraint }))
    }

    pub(super) async fn do_list(&self, req: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = req.input;
        let (max_keys, limit) = limit(input.max_keys)?;
        let encode = encodes(input.encoding_type.as_ref())?;
        let query = ListQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: input.marker.clone().unwrap_or_default(),
            limit,
        };
        let found = self.store.list(&input.bucket, &query).await?;
        let next_marker = found.next.as_ref().map(|n| shown(n, encode));
        let (contents, prefixes, more) = page(found, encode, Some(&self.owner()));
        let echo = |text: Option<String>| text.map(|t| shown(&t, encode));
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(shown(&query.prefix, encode)),
            marker: Some(shown(&query.after, encode)),
            max_keys: Some(max_keys),
            is_truncated: Some(more),
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            delimiter: echo(input.delimiter.filter(|d| !d.is_empty())),
            next_marker,
            encoding_type: input.encoding_type,
            ..Default::default()
        }))
    }

    pub(super) async fn do_list_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let (max_keys, limit) = limit(input.max_keys)?;
        let encode = encodes(input.encoding_type.as_ref())?;
        // Tokens are keys in hexadecimal: opaque, and fit for a URL.
        let after = match &input.continuation_token {
            Some(token) => {
                let key = hex::decode(token).ok().and_then(|k| String::from_utf8(k).ok());
                key.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token is not one that was given."))?
            }
            None => input.start_after.clone().unwrap_or_default(),
        };
        let query = ListQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after,
            limit,
        };
        let found = self.store.list(&input.bucket, &query).await?;
        let next_continuation_token = found.next.as_ref().map(hex::encode);
        let owner = self.owner();
        let (contents, prefixes, more) = page(found, encode, Some(&owner).filter(|_| input.fetch_owner == Some(true)));
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(shown(&query.prefix, encode)),
            max_keys: Some(max_keys),
            key_count: i32::try_from(contents.len() + prefixes.len()).ok(),
            continuation_token: input.continuation_token,
            is_truncated: Some(more),
            next_continuation_token,
            contents: Some(contents),
            common_prefixes: Some(prefixes),
            delimiter: input.delimiter.filter(|d| !d.is_empty()).map(|d| shown(&d, encode)),
            encoding_type: input.encoding_type,
            start_after: input.start_after.map(|s| shown(&s, encode)),
            ..Default::default()
        }))
    }

    pub(super) async fn do_put_cors(
        &self,
        req: S3Request<PutBucketCorsInput>,
    ) -> S3Result<S3Response<PutBucketCorsOutput>> {
        let rules = req.input.cors_configuration.cors_rules;
        if rules.is_empty() || rules.len() > CORS_RULES_MAX {
            return Err(s3_error!(MalformedXML, "A CORS configuration has 1 to 100 rules."));
        }
        let methods = ["GET", "PUT", "POST", "DELETE", "HEAD"];
        let rule = |rule: CORSRule| {
            let bad = rule.allowed_methods.iter().any(|m| !methods.contains(&m.as_str()));
            if bad || rule.allowed_origins.is_empty() {
                return Err(s3_error!(
                    InvalidRequest,
                    "A CORS rule names origins, and methods among GET, PUT, POST, DELETE, HEAD."
                ));
            }
            if rule.allowed_origins.iter().any(|o| o.matches('*').count() > 1) {
                return Err(s3_error!(InvalidRequest, "An origin of a CORS rule has at most one `*`."));
            }
            Ok(CorsRule {
                id: rule.id,
                origins: rule.allowed_origins,
                methods: rule.allowed_methods,
                headers: rule.allowed_headers.unwrap_or_default(),
                expose: rule.expose_headers.unwrap_or_default(),
                max_age_s: rule.max_age_seconds,
            })
        };
        let rules = rules.into_iter().map(rule).collect::<S3Result<Vec<_>>>()?;
        self.store.set_cors(&req.input.bucket, rules).await?;
        Ok(S3Response::new(PutBucketCorsOutput::default()))
    }

    pub(super) async fn do_get_cors(
        &self,
        req: S3Request<GetBucketCorsInput>,
    ) -> S3Result<S3Response<GetBucketCorsOutput>> {
        let bucket = self.store.bucket(&req.input.bucket).await?;
        if bucket.cors.is_empty() {
            let mut error = s3_error!(NoSuchCORSConfiguration, "The bucket has no CORS configuration.");
            error.set_status_code(http::StatusCode::NOT_FOUND);
            return Err(error);
        }
        let rule = |rule: CorsRule| CORSRule {
            id: rule.id,
            allowed_headers: Some(rule.headers),
            allowed_methods: rule.methods,
            allowed_origins: rule.origins,
            expose_headers: Some(rule.expose),
            max_age_seconds: rule.max_age_s,
        };
        let cors_rules = Some(bucket.cors.into_iter().map(rule).collect());
        Ok(S3Response::new(GetBucketCorsOutput { cors_rules }))
    }

    pub(super) async fn do_list_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = req.input;
        refuse(
            input.delimiter.as_ref().is_some_and(|d| !d.is_empty()),
            "Uploads are not grouped by a delimiter here; leave it out.",
        )?;
        let (max_uploads, limit) = limit(input.max_uploads)?;
        let encode = encodes(input.encoding_type.as_ref())?;
        let prefix = input.prefix.unwrap_or_default();
        let key = input.key_marker.unwrap_or_default();
        let id = input.upload_id_marker.unwrap_or_default();
        let found = self.store.uploads(&input.bucket, &prefix, (&key, &id), limit).await?;
        let last = found.uploads.last().filter(|_| found.more);
        let (next_key_marker, next_upload_id_marker) = last.map(|u| (shown(&u.key, encode), u.id.clone())).unzip();
        let owner = self.owner();
        let upload = |u: crate::entry::Upload| MultipartUpload {
            key: Some(shown(&u.key, encode)),
            upload_id: Some(u.id),
            initiated: Some(listed_time(u.created_ms)),
            initiator: Some(Initiator { id: owner.id.clone(), display_name: owner.display_name.clone() }),
            owner: Some(owner.clone()),
            storage_class: Some(StorageClass::from(u.headers.storage_class.unwrap_or_else(|| "STANDARD".into()))),
            ..Default::default()
        };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            encoding_type: input.encoding_type,
            is_truncated: Some(found.more),
            key_marker: Some(shown(&key, encode)),
            max_uploads: Some(max_uploads),
            next_key_marker,
            next_upload_id_marker,
            prefix: Some(shown(&prefix, encode)),
            upload_id_marker: Some(id),
            uploads: Some(found.uploads.into_iter().map(upload).collect()),
            ..Default::default()
        }))
    }

    pub(super) async fn do_delete_bucket(
        &self,
        req: S3Request<DeleteBucketInput>,
    ) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.store.delete_bucket(&req.input.bucket).await?;
        Ok(S3Response::new(DeleteBucketOutput::default()))
    }

    pub(super) async fn do_delete_cors(
        &self,
        req: S3Request<DeleteBucketCorsInput>,
    ) -> S3Result<S3Response<DeleteBucketCorsOutput>> {
        self.store.set_cors(&req.input.bucket, Vec::new()).await?;
        Ok(S3Response::new(DeleteBucketCorsOutput::default()))
    }
}
