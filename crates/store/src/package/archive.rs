//! The zip format: from bytes to the list of entries in the central directory (APPNOTE 6.3.10, sections 4.3 and 4.5).

use super::error::{PackageError, shown};

const END: u32 = 0x0605_4b50;
const END_BYTES: usize = 22;
const END64: u32 = 0x0606_4b50;
const END64_BYTES: usize = 56;
const LOCATOR64: u32 = 0x0706_4b50;
const LOCATOR64_BYTES: usize = 20;
const CENTRAL: u32 = 0x0201_4b50;
const CENTRAL_BYTES: usize = 46;
const LOCAL: u32 = 0x0403_4b50;
const LOCAL_BYTES: usize = 30;
const COMMENT_BYTES_MAX: usize = 0xffff;
const EXTRA_ZIP64: u16 = 1;

/// How the data of an entry are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// One entry of the central directory, with its data located. Borrows everything from the archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    /// The name as it is in the archive.
    pub name: &'a [u8],
    pub method: Method,
    pub crc: u32,
    /// Stated size of the unpacked data.
    pub size: u64,
    /// The packed data.
    pub data: &'a [u8],
    /// File type and permissions, when the archive was made on a Unix system.
    pub unix_mode: Option<u32>,
    /// Where the entry begins, and where its data end, in the archive.
    span: (usize, usize),
}

/// Reads fields of fixed size; `None` past the end.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.bytes.split_at_checked(count)?;
        self.bytes = tail;
        Some(head)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

/// Where the central directory is.
struct Directory<'a> {
    bytes: &'a [u8],
    count: u64,
    /// Bytes before the archive proper (a `#!` line, for example); offsets in the archive count from behind them.
    prefix: usize,
    /// Data of entries end before this.
    start: usize,
}

/// Lists the entries. Their number and places are checked; names and data are not.
pub(super) fn entries(zip: &[u8], entries_max: usize) -> Result<Vec<Entry<'_>>, PackageError> {
    if zip.is_empty() {
        return Err(PackageError::Empty);
    }
    let directory = find_directory(zip)?;
    if directory.count == 0 {
        return Err(PackageError::NoEntries);
    }
    let count = usize::try_from(directory.count)
        .ok()
        .filter(|count| *count <= entries_max)
        .ok_or(PackageError::TooManyEntries { max: entries_max })?;
    // Each entry takes its header at least: a stated number alone reserves no memory.
    if count > directory.bytes.len() / CENTRAL_BYTES {
        return Err(PackageError::NotAZip("the central directory is too short"));
    }
    let mut reader = Reader { bytes: directory.bytes };
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(central_entry(zip, &directory, &mut reader)?);
    }
    if !reader.bytes.is_empty() {
        return Err(PackageError::NotAZip("the central directory has more entries than it states"));
    }
    refuse_overlaps(&entries)?;
    Ok(entries)
}

fn find_directory(zip: &[u8]) -> Result<Directory<'_>, PackageError> {
    let bad = PackageError::NotAZip;
    let end_at = find_end(zip).ok_or(bad("there is no end-of-archive record"))?;
    let mut end = Reader { bytes: &zip[end_at + 4..] };
    let mut fields = || Some((end.u16()?, end.u16()?, end.u16()?, end.u16()?, end.u32()?, end.u32()?));
    let (disk, directory_disk, count_here, count, size, offset) = fields().ok_or(bad("the end record is cut"))?;
    let (mut count, mut size, mut offset) = (u64::from(count), u64::from(size), u64::from(offset));
    let mut directory_end = end_at;
    if let Some((end64_at, record)) = find_end64(zip, end_at) {
        let mut record = Reader { bytes: record };
        let mut fields = || {
            record.take(16)?;
            Some((record.u32()?, record.u32()?, record.u64()?, record.u64()?, record.u64()?, record.u64()?))
        };
        let (disk, directory_disk, here, all, size64, offset64) = fields().ok_or(bad("the zip64 record is cut"))?;
        if disk != 0 || directory_disk != 0 || here != all {
            return Err(bad("archives in several parts are not supported"));
        }
        (count, size, offset) = (all, size64, offset64);
        directory_end = end64_at;
    } else if disk != 0 || directory_disk != 0 || u64::from(count_here) != count {
        return Err(bad("archives in several parts are not supported"));
    }
    let cut = || bad("the central directory is not where the archive says");
    let size = usize::try_from(size).map_err(|_| cut())?;
    let offset = usize::try_from(offset).map_err(|_| cut())?;
    let start = directory_end.checked_sub(size).ok_or_else(cut)?;
    let prefix = start.checked_sub(offset).ok_or_else(cut)?;
    Ok(Directory { bytes: &zip[start..directory_end], count, prefix, start })
}

/// The end record is the last thing in the file but for its comment, whose length it states.
fn find_end(zip: &[u8]) -> Option<usize> {
    let last = zip.len().checked_sub(END_BYTES)?;
    let first = last.saturating_sub(COMMENT_BYTES_MAX);
    (first..=last).rev().find(|&at| {
        let comment = u16::from_le_bytes([zip[at + 20], zip[at + 21]]);
        zip[at..at + 4] == END.to_le_bytes() && at + END_BYTES + usize::from(comment) == zip.len()
    })
}

