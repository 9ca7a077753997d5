//! The index beside a segment: one entry of fixed size for each line.

use mayfly_model::InvocationRecord;

/// First bytes of an index file, with the version of its form.
pub(super) const HEADER: [u8; 16] = *b"mayfly-log-idx\x00\x01";
/// Size of an entry, in bytes.
pub(super) const ENTRY_BYTES: usize = 64;
/// Longest line that is read back: 1 MiB of output, every byte escaped, and the rest of the record.
pub(super) const LINE_BYTES_MAX: u32 = 16 << 20;

/// Where a line is, and what queries filter and sort by. Names are kept as hashes: enough to skip lines, and checked against the
/// line before it is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where the line begins.
    pub offset: u32,
    /// Its length with the newline, in bytes.
    pub bytes: u32,
    /// Low half of the request id.
    pub request: u64,
    pub start_ms: u64,
    pub function: u64,
    pub namespace: u64,
    /// In microseconds; the largest number when it is longer than that (71 minutes).
    pub duration_us: u32,
    pub memory_kib: u32,
    pub version: u32,
    pub qualifier: u32,
    pub status: u16,
}

/// A function, by the hashes in its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FunctionHash {
    namespace: u64,
    function: u64,
}

impl Entry {
    pub fn of(record: &InvocationRecord, offset: u32, bytes: u32) -> Self {
        Self {
            offset,
            bytes,
            request: low_half(record.request_id.0),
            start_ms: record.start_ms,
            function: name_hash(&[&record.function]),
            namespace: name_hash(&[&record.namespace]),
            duration_us: u32::try_from(record.duration_us).unwrap_or(u32::MAX),
            memory_kib: u32::try_from(record.memory_bytes >> 10).unwrap_or(u32::MAX),
            version: short_hash(&record.version),
            qualifier: short_hash(&record.qualifier),
            status: record.status.0,
        }
    }

    pub fn function_hash(&self) -> FunctionHash {
        FunctionHash { namespace: self.namespace, function: self.function }
    }

    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.bytes)
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        for v in [self.offset, self.bytes] {
            out.extend(v.to_le_bytes());
        }
        for v in [self.request, self.start_ms, self.function, self.namespace] {
            out.extend(v.to_le_bytes());
        }
        // The last word has room for a field to come.
        for v in [self.duration_us, self.memory_kib, self.version, self.qualifier, u32::from(self.status), 0] {
            out.extend(v.to_le_bytes());
        }
    }

    /// Reads an entry of [`ENTRY_BYTES`].
    pub fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        Self {
            offset: u32_at(0),
            bytes: u32_at(4),
            request: u64_at(8),
            start_ms: u64_at(16),
            function: u64_at(24),
            namespace: u64_at(32),
            duration_us: u32_at(40),
            memory_kib: u32_at(44),
            version: u32_at(48),
            qualifier: u32_at(52),
            // Only the low half of the word is ever set.
            status: u32_at(56) as u16,
        }
    }
}

/// FNV-1a over the names, each ended by a zero byte. Written to disk: it must never change under one [`HEADER`].
pub(super) fn name_hash(names: &[&str]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for name in names {
        for byte in name.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// A hash of a version or alias.
pub(super) fn short_hash(name: &str) -> u32 {
    let hash = name_hash(&[name]);
    (hash >> 32) as u32 ^ hash as u32
}

/// The part of a request id that is random in full.
pub(super) fn low_half(id: u128) -> u64 {
    id as u64
}
