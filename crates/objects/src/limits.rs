//! What bounds the store.

use std::time::Duration;

/// Limits of an object store. Sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most buckets. COS allows 200 an account.
    pub buckets_max: u64,
    /// Largest object, however it was put. COS: 48.82 TB; S3: 5 TB.
    pub object_bytes_max: u64,
    /// Largest body of one PUT or one part. COS and S3: 5 GB.
    pub put_bytes_max: u64,
    /// Smallest part that is not the last of its upload. COS: 1 MB, S3: 5 MiB; COS's is taken.
    pub part_bytes_min: u64,
    /// Most parts of an upload, and the largest part number.
    pub parts_max: u32,
    /// Most uploads that are neither completed nor aborted.
    pub uploads_max: u64,
    /// Longest key. COS: 850; S3: 1024.
    pub key_bytes_max: usize,
    /// All user metadata of an object, names and values. 2 KB in COS and S3.
    pub metadata_bytes_max: usize,
    /// Most tags of an object.
    pub tags_max: usize,
    /// Objects up to this size live in the database: one sync of the disk serves many of them.
    pub inline_bytes_max: usize,
    /// Disk space that is never taken. A request that would is answered 507.
    pub disk_free_min: u64,
    /// Notices that wait for whoever is called by changes; a change of a bucket with rules is refused (503) when there are more.
    pub outbox_max: u64,
    /// An upload that nobody completed is aborted when it is so old.
    pub upload_age_max: Duration,
    /// A body must bring [`Self::body_window_bytes_min`] in each span of this length.
    pub body_window: Duration,
    /// See [`Self::body_window`].
    pub body_window_bytes_min: u64,
    /// Requests at a time whose bodies are XML documents or forms, which are read into memory.
    pub documents_max: usize,
    /// Largest XML document.
    pub document_bytes_max: usize,
    /// Largest file in a form of a browser (POST policy); held in memory while it arrives.
    pub form_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            buckets_max: 1000,
            object_bytes_max: 5 << 40,
            put_bytes_max: 5 << 30,
            part_bytes_min: 1 << 20,
            parts_max: 10_000,
            uploads_max: 10_000,
            key_bytes_max: 1024,
            metadata_bytes_max: 2048,
            tags_max: 10,
            inline_bytes_max: 8 << 10,
            disk_free_min: 1 << 30,
            outbox_max: 1_000_000,
            upload_age_max: Duration::from_secs(7 * 86_400),
            body_window: Duration::from_secs(20),
            body_window_bytes_min: 16 << 10,
            documents_max: 32,
            document_bytes_max: 4 << 20,
            form_bytes_max: 16 << 20,
        }
    }
}
