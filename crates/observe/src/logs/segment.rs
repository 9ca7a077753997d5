//! Segments on disk: what there is, reading from them, and repairing them after a crash.

use super::LogError;
use super::index::{ENTRY_BYTES, Entry, FunctionHash, HEADER, LINE_BYTES_MAX};
use super::time::SegmentKey;
use mayfly_model::InvocationRecord;
use parking_lot::RwLock;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Extension of files that are being written to replace others.
const TEMP: &str = "tmp";

/// A file that is only appended to, and cut back after a failed write.
pub(super) trait AppendFile: Send {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn cut(&mut self, length: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// The writer's way to the disk; the seam for tests that let it fail.
pub(super) trait Disk: Send {
    /// Opens a file for appending, makes it where absent (mode 0600).
    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>>;
}

pub(super) struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn AppendFile>> {
        Ok(Box::new(fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?))
    }
}

impl AppendFile for fs::File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// One segment. The numbers only cover what is in both files.
#[derive(Debug)]
pub(super) struct Segment {
    pub key: SegmentKey,
    lines_path: PathBuf,
    index_path: PathBuf,
    /// Held for writing while both files are replaced, so that readers open two that belong together.
    files: RwLock<()>,
    lines_bytes: AtomicU64,
    records: AtomicU64,
    /// Earliest and latest start of its records; `(MAX, 0)` until they are known.
    first_start_ms: AtomicU64,
    last_start_ms: AtomicU64,
}

impl Segment {
    fn new(dir: &Path, key: SegmentKey, lines_bytes: u64, records: u64) -> Self {
        Self {
            key,
            lines_path: dir.join(format!("{key}.jsonl")),
            index_path: dir.join(format!("{key}.idx")),
            files: RwLock::new(()),
            lines_bytes: AtomicU64::new(lines_bytes),
            records: AtomicU64::new(records),
            first_start_ms: AtomicU64::new(u64::MAX),
            last_start_ms: AtomicU64::new(0),
        }
    }

    pub fn lines_path(&self) -> &Path {
        &self.lines_path
    }

    pub fn index_path(&self) -> &Path {
        &self.index_path
    }

    pub fn lines_bytes(&self) -> u64 {
        self.lines_bytes.load(Ordering::Acquire)
    }

    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    pub fn index_bytes(&self) -> u64 {
        HEADER.len() as u64 + self.records() * ENTRY_BYTES as u64
    }

    /// Makes appended lines visible. Only the writer calls it.
    pub fn grow(&self, bytes: u64, entries: &[Entry]) {
        for entry in entries {
            self.first_start_ms.fetch_min(entry.start_ms, Ordering::Relaxed);
            self.last_start_ms.fetch_max(entry.start_ms, Ordering::Relaxed);
        }
        self.lines_bytes.fetch_add(bytes, Ordering::Release);
        self.records.fetch_add(entries.len() as u64, Ordering::Release);
    }

    /// True when no record started in this range (both ends included). A segment that was never read may hold anything.
    pub fn misses(&self, from_ms: u64, to_ms: u64) -> bool {
        let (first, last) = self.start_range();
        first <= last && (last < from_ms || first > to_ms)
    }

    fn start_range(&self) -> (u64, u64) {
        (self.first_start_ms.load(Ordering::Relaxed), self.last_start_ms.load(Ordering::Relaxed))
    }

    /// Opens the segment for reading. `None`: it was removed meanwhile.
    pub fn reader(&self) -> io::Result<Option<SegmentReader>> {
        let open = |path| match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        };
        let _together = self.files.read();
        Ok(match (open(&self.lines_path)?, open(&self.index_path)?) {
            (Some(lines), Some(index)) => Some(SegmentReader { lines, index, records: self.records() }),
            _ => None,
        })
    }

    /// Writes the segment anew without the records of one function, and answers how many bytes that freed. Only for segments that
    /// are not written to any more. Cursors into it lose their meaning; those of followers are in the newest segment.
    pub fn strip(&self, function: FunctionHash) -> io::Result<u64> {
        let Some(reader) = self.reader()? else { return Ok(0) };
        let paths = ["jsonl", "idx"].map(|kind| self.lines_path.with_extension(format!("{kind}.{TEMP}")));
        let create = |path| fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        let (mut lines, mut index) = (BufWriter::new(create(&paths[0])?), BufWriter::new(create(&paths[1])?));
        index.write_all(&HEADER)?;
        let (mut records, mut bytes, mut line, mut packed) = (0, 0u32, Vec::new(), Vec::new());
        reader.entries(0, reader.records, |_, entry| {
            if entry.function_hash() != function && reader.line(&entry, &mut line)? {
                packed.clear();
                Entry { offset: bytes, ..entry }.write(&mut packed);
                lines.write_all(&line)?;
                index.write_all(&packed)?;
                // The lines are a part of those that were addressed by 32 bits.
                bytes += entry.bytes;
                records += 1;
            }
            Ok(true)
        })?;
        for file in [lines, index] {
            file.into_inner()?.sync_data()?;
        }
        let before = self.lines_bytes() + self.index_bytes();
        let _alone = self.files.write();
        // Without an index the lines speak for themselves, should the process end between these steps.
        fs::remove_file(&self.index_path)?;
        fs::rename(&paths[0], &self.lines_path)?;
        fs::rename(&paths[1], &self.index_path)?;
        self.records.store(records, Ordering::Release);
        self.lines_bytes.store(bytes.into(), Ordering::Release);
        Ok(before.saturating_sub(self.lines_bytes() + self.index_bytes()))
    }

