//! Remembers accepted v1 requests for as long as their timestamp would be accepted again.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// The v1 requests accepted lately.
///
/// Only requests whose signature was right are remembered, so only holders of a secret can fill it. When it is full
/// of requests that could still be repeated, it forgets those with the oldest timestamps and counts them
/// ([`ReplayGuard::forgotten`]) rather than refuse honest calls: replay protection is the second line (the first is
/// that nobody sees the traffic), and a full guard must not become an outage.
pub struct ReplayGuard {
    capacity: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    by_second: BTreeMap<u64, HashSet<u128>>,
    len: usize,
    forgotten: u64,
}

impl ReplayGuard {
    /// A guard that remembers at most `capacity` requests (about 30 bytes each); at least one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), seen: Mutex::default() }
    }

    /// Notes a request by its timestamp and its decoded signature. `false`: it was noted before.
    ///
    /// The signature is a MAC over secret id, timestamp and nonce among others, so its first 16 bytes stand for them.
    pub fn admit(&self, timestamp_s: u64, signature: &[u8], now_s: u64) -> bool {
        let mut mark = [0u8; 16];
        for (to, from) in mark.iter_mut().zip(signature) {
            *to = *from;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(second) = seen.by_second.first_entry()
            && second.key().saturating_add(crate::SKEW_S) < now_s
        {
            let gone = second.remove().len();
            seen.len -= gone;
        }
        if !seen.by_second.entry(timestamp_s).or_default().insert(u128::from_be_bytes(mark)) {
            return false;
        }
        seen.len += 1;
        while seen.len > self.capacity {
            let Some(mut oldest) = seen.by_second.first_entry() else { break };
            let own = u128::from_be_bytes(mark);
            let other = oldest.get().iter().copied().find(|m| *m != own);
            let gone = match other {
                // The second that the new one belongs to: make room beside it.
                Some(other) if *oldest.key() == timestamp_s => {
                    oldest.get_mut().remove(&other);
                    1
                }
                _ => oldest.remove().len(),
            };
            seen.len -= gone;
            seen.forgotten += gone as u64;
        }
        true
    }

    /// Requests held now.
    pub fn len(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len
    }

    /// True when none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Requests forgotten for lack of room while they could still be repeated, since the start. A metric to watch.
    pub fn forgotten(&self) -> u64 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_repeats_until_the_timestamp_is_dead() {
        let guard = ReplayGuard::new(10);
        assert!(guard.admit(1000, b"0123456789abcdefghij", 1000));
        assert!(!guard.admit(1000, b"0123456789abcdefghij", 1300));
        assert!(guard.admit(1000, b"other-signature-....", 1300));
        assert_eq!(guard.len(), 2);
        assert!(guard.admit(1301, b"third-signature-....", 1301));
        assert_eq!(guard.len(), 1, "what can no longer be repeated is dropped");
    }

    #[test]
    fn a_full_guard_forgets_the_oldest_and_says_so() {
        let guard = ReplayGuard::new(3);
        for i in 0..3u128 {
            assert!(guard.admit(1000 + i as u64, &i.to_be_bytes(), 1000));
        }
        assert!(guard.admit(1005, &9u128.to_be_bytes(), 1000));
        assert_eq!((guard.len(), guard.forgotten()), (3, 1));
        assert!(!guard.admit(1005, &9u128.to_be_bytes(), 1000));

        let one_second = ReplayGuard::new(3);
        for i in 0..100u128 {
            assert!(one_second.admit(1000, &i.to_be_bytes(), 1000));
            assert!(!one_second.admit(1000, &i.to_be_bytes(), 1000), "{i}: the newest is never the one forgotten");
        }
        assert_eq!((one_second.len(), one_second.forgotten()), (3, 97));

        let backwards = ReplayGuard::new(3);
        for i in 0..100u128 {
            assert!(backwards.admit(1200 - i as u64, &i.to_be_bytes(), 1000));
            assert!(backwards.len() <= 3);
        }
    }
}
