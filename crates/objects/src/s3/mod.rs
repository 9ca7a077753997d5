//! The operations of S3, over the store. What is not here is answered `NotImplemented` by `s3s`.

mod buckets;
mod convert;
mod objects;
mod uploads;
mod versions;

pub(crate) use convert::seconds;

use crate::rules::EventKind;
use crate::store::Store;
use s3s::dto::{PutObjectInput, PutObjectOutput};
use s3s::{S3, S3Request, S3Response, S3Result};
use std::sync::Arc;

/// Answers S3's operations.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) region: Arc<str>,
    /// Whose everything is: the account number.
    pub(crate) owner: Arc<str>,
}

/// Each operation of `s3s` is a method of [`Api`] in the module of its kind.
macro_rules! operations {
    ($($name:ident: $input:ident -> $output:ident = $method:ident;)+) => {
        #[async_trait::async_trait]
        impl S3 for Api {
            $(async fn $name(&self, req: S3Request<s3s::dto::$input>) -> S3Result<S3Response<s3s::dto::$output>> {
                self.$method(req).await
            })+

            async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                // A browser's form arrives here too.
                let kind = if req.method == http::Method::POST { EventKind::Post } else { EventKind::Put };
                self.do_put(req, kind).await
            }
        }
    };
}

operations! {
    list_buckets: ListBucketsInput -> ListBucketsOutput = do_list_buckets;
    create_bucket: CreateBucketInput -> CreateBucketOutput = do_create_bucket;
    head_bucket: HeadBucketInput -> HeadBucketOutput = do_head_bucket;
    delete_bucket: DeleteBucketInput -> DeleteBucketOutput = do_delete_bucket;
    get_bucket_location: GetBucketLocationInput -> GetBucketLocationOutput = do_location;
    get_bucket_versioning: GetBucketVersioningInput -> GetBucketVersioningOutput = do_versioning;
    put_bucket_versioning: PutBucketVersioningInput -> PutBucketVersioningOutput = do_put_versioning;
    list_object_versions: ListObjectVersionsInput -> ListObjectVersionsOutput = do_list_versions;
    get_bucket_acl: GetBucketAclInput -> GetBucketAclOutput = do_get_bucket_acl;
    put_bucket_acl: PutBucketAclInput -> PutBucketAclOutput = do_put_bucket_acl;
    get_object_acl: GetObjectAclInput -> GetObjectAclOutput = do_get_object_acl;
    put_object_acl: PutObjectAclInput -> PutObjectAclOutput = do_put_object_acl;
    get_object_attributes: GetObjectAttributesInput -> GetObjectAttributesOutput = do_attributes;
    put_bucket_cors: PutBucketCorsInput -> PutBucketCorsOutput = do_put_cors;
    get_bucket_cors: GetBucketCorsInput -> GetBucketCorsOutput = do_get_cors;
    delete_bucket_cors: DeleteBucketCorsInput -> DeleteBucketCorsOutput = do_delete_cors;
    list_objects: ListObjectsInput -> ListObjectsOutput = do_list;
    list_objects_v2: ListObjectsV2Input -> ListObjectsV2Output = do_list_v2;
    get_object: GetObjectInput -> GetObjectOutput = do_get;
    head_object: HeadObjectInput -> HeadObjectOutput = do_head;
    copy_object: CopyObjectInput -> CopyObjectOutput = do_copy;
    delete_object: DeleteObjectInput -> DeleteObjectOutput = do_delete;
    delete_objects: DeleteObjectsInput -> DeleteObjectsOutput = do_delete_many;
    put_object_tagging: PutObjectTaggingInput -> PutObjectTaggingOutput = do_put_tags;
    get_object_tagging: GetObjectTaggingInput -> GetObjectTaggingOutput = do_get_tags;
    delete_object_tagging: DeleteObjectTaggingInput -> DeleteObjectTaggingOutput = do_delete_tags;
    create_multipart_upload: CreateMultipartUploadInput -> CreateMultipartUploadOutput = do_create_upload;
    upload_part: UploadPartInput -> UploadPartOutput = do_put_part;
    upload_part_copy: UploadPartCopyInput -> UploadPartCopyOutput = do_copy_part;
    list_parts: ListPartsInput -> ListPartsOutput = do_list_parts;
    list_multipart_uploads: ListMultipartUploadsInput -> ListMultipartUploadsOutput = do_list_uploads;
    complete_multipart_upload: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput = do_complete;
    abort_multipart_upload: AbortMultipartUploadInput -> AbortMultipartUploadOutput = do_abort;
}