/// The zip64 record and its place, when a locator stands right before the end record.
fn find_end64(zip: &[u8], end_at: usize) -> Option<(usize, &[u8])> {
    let locator_at = end_at.checked_sub(LOCATOR64_BYTES)?;
    if zip[locator_at..locator_at + 4] != LOCATOR64.to_le_bytes() {
        return None;
    }
    let mut locator = Reader { bytes: &zip[locator_at + 8..] };
    let stated = usize::try_from(locator.u64()?).ok();
    // With bytes before the archive the stated place is off; without extensions the record ends where the locator begins.
    [stated, locator_at.checked_sub(END64_BYTES)].into_iter().flatten().find_map(|at| {
        let record = zip.get(at..locator_at)?;
        (record.len() >= END64_BYTES && record[..4] == END64.to_le_bytes()).then_some((at, record))
    })
}

fn central_entry<'a>(
    zip: &'a [u8],
    directory: &Directory<'a>,
    reader: &mut Reader<'a>,
) -> Result<Entry<'a>, PackageError> {
    let cut = || PackageError::NotAZip("the central directory is cut");
    let mut header = Reader { bytes: reader.take(CENTRAL_BYTES).ok_or_else(cut)? };
    if header.u32() != Some(CENTRAL) {
        return Err(PackageError::NotAZip("the central directory is damaged"));
    }
    let mut fields = || {
        let made_by = header.u16()?;
        header.take(2)?;
        let (flags, method) = (header.u16()?, header.u16()?);
        header.take(4)?;
        let (crc, packed, size) = (header.u32()?, header.u32()?, header.u32()?);
        let (name, extra, comment) = (header.u16()?, header.u16()?, header.u16()?);
        header.take(4)?;
        let (attributes, offset) = (header.u32()?, header.u32()?);
        Some((made_by, flags, method, crc, packed, size, name, extra, comment, attributes, offset))
    };
    let (made_by, flags, method, crc, packed, size, name, extra, comment, attributes, offset) =
        fields().ok_or_else(cut)?;
    let name = reader.take(name.into()).ok_or_else(cut)?;
    let extra = reader.take(extra.into()).ok_or_else(cut)?;
    reader.take(comment.into()).ok_or_else(cut)?;
    let malformed = |why| PackageError::Malformed { entry: shown(name), why };
    let (size, packed, offset) =
        zip64_sizes(extra, size, packed, offset).ok_or_else(|| malformed("its zip64 sizes are missing"))?;
    // Bit 0: encrypted; bit 6: strong encryption; bit 13: headers are masked.
    if flags & (1 | 1 << 6 | 1 << 13) != 0 {
        return Err(PackageError::Encrypted { entry: shown(name) });
    }
    // Bit 5: the data are a patch.
    if flags & 1 << 5 != 0 {
        return Err(malformed("it holds patch data"));
    }
    let method_kind = match method {
        0 => Method::Stored,
        8 => Method::Deflated,
        _ => return Err(PackageError::UnsupportedCompression { entry: shown(name), method }),
    };
    let (at, data_at) = local_header(zip, directory, offset, name, method)
        .ok_or_else(|| malformed("its header is missing, or disagrees with the central directory"))?;
    let data_end = usize::try_from(packed)
        .ok()
        .and_then(|packed| data_at.checked_add(packed))
        .filter(|end| *end <= directory.start)
        .ok_or_else(|| malformed("its data are cut"))?;
    // The upper byte says which system's attributes these are: 3 is Unix, 19 is Darwin.
    let unix = matches!(made_by >> 8, 3 | 19);
    let unix_mode = (unix && attributes >> 16 != 0).then_some(attributes >> 16);
    Ok(Entry { name, method: method_kind, crc, size, data: &zip[data_at..data_end], unix_mode, span: (at, data_end) })
}

/// Sizes and offset (unpacked, packed, offset) with those that did not fit in 32 bits taken from the zip64 field.
fn zip64_sizes(extra: &[u8], size: u32, packed: u32, offset: u32) -> Option<(u64, u64, u64)> {
    let narrow = [size, packed, offset];
    let mut wide = narrow.map(u64::from);
    if narrow.iter().all(|v| *v != u32::MAX) {
        return Some((wide[0], wide[1], wide[2]));
    }
    let mut extra = Reader { bytes: extra };
    loop {
        let (id, length) = (extra.u16()?, extra.u16()?);
        let mut field = Reader { bytes: extra.take(length.into())? };
        if id != EXTRA_ZIP64 {
            continue;
        }
        for (narrow, wide) in narrow.into_iter().zip(&mut wide) {
            if narrow == u32::MAX {
                *wide = field.u64()?;
            }
        }
        return Some((wide[0], wide[1], wide[2]));
    }
}

/// Where an entry begins, and where its data do. `None` unless a local header of this name and method is there.
fn local_header(
    zip: &[u8],
    directory: &Directory<'_>,
    offset: u64,
    name: &[u8],
    method: u16,
) -> Option<(usize, usize)> {
    let at = usize::try_from(offset).ok()?.checked_add(directory.prefix)?;
    let mut local = Reader { bytes: zip.get(at..directory.start)? };
    if local.u32()? != LOCAL {
        return None;
    }
    local.take(4)?;
    let local_method = local.u16()?;
    local.take(16)?;
    let (name_bytes, extra_bytes) = (usize::from(local.u16()?), usize::from(local.u16()?));
    (local_method == method && local.take(name_bytes)? == name).then_some(())?;
    local.take(extra_bytes)?;
    Some((at, at + LOCAL_BYTES + name_bytes + extra_bytes))
}

fn refuse_overlaps(entries: &[Entry<'_>]) -> Result<(), PackageError> {
    let mut order: Vec<&Entry<'_>> = entries.iter().collect();
    order.sort_unstable_by_key(|entry| entry.span);
    match order.windows(2).find(|pair| pair[0].span.1 > pair[1].span.0) {
        Some(pair) => Err(PackageError::Overlap { entry: shown(pair[1].name) }),
        None => Ok(()),
    }
}
