//! Why the store does not do what it was asked.

use mayfly_store::StoreError;

/// What a client is told. The texts hold no path of the host.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ObjectError {
    /// There is no such bucket.
    #[error("the bucket does not exist; create it first")]
    NoSuchBucket,
    /// There is no such object.
    #[error("the object does not exist")]
    NoSuchKey,
    /// There is no such version.
    #[error("the version does not exist")]
    NoSuchVersion,
    /// What was asked for is a delete marker: its version, and whether it was found without being named.
    #[error("{}", if *.latest { "the object does not exist: it was deleted, and earlier versions are kept" } else { "the version is a delete marker: it can be deleted, and nothing else" })]
    Marker {
        /// Its id.
        version: String,
        /// Whether it is what the key stands for.
        latest: bool,
    },
    /// The upload is unknown, completed or aborted.
    #[error("the upload does not exist; it may have been completed, aborted, or cleared away for its age")]
    NoSuchUpload,
    /// The bucket is there.
    #[error("the bucket exists already and is yours")]
    BucketExists,
    /// The bucket holds objects or uploads.
    #[error("the bucket is not empty; delete its objects, with all their versions, and abort its uploads first")]
    BucketNotEmpty,
    /// No more buckets.
    #[error("there are as many buckets as there may be; delete one first")]
    TooManyBuckets,
    /// No more uploads.
    #[error("there are as many unfinished uploads as there may be; complete or abort some first")]
    TooManyUploads,
    /// A name is not allowed.
    #[error(
        "the bucket's name is not valid: 3 to 63 of a-z, 0-9, `-` and `.`, beginning and ending with a letter or digit"
    )]
    BadBucketName,
    /// A key is not allowed.
    #[error("the key is empty or holds a character that cannot be kept")]
    BadKey,
    /// A key is too long.
    #[error("the key is too long")]
    KeyTooLong,
    /// Too much metadata.
    #[error("the metadata of the object is too large")]
    MetadataTooLarge,
    /// Tags break a rule.
    #[error("the tags are not valid: {0}")]
    BadTag(&'static str),
    /// A condition of the request does not hold.
    #[error("a condition of the request does not hold")]
    PreconditionFailed,
    /// What was asked for has not changed.
    #[error("not modified")]
    NotModified,
    /// The range lies outside.
    #[error("the range lies outside of the object")]
    RangeOutside,
    /// The body is longer than allowed.
    #[error("the upload is larger than allowed")]
    TooLarge,
    /// A part is smaller than allowed.
    #[error("a part that is not the last is smaller than 1 MB")]
    PartTooSmall,
    /// A part was not uploaded, or its ETag differs.
    #[error("a part was not uploaded, or its ETag is not the one given")]
    BadPart,
    /// Parts are not in order.
    #[error("the parts are not in ascending order")]
    PartOrder,
    /// A number is out of range.
    #[error("{0}")]
    BadArgument(&'static str),
    /// The body is not what its MD5 says.
    #[error("the Content-MD5 does not match the body")]
    BadDigest,
    /// A checksum or digest cannot be read.
    #[error("the Content-MD5 is malformed")]
    MalformedDigest,
    /// A checksum does not match.
    #[error("the {0} checksum does not match the body")]
    BadChecksum(&'static str),
    /// A signature within an `aws-chunked` body does not match.
    #[error("the signature of a chunk of the body does not match")]
    BadChunkSignature,
    /// The body ended early, or broke.
    #[error("the body ended before its stated length, or its transfer broke")]
    IncompleteBody,
    /// The body came too slowly.
    #[error("the body came too slowly")]
    SlowBody,
    /// No disk space.
    #[error("the store has no disk space left for this; delete something or try later")]
    DiskFull,
    /// Too many events wait to be delivered.
    #[error("too many notices of changes wait to be delivered; try again later")]
    OutboxFull,
    /// What is on disk is not what was put there.
    #[error("the stored object is damaged")]
    Corrupt,
    /// It cannot be done now.
    #[error("an internal error occurred; try again, the server's log says more")]
    Internal,
}

impl From<StoreError> for ObjectError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => Self::DiskFull,
            other => {
                tracing::error!(error = %other, "the object store's database");
                Self::Internal
            }
        }
    }
}

impl From<sqlx::Error> for ObjectError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

/// An error of the file system, logged here; clients learn no more than what they can act on.
pub(crate) fn io(doing: &'static str) -> impl Fn(std::io::Error) -> ObjectError {
    move |error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ObjectError::DiskFull,
        _ => {
            tracing::error!(%error, "cannot {doing}");
            ObjectError::Internal
        }
    }
}
