//! Digests that nothing refers to yet, because what will refer to them is still being written.

use mayfly_model::Digest;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Counts of guards by digest.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<HashMap<Digest, usize>>);

/// Keeps digests from being collected while it lives.
#[derive(Debug)]
pub struct UploadGuard {
    uploads: Arc<Uploads>,
    digests: Vec<Digest>,
}

impl Uploads {
    pub(super) fn protect(uploads: &Arc<Self>, digests: impl IntoIterator<Item = Digest>) -> UploadGuard {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut counts = uploads.0.lock();
        for digest in &digests {
            *counts.entry(*digest).or_default() += 1;
        }
        UploadGuard { uploads: uploads.clone(), digests }
    }

    pub(super) fn digests(&self) -> HashSet<Digest> {
        self.0.lock().keys().copied().collect()
    }
}

impl Drop for UploadGuard {
    fn drop(&mut self) {
        let mut counts = self.uploads.0.lock();
        for digest in &self.digests {
            if let Some(count) = counts.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(digest);
                }
            }
        }
    }
}
