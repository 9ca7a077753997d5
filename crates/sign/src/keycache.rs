//! Derived TC3 signing keys, kept so that a warm verification skips the derivation.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// HMAC-SHA256 with its key already mixed in.
pub(crate) type KeyedMac = Hmac<Sha256>;

/// A bounded cache of signing keys by credential scope (`secretId/date/service`).
///
/// Two generations: entries go to the young one; when that is full it becomes the old one, and what was old is
/// forgotten. So at most twice the capacity is held, and yesterday's scopes leave by themselves. Only scopes whose
/// signature was right are put in, so nobody without a secret can push entries out.
pub struct KeyCache {
    capacity: usize,
    generations: RwLock<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, Entry>,
    old: HashMap<Box<str>, Entry>,
}

#[derive(Clone)]
struct Entry {
    // Kept to notice that a secret was changed under the same id.
    secret_key: Arc<str>,
    mac: KeyedMac,
}

impl KeyCache {
    /// A cache that holds at most `2 × capacity` keys (about 500 bytes each). 0 holds none.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, generations: RwLock::default() }
    }

    /// The keyed MAC of `scope` under `secret_key`, if it is known.
    pub(crate) fn get(&self, scope: &str, secret_key: &Arc<str>) -> Option<KeyedMac> {
        let entry = {
            let held = self.generations.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(entry) = held.young.get(scope) {
                return entry.is_of(secret_key).then(|| entry.mac.clone());
            }
            held.old.get(scope).filter(|e| e.is_of(secret_key))?.clone()
        };
        let mac = entry.mac.clone();
        self.insert(scope, entry);
        Some(mac)
    }

    /// Remembers the key of a scope that has just been proven.
    pub(crate) fn put(&self, scope: &str, secret_key: &Arc<str>, mac: KeyedMac) {
        self.insert(scope, Entry { secret_key: secret_key.clone(), mac });
    }

    fn insert(&self, scope: &str, entry: Entry) {
        if self.capacity == 0 {
            return;
        }
        let mut held = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if held.young.len() >= self.capacity && !held.young.contains_key(scope) {
            held.old = mem::take(&mut held.young);
        }
        held.young.insert(scope.into(), entry);
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        let held = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        held.young.len() + held.old.len()
    }

    /// True when no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Entry {
    fn is_of(&self, secret_key: &Arc<str>) -> bool {
        Arc::ptr_eq(&self.secret_key, secret_key) || bool::from(self.secret_key.as_bytes().ct_eq(secret_key.as_bytes()))
    }
}

/// Derives the signing key: HMAC of the date under `"TC3" + secret`, of the service under that, of `tc3_request`
/// under that.
pub(crate) fn derive(secret_key: &str, date: &str, service: &str) -> KeyedMac {
    let mut first = Vec::with_capacity(3 + secret_key.len());
    first.extend_from_slice(b"TC3");
    first.extend_from_slice(secret_key.as_bytes());
    let mut mac = keyed(&first);
    for step in [date, service, "tc3_request"] {
        mac.update(step.as_bytes());
        mac = keyed(&mac.finalize().into_bytes());
    }
    mac
}

fn keyed(key: &[u8]) -> KeyedMac {
    KeyedMac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_aware_of_changed_secrets() {
        let cache = KeyCache::new(4);
        let secret: Arc<str> = "s".into();
        for i in 0..100 {
            cache.put(&format!("id/{i}/scf"), &secret, derive("s", "d", "scf"));
            assert!(cache.len() <= 8);
        }
        assert!(cache.get("id/99/scf", &secret).is_some());
        assert!(cache.get("id/99/scf", &"s".into()).is_some(), "an equal secret of another allocation");
        assert!(cache.get("id/99/scf", &"other".into()).is_none());
        assert!(cache.get("id/0/scf", &secret).is_none(), "forgotten");
    }

    #[test]
    fn used_entries_survive_a_generation() {
        let cache = KeyCache::new(2);
        let secret: Arc<str> = "s".into();
        cache.put("hot", &secret, derive("s", "d", "scf"));
        for i in 0..50 {
            cache.put(&format!("cold{i}"), &secret, derive("s", "d", "scf"));
            assert!(cache.get("hot", &secret).is_some(), "{i}");
        }
    }
}