    /// Notes the earliest and latest start that a reader of the whole index saw, so that later queries may skip the segment.
    pub fn learn_range(&self, first: u64, last: u64) {
        self.first_start_ms.fetch_min(first, Ordering::Relaxed);
        self.last_start_ms.fetch_max(last, Ordering::Relaxed);
    }

    pub fn range_is_known(&self) -> bool {
        let (first, last) = self.start_range();
        first <= last
    }
}

/// Open files of a segment.
pub(super) struct SegmentReader {
    lines: fs::File,
    index: fs::File,
    /// Records in it when it was opened.
    pub records: u64,
}

impl SegmentReader {
    /// Calls `each` with every entry from number `first` up to (not including) `end`, until it answers `false`.
    pub fn entries(
        &self,
        first: u64,
        end: u64,
        mut each: impl FnMut(u64, Entry) -> io::Result<bool>,
    ) -> io::Result<()> {
        const CHUNK_ENTRIES: u64 = 1024;
        let mut buffer = vec![0; CHUNK_ENTRIES as usize * ENTRY_BYTES];
        let mut number = first;
        while number < end {
            let count = CHUNK_ENTRIES.min(end - number) as usize;
            let chunk = &mut buffer[..count * ENTRY_BYTES];
            self.index.read_exact_at(chunk, HEADER.len() as u64 + number * ENTRY_BYTES as u64)?;
            let (entries, _) = chunk.as_chunks::<ENTRY_BYTES>();
            for entry in entries {
                if !each(number, Entry::read(entry))? {
                    return Ok(());
                }
                number += 1;
            }
        }
        Ok(())
    }

    /// The line of an entry, into `line`. False when the entry cannot be right.
    pub fn line(&self, entry: &Entry, line: &mut Vec<u8>) -> io::Result<bool> {
        if entry.bytes > LINE_BYTES_MAX {
            return Ok(false);
        }
        line.resize(entry.bytes as usize, 0);
        match self.lines.read_exact_at(line, entry.offset.into()) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// The record of an entry. `None` when the line is damaged.
    pub fn record(&self, entry: &Entry, line: &mut Vec<u8>) -> io::Result<Option<InvocationRecord>> {
        Ok(if self.line(entry, line)? { serde_json::from_slice(line).ok() } else { None })
    }
}

/// All segments, oldest first.
pub(super) struct Segments {
    pub dir: PathBuf,
    list: RwLock<Vec<Arc<Segment>>>,
}

impl Segments {
    /// Finds the segments in `dir` and repairs those that a crash left in disorder.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let io = LogError::io("open the log store");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(&io)?;
        let mut keys = Vec::new();
        for file in fs::read_dir(dir).map_err(&io)? {
            let path = file.map_err(&io)?.path();
            if path.extension().is_some_and(|extension| extension == TEMP) {
                fs::remove_file(&path).map_err(&io)?;
                continue;
            }
            let Some(key) = path.file_stem().and_then(|stem| stem.to_str()).and_then(SegmentKey::parse) else {
                continue;
            };
            match path.extension().and_then(|e| e.to_str()) {
                Some("jsonl") => keys.push(key),
                // An index without lines: its segment was being removed.
                Some("idx") if !path.with_extension("jsonl").exists() => fs::remove_file(&path).map_err(&io)?,
                _ => {}
            }
        }
        keys.sort_unstable();
        let list = keys.into_iter().map(|key| open_segment(dir, key).map(Arc::new)).collect::<io::Result<_>>();
        Ok(Self { dir: dir.to_owned(), list: RwLock::new(list.map_err(LogError::io("repair the log store"))?) })
    }

    pub fn snapshot(&self) -> Vec<Arc<Segment>> {
        self.list.read().clone()
    }

    pub fn newest(&self) -> Option<Arc<Segment>> {
        self.list.read().last().cloned()
    }

