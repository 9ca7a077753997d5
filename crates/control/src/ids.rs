//! Random numbers and ids, drawn in blocks so that the hot path makes no system call for them.

use mayfly_model::RequestId;
use std::cell::RefCell;

const BLOCK: usize = 512;

thread_local! {
    static POOL: RefCell<([u8; BLOCK], usize)> = const { RefCell::new(([0; BLOCK], BLOCK)) };
}

/// Bytes from the system's random generator.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= BLOCK) };
    POOL.with_borrow_mut(|(block, used)| {
        if *used + N > BLOCK {
            getrandom::fill(block).expect("the system's random generator works once the system is up");
            *used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&block[*used..*used + N]);
        // Bytes given out are not kept: a later leak of memory must not tell them.
        block[*used..*used + N].fill(0);
        *used += N;
        bytes
    })
}

/// A new request id.
pub fn request_id() -> RequestId {
    RequestId::from_random(random_bytes())
}

/// The id of a new trigger: 16 hexadecimal digits.
pub fn trigger_id() -> String {
    hex::encode(random_bytes::<8>())
}

/// A number that is uniform in [0, 1).
pub fn random_unit() -> f64 {
    (u64::from_le_bytes(random_bytes()) >> 11) as f64 / (1u64 << 53) as f64
}

/// A function id: `lam-` and eight of `a`–`z` and `0`–`9`.
pub fn function_id() -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut id = String::from("lam-");
    while id.len() < 12 {
        // 252 is the largest multiple of 36 in a byte: larger bytes would favour some letters.
        let [byte] = random_bytes::<1>();
        if byte < 252 {
            id.push(char::from(LETTERS[usize::from(byte % 36)]));
        }
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_form_and_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| function_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 12 && id.starts_with("lam-")));
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 1000);
        let mean = (0..1000).map(|_| random_unit()).sum::<f64>() / 1000.0;
        assert!((0.4..0.6).contains(&mean), "{mean}");
    }
}
