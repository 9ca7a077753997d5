//! Checksums of objects that were put in parts, from those of the parts: no byte is read again.

use crate::entry::Sums;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Sha1, Sha256};

/// Reflected polynomials.
const CRC32: u64 = 0xedb8_8320;
const CRC32C: u64 = 0x82f6_3b78;
const CRC64_NVME: u64 = 0x9a6c_9329_ac4b_c9b5;

/// Checksums of an object from size and checksums of each of its parts. With `full` CRCs are those of its bytes, else each is one of the parts'
/// checksums, with their number after a `-`. CRC-64/NVME is always of the bytes, the SHAs never are, as in S3. A kind that one of the parts
/// lacks is left out.
pub(crate) fn combined(parts: &[(u64, &Sums)], full: bool) -> Sums {
    let of = |pick: fn(&Sums) -> &Option<String>| -> Option<Vec<(u64, Vec<u8>)>> {
        let one = |(size, sums): &(u64, &Sums)| Some((*size, BASE64_STANDARD.decode(pick(sums).as_ref()?).ok()?));
        parts.iter().map(one).collect()
    };
    let joined = |sums: Vec<(u64, Vec<u8>)>, hasher: ChecksumHasher| {
        let mut hasher = hasher;
        for (_, sum) in &sums {
            hasher.update(sum);
        }
        hasher.finalize()
    };
    let count = parts.len();
    let numbered = |sum: Option<String>| sum.map(|sum| format!("{sum}-{count}"));
    let crc = |sums: Vec<(u64, Vec<u8>)>, polynomial, bytes: usize| {
        let number = |sum: &[u8]| sum.iter().fold(0, |n: u64, b| n << 8 | u64::from(*b));
        let all = sums.iter().fold(0, |all, (size, sum)| append(polynomial, all, number(sum), *size));
        BASE64_STANDARD.encode(&all.to_be_bytes()[8 - bytes..])
    };
    let none = ChecksumHasher::default;
    Sums {
        crc32: of(|s| &s.crc32).and_then(|sums| match full {
            true => Some(crc(sums, CRC32, 4)),
            false => numbered(joined(sums, ChecksumHasher { crc32: Some(Crc32::new()), ..none() }).checksum_crc32),
        }),
        crc32c: of(|s| &s.crc32c).and_then(|sums| match full {
            true => Some(crc(sums, CRC32C, 4)),
            false => numbered(joined(sums, ChecksumHasher { crc32c: Some(Crc32c::new()), ..none() }).checksum_crc32c),
        }),
        crc64nvme: of(|s| &s.crc64nvme).map(|sums| crc(sums, CRC64_NVME, 8)),
        sha1: of(|s| &s.sha1).and_then(|sums| {
            numbered(joined(sums, ChecksumHasher { sha1: Some(Sha1::new()), ..none() }).checksum_sha1)
        }),
        sha256: of(|s| &s.sha256).and_then(|sums| {
            numbered(joined(sums, ChecksumHasher { sha256: Some(Sha256::new()), ..none() }).checksum_sha256)
        }),
    }
}

/// The CRC of two pieces from the CRC of each: the first is carried over as many zero bytes as the second has, by powers of the matrix that
/// carries it over one bit.
fn append(polynomial: u64, first: u64, second: u64, second_bytes: u64) -> u64 {
    let mut step = [0; 64];
    step[0] = polynomial;
    for (bit, row) in step.iter_mut().enumerate().skip(1) {
        *row = 1 << (bit - 1);
    }
    // One bit, two, four, eight: a byte.
    for _ in 0..3 {
        step = squared(&step);
    }
    let (mut carried, mut left) = (first, second_bytes);
    while left > 0 {
        if left & 1 == 1 {
            carried = times(&step, carried);
        }
        left >>= 1;
        step = squared(&step);
    }
    carried ^ second
}

fn times(matrix: &[u64; 64], vector: u64) -> u64 {
    (0..64).filter(|bit| vector >> bit & 1 == 1).fold(0, |sum, bit| sum ^ matrix[bit])
}

fn squared(matrix: &[u64; 64]) -> [u64; 64] {
    matrix.map(|row| times(matrix, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use s3s::crypto::Crc64Nvme;

    fn sums(bytes: &[u8]) -> Sums {
        let mut hasher = ChecksumHasher {
            crc32: Some(Crc32::new()),
            crc32c: Some(Crc32c::new()),
            crc64nvme: Some(Crc64Nvme::new()),
            sha1: Some(Sha1::new()),
            sha256: Some(Sha256::new()),
        };
        hasher.update(bytes);
        let found = hasher.finalize();
        Sums {
            crc32: found.checksum_crc32,
            crc32c: found.checksum_crc32c,
            crc64nvme: found.checksum_crc64nvme,
            sha1: found.checksum_sha1,
            sha256: found.checksum_sha256,
        }
    }

    #[test]
    fn crcs_of_parts_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        for cuts in [&[1][..], &[5, 70_000], &[0, 99_999], &[33_333, 66_666]] {
            let mut pieces = Vec::new();
            let mut from = 0;
            for to in cuts.iter().copied().chain([bytes.len()]) {
                pieces.push(&bytes[from..to]);
                from = to;
            }
            let each: Vec<Sums> = pieces.iter().map(|p| sums(p)).collect();
            let parts: Vec<(u64, &Sums)> = pieces.iter().map(|p| p.len() as u64).zip(&each).collect();
            let (whole, full, composite) = (sums(&bytes), combined(&parts, true), combined(&parts, false));
            assert_eq!((full.crc32, full.crc32c), (whole.crc32, whole.crc32c), "{cuts:?}");
            assert_eq!((&full.crc64nvme, &composite.crc64nvme), (&whole.crc64nvme, &whole.crc64nvme), "{cuts:?}");
            let raw: Vec<u8> =
                each.iter().flat_map(|s| BASE64_STANDARD.decode(s.sha256.as_ref().unwrap()).unwrap()).collect();
            let expected = format!("{}-{}", sums(&raw).sha256.unwrap(), pieces.len());
            assert_eq!((full.sha256.as_ref(), composite.sha256.as_ref()), (Some(&expected), Some(&expected)));
            assert!(composite.crc32.unwrap().ends_with(&format!("-{}", pieces.len())));
        }
        let lacking = Sums { crc32: None, ..sums(b"a") };
        assert_eq!(combined(&[(1, &lacking), (1, &sums(b"b"))], true).crc32, None);
    }
}