    /// Adds an empty segment behind all others.
    pub fn add(&self, key: SegmentKey) -> Arc<Segment> {
        let segment = Arc::new(Segment::new(&self.dir, key, 0, 0));
        self.list.write().push(Arc::clone(&segment));
        segment
    }

    /// Takes the oldest segment off the list and removes its files. Readers that have them open go on.
    pub fn remove_oldest(&self) -> io::Result<()> {
        let oldest = {
            let mut list = self.list.write();
            if list.is_empty() {
                return Ok(());
            }
            list.remove(0)
        };
        for path in [&oldest.lines_path, &oldest.index_path] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn open_segment(dir: &Path, key: SegmentKey) -> io::Result<Segment> {
    let mut segment = Segment::new(dir, key, 0, 0);
    let lines_bytes = fs::metadata(&segment.lines_path)?.len();
    let indexed = indexed_part(&segment, lines_bytes)?;
    if indexed.end < lines_bytes || !indexed.is_clean {
        let added = reindex(&segment, &indexed)?;
        segment.lines_bytes = AtomicU64::new(added.end);
        segment.records = AtomicU64::new(added.records);
    } else {
        segment.lines_bytes = AtomicU64::new(lines_bytes);
        segment.records = AtomicU64::new(indexed.records);
    }
    Ok(segment)
}

/// The part of a segment that its index covers.
struct Indexed {
    records: u64,
    /// Where the last indexed line ends.
    end: u64,
    /// False when the index has more than that.
    is_clean: bool,
}

fn indexed_part(segment: &Segment, lines_bytes: u64) -> io::Result<Indexed> {
    let nothing = Indexed { records: 0, end: 0, is_clean: false };
    let index = match fs::File::open(&segment.index_path) {
        Ok(index) => index,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing),
        Err(error) => return Err(error),
    };
    let mut header = [0; HEADER.len()];
    let length = index.metadata()?.len();
    if length < HEADER.len() as u64 || index.read_exact_at(&mut header, 0).is_err() || header != HEADER {
        return Ok(nothing);
    }
    let stored = (length - HEADER.len() as u64) / ENTRY_BYTES as u64;
    let lines = fs::File::open(&segment.lines_path)?;
    // Usually the last entry fits. After a power failure the index may be ahead of the lines: step back to where both agree.
    for records in (1..=stored).rev() {
        let mut entry = [0; ENTRY_BYTES];
        index.read_exact_at(&mut entry, HEADER.len() as u64 + (records - 1) * ENTRY_BYTES as u64)?;
        let end = Entry::read(&entry).end();
        let mut last = [0];
        if end > 0 && end <= lines_bytes && lines.read_exact_at(&mut last, end - 1).is_ok() && last == *b"\n" {
            let is_clean = length == HEADER.len() as u64 + records * ENTRY_BYTES as u64;
            return Ok(Indexed { records, end, is_clean });
        }
    }
    Ok(Indexed { records: 0, end: 0, is_clean: length == HEADER.len() as u64 })
}

/// Indexes the lines behind the indexed part, and cuts off what is no whole line at the end.
fn reindex(segment: &Segment, indexed: &Indexed) -> io::Result<Indexed> {
    let lines = fs::OpenOptions::new().read(true).write(true).open(&segment.lines_path)?;
    let mut index =
        fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&segment.index_path)?;
    let index_end = HEADER.len() as u64 + indexed.records * ENTRY_BYTES as u64;
    index.set_len(index_end)?;
    index.write_all_at(&HEADER, 0)?;
    index.seek(SeekFrom::Start(index_end))?;
    let mut index = BufWriter::new(index);
    let mut reader = BufReader::with_capacity(256 << 10, &lines);
    reader.seek(SeekFrom::Start(indexed.end))?;
    let (mut records, mut end) = (indexed.records, indexed.end);
    let (mut line, mut packed) = (Vec::new(), Vec::with_capacity(ENTRY_BYTES));
    loop {
        line.clear();
        let count = (&mut reader).take(LINE_BYTES_MAX.into()).read_until(b'\n', &mut line)?;
        if count == 0 || line.last() != Some(&b'\n') {
            break;
        }
        let at = end;
        end += count as u64;
        // A damaged line in the middle is skipped: it gets no entry, and the lines behind it do.
        let Ok(record) = serde_json::from_slice::<InvocationRecord>(&line) else { continue };
        let (Ok(offset), Ok(bytes)) = (u32::try_from(at), u32::try_from(count)) else { break };
        packed.clear();
        Entry::of(&record, offset, bytes).write(&mut packed);
        index.write_all(&packed)?;
        records += 1;
    }
    index.flush()?;
    index.get_ref().sync_data()?;
    lines.set_len(end)?;
    Ok(Indexed { records, end, is_clean: true })
}
