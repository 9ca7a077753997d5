//! Versions of objects, what is known of an object beside its bytes, and access lists.

use super::Api;
use super::convert::{etag, is_private, listed_time, place, refuse, shown, time, told, version};
use crate::db::VersionQuery;
use crate::entry::{ListedVersion, Sums, Versioning, shown_version};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

const NO_ACL: &str = "Nothing is public here: every request is signed. An access list says `private`, or that the owner may do everything.";

impl Api {
    pub(super) async fn do_versioning(
        &self,
        req: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        let status = match self.store.bucket(&req.input.bucket).await?.versioning {
            // Never switched on: what S3 says of a new bucket.
            Versioning::Off => None,
            Versioning::On => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED)),
            Versioning::Suspended => Some(BucketVersioningStatus::from_static(BucketVersioningStatus::SUSPENDED)),
        };
        Ok(S3Response::new(GetBucketVersioningOutput { status, ..Default::default() }))
    }

    pub(super) async fn do_put_versioning(
        &self,
        req: S3Request<PutBucketVersioningInput>,
    ) -> S3Result<S3Response<PutBucketVersioningOutput>> {
        let VersioningConfiguration { mfa_delete, status } = req.input.versioning_configuration;
        let mfa = mfa_delete.is_some_and(|m| m.as_str() == MFADelete::ENABLED);
        refuse(mfa, "Deletes guarded by a second factor are not to be had here; leave MfaDelete out.")?;
        let on = match status.as_ref().map(BucketVersioningStatus::as_str) {
            Some(BucketVersioningStatus::ENABLED) => true,
            Some(BucketVersioningStatus::SUSPENDED) => false,
            _ => return Err(s3_error!(MalformedXML, "The status of versioning is `Enabled` or `Suspended`.")),
        };
        self.store.set_versioning(&req.input.bucket, on).await?;
        Ok(S3Response::new(PutBucketVersioningOutput::default()))
    }

    pub(super) async fn do_list_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = req.input;
        let (max_keys, limit) = super::buckets::limit(input.max_keys)?;
        let encode = super::buckets::encodes(input.encoding_type.as_ref())?;
        let key_marker = input.key_marker.clone().unwrap_or_default();
        let after_version = version(input.version_id_marker.as_deref())?;
        if after_version.is_some() && key_marker.is_empty() {
            return Err(s3_error!(InvalidArgument, "A version-id-marker cannot be given without a key-marker."));
        }
        let query = VersionQuery {
            prefix: input.prefix.clone().unwrap_or_default(),
            delimiter: input.delimiter.clone().unwrap_or_default(),
            after: key_marker,
            after_version,
            limit,
        };
        let found = self.store.versions(&input.bucket, &query).await?;
        let owner = self.owner();
        let (mut versions, mut markers) = (Vec::new(), Vec::new());
        for ListedVersion { listed, version, latest, marker } in found.versions {
            let (key, version_id) = (Some(shown(&listed.key, encode)), Some(shown_version(&version).to_owned()));
            let (is_latest, last_modified) = (Some(latest), Some(listed_time(listed.modified_ms)));
            let owner = Some(owner.clone());
            if marker {
                markers.push(DeleteMarkerEntry { is_latest, key, last_modified, owner, version_id });
            } else {
                versions.push(ObjectVersion {
                    e_tag: Some(etag(&listed.etag)),
                    is_latest,
                    key,
                    last_modified,
                    owner,
                    size: i64::try_from(listed.size).ok(),
                    storage_class: Some(ObjectVersionStorageClass::from(
                        listed.storage_class.unwrap_or_else(|| ObjectVersionStorageClass::STANDARD.to_owned()),
                    )),
                    version_id,
                    ..Default::default()
                });
            }
        }
        let prefix = |p: String| CommonPrefix { prefix: Some(shown(&p, encode)) };
        let (next_key, next_version) = found.next.clone().unzip();
        Ok(S3Response::new(ListObjectVersionsOutput {
            name: Some(input.bucket),
            prefix: Some(shown(&query.prefix, encode)),
            key_marker: Some(shown(&query.after, encode)),
            version_id_marker: Some(input.version_id_marker.unwrap_or_default()),
            max_keys: Some(max_keys),
            is_truncated: Some(found.next.is_some()),
            next_key_marker: next_key.map(|k| shown(&k, encode)),
            next_version_id_marker: next_version.flatten().map(|v| shown_version(&v).to_owned()),
            delimiter: input.delimiter.filter(|d| !d.is_empty()).map(|d| shown(&d, encode)),
            encoding_type: input.encoding_type,
            versions: Some(versions),
            delete_markers: Some(markers),
            common_prefixes: Some(found.prefixes.into_iter().map(prefix).collect()),
            ..Default::default()
        }))
    }

    pub(super) async fn do_attributes(
        &self,
        req: S3Request<GetObjectAttributesInput>,
    ) -> S3Result<S3Response<GetObjectAttributesOutput>> {
        let input = req.input;
        let version = version(input.version_id.as_deref())?;
        let entry = self.store.object(&place(input.bucket, input.key), version.as_deref()).await?;
        // One header with all of them, or one for each.
        let wanted = || input.object_attributes.iter().flat_map(|a| a.as_str().split(',')).map(str::trim);
        let asked = |name: &str| wanted().any(|a| a.eq_ignore_ascii_case(name));
        if !wanted().any(|a| !a.is_empty()) {
            return Err(s3_error!(InvalidArgument, "Say in x-amz-object-attributes what of the object is wanted."));
        }
        let sums = entry.sums.clone();
        let checksum = Checksum {
            checksum_type: super::objects::kind_of_sums(&entry.sums),
            checksum_crc32: sums.crc32,
            checksum_crc32c: sums.crc32c,
            checksum_crc64nvme: sums.crc64nvme,
            checksum_sha1: sums.sha1,
            checksum_sha256: sums.sha256,
        };
        let parts = || {
            let after = input.part_number_marker.unwrap_or(0).max(0);
            let most = input.max_parts.unwrap_or(1000).clamp(0, 1000);
            let part = |(number, size): (i32, &u64)| ObjectPart {
                part_number: Some(number),
                size: i64::try_from(*size).ok(),
                ..Default::default()
            };
            let all = (1..).zip(&entry.parts).filter(|(number, _)| *number > after);
            let shown: Vec<ObjectPart> = all.take(usize::try_from(most).unwrap_or(0)).map(part).collect();
            let last = shown.last().and_then(|p| p.part_number).unwrap_or(after);
            GetObjectAttributesParts {
                is_truncated: Some(usize::try_from(last).is_ok_and(|n| n < entry.parts.len())),
                max_parts: Some(most),
                next_part_number_marker: Some(last),
                part_number_marker: Some(after),
                // S3 tells of single parts only where they have checksums of their own, which are not kept here.
                parts: Some(shown),
                total_parts_count: i32::try_from(entry.parts.len()).ok(),
            }
        };
        Ok(S3Response::new(GetObjectAttributesOutput {
            checksum: Some(checksum).filter(|_| asked("Checksum") && entry.sums != Sums::default()),
            e_tag: asked("ETag").then(|| etag(&entry.etag)),
            last_modified: Some(time(entry.modified_ms)),
            object_parts: (asked("ObjectParts") && !entry.parts.is_empty()).then(parts),
            object_size: i64::try_from(entry.size).ok().filter(|_| asked("ObjectSize")),
            storage_class: asked("StorageClass").then(|| {
                StorageClass::from(
                    entry.headers.storage_class.clone().unwrap_or_else(|| StorageClass::STANDARD.to_owned()),
                )
            }),
            version_id: told(entry.version.as_deref()),
            ..Default::default()
        }))
    }

    /// What holds for everything: the owner may do all.
    fn grants(&self) -> Vec<Grant> {
        let owner = self.owner();
        vec![Grant {
            grantee: Some(Grantee {
                display_name: owner.display_name,
                email_address: None,
                id: owner.id,
                type_: Type::from_static(Type::CANONICAL_USER),
                uri: None,
            }),
            permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
        }]
    }

    /// Whether a list says no more than what holds anyway.
    fn says_nothing_new(
        &self,
        canned: Option<&str>,
        policy: Option<AccessControlPolicy>,
        granted: &[&Option<String>],
    ) -> bool {
        let own = |grant: &Grant| {
            let id = grant.grantee.as_ref().and_then(|g| g.id.as_deref());
            id == Some(&*self.owner)
        };
        is_private(canned)
            && granted.iter().all(|g| g.is_none())
            && policy.and_then(|p| p.grants).unwrap_or_default().iter().all(own)
    }

    pub(super) async fn do_get_bucket_acl(
        &self,
        req: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        self.store.bucket(&req.input.bucket).await?;
        Ok(S3Response::new(GetBucketAclOutput { grants: Some(self.grants()), owner: Some(self.owner()) }))
    }

    pub(super) async fn do_get_object_acl(
        &self,
        req: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let version = version(req.input.version_id.as_deref())?;
        self.store.object(&place(req.input.bucket, req.input.key), version.as_deref()).await?;
        let (grants, owner) = (Some(self.grants()), Some(self.owner()));
        Ok(S3Response::new(GetObjectAclOutput { grants, owner, ..Default::default() }))
    }

    pub(super) async fn do_put_bucket_acl(
        &self,
        req: S3Request<PutBucketAclInput>,
    ) -> S3Result<S3Response<PutBucketAclOutput>> {
        let i = req.input;
        self.store.bucket(&i.bucket).await?;
        let granted = [&i.grant_full_control, &i.grant_read, &i.grant_read_acp, &i.grant_write, &i.grant_write_acp];
        let nothing =
            self.says_nothing_new(i.acl.as_ref().map(|a| a.as_str()), i.access_control_policy.clone(), &granted);
        refuse(!nothing, NO_ACL)?;
        Ok(S3Response::new(PutBucketAclOutput::default()))
    }

    pub(super) async fn do_put_object_acl(
        &self,
        req: S3Request<PutObjectAclInput>,
    ) -> S3Result<S3Response<PutObjectAclOutput>> {
        let i = req.input;
        let version = version(i.version_id.as_deref())?;
        self.store.object(&place(i.bucket.clone(), i.key.clone()), version.as_deref()).await?;
        let granted = [&i.grant_full_control, &i.grant_read, &i.grant_read_acp, &i.grant_write, &i.grant_write_acp];
        let nothing =
            self.says_nothing_new(i.acl.as_ref().map(|a| a.as_str()), i.access_control_policy.clone(), &granted);
        refuse(!nothing, NO_ACL)?;
        Ok(S3Response::new(PutObjectAclOutput::default()))
    }
}
