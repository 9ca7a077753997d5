//! What was looked up lately, so that an object that is asked for often costs no question to the database.
//!
//! The writer takes an object out of here after its change is committed, before the change is acknowledged and before a file of it may go. A
//! look-up that began before that must not bring the old object back: it got a ticket when it began, which is of no use any more.

use crate::entry::{Content, Entry};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Parts of the cache with a lock each.
const SHARDS: usize = 16;
/// Most bytes of a shard's younger half: 8 MiB in all.
const HALF_BYTES_MAX: usize = 256 << 10;
/// An object that would take more than this is not kept: one of very many parts.
const ENTRY_BYTES_MAX: usize = 16 << 10;

/// The objects, by bucket and key.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

/// What is used again moves to the younger half; when that is full it becomes the older one, and what was in that goes.
#[derive(Debug, Default)]
struct Shard {
    generation: u64,
    young: HashMap<String, Arc<Entry>>,
    old: HashMap<String, Arc<Entry>>,
    young_bytes: usize,
}

/// The right to put in what is being looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

fn name(bucket: &str, key: &str) -> String {
    // No bucket's name has a slash.
    [bucket, "/", key].concat()
}

/// About what an object takes in memory.
fn weight(name: &str, entry: &Entry) -> usize {
    let content = match &entry.content {
        Content::Inline(bytes) => bytes.len(),
        Content::Files(slices) => slices.len() * 24,
    };
    let meta: usize = entry.headers.meta.iter().map(|(n, v)| n.len() + v.len() + 64).sum();
    let tags: usize = entry.tags.iter().map(|(n, v)| n.len() + v.len() + 64).sum();
    512 + name.len() + content + meta + tags + entry.parts.len() * 8
}

impl Shard {
    fn keep(&mut self, name: String, entry: Arc<Entry>) {
        let bytes = weight(&name, &entry);
        if bytes > ENTRY_BYTES_MAX {
            return;
        }
        if self.young_bytes + bytes > HALF_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(name, entry);
    }
}

impl Cache {
    fn shard(&self, name: &str) -> &Mutex<Shard> {
        let hash = usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).unwrap_or(0);
        &self.shards[hash]
    }

    /// The object, or the right to put it in once it is looked up.
    pub(crate) fn find(&self, bucket: &str, key: &str) -> Result<Arc<Entry>, Ticket> {
        let name = name(bucket, key);
        let mut shard = self.shard(&name).lock();
        if let Some(entry) = shard.young.get(&name) {
            return Ok(Arc::clone(entry));
        }
        let Some(entry) = shard.old.remove(&name) else { return Err(Ticket(shard.generation)) };
        shard.keep(name, Arc::clone(&entry));
        Ok(entry)
    }

    /// Puts in what was looked up, unless something has changed since.
    pub(crate) fn put(&self, ticket: Ticket, bucket: &str, key: &str, entry: &Entry) {
        let name = name(bucket, key);
        let mut shard = self.shard(&name).lock();
        if shard.generation == ticket.0 && !shard.young.contains_key(&name) {
            shard.keep(name, Arc::new(entry.clone()));
        }
    }

    /// The object has changed, or may have.
    pub(crate) fn forget(&self, bucket: &str, key: &str) {
        let name = name(bucket, key);
        let mut shard = self.shard(&name).lock();
        shard.generation += 1;
        if let Some(entry) = shard.young.remove(&name) {
            shard.young_bytes = shard.young_bytes.saturating_sub(weight(&name, &entry));
        }
        shard.old.remove(&name);
    }

    /// Everything may have changed.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            *shard = Shard { generation: shard.generation + 1, ..Shard::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Headers, Sums};

    fn entry(text: &str) -> Entry {
        Entry {
            size: text.len() as u64,
            etag: text.to_owned(),
            modified_ms: 0,
            headers: Headers::default(),
            tags: Vec::new(),
            sums: Sums::default(),
            parts: Vec::new(),
            content: Content::Inline(text.to_owned().into()),
            version: None,
        }
    }

    #[test]
    fn a_look_up_that_was_overtaken_brings_nothing_old_back() {
        let cache = Cache::default();
        let ticket = cache.find("b", "k").unwrap_err();
        cache.forget("b", "k");
        cache.put(ticket, "b", "k", &entry("old"));
        let ticket = cache.find("b", "k").unwrap_err();
        cache.put(ticket, "b", "k", &entry("new"));
        assert_eq!(cache.find("b", "k").unwrap().etag, "new");
        cache.forget("b", "k");
        assert!(cache.find("b", "k").is_err());
        let ticket = cache.find("b", "k").unwrap_err();
        cache.clear();
        cache.put(ticket, "b", "k", &entry("old"));
        assert!(cache.find("b", "k").is_err());
    }

    #[test]
    fn it_has_a_size_and_keeps_what_is_used() {
        let cache = Cache::default();
        let body = "x".repeat(8192);
        for n in 0..5000 {
            let key = n.to_string();
            if let Err(ticket) = cache.find("b", &key) {
                cache.put(ticket, "b", &key, &entry(&body));
            }
            match cache.find("b", "used") {
                Ok(_) => {}
                Err(ticket) => {
                    assert_eq!(n, 0, "what is used all the time stays");
                    cache.put(ticket, "b", "used", &entry("used"));
                }
            }
        }
        let held = |shard: &Mutex<Shard>| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        };
        let kept: usize = cache.shards.iter().map(held).sum();
        assert!(kept < 2 * SHARDS * HALF_BYTES_MAX / 8192, "{kept}");
    }
}
