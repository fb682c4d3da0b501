//! One run: an immutable file of records sorted by id.
//!
//! `docs/catalog.md` draws it. Header, fences and filter are checked when it is opened and stay in memory (0.2 and 1.5
//! bytes an item); records are read a block at a time and each block is checked when it is read, so that opening a run
//! of gigabytes is quick and yet no damaged record is believed.

use super::filter::{BLOCK_BYTES as FILTER_BLOCK_BYTES, Filter};
use seedbank_formats::place::Place;
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 4] = b"SBIR";
const VERSION: u8 = 1;

/// Header and record blocks are a page each: a look-up reads one page.
const BLOCK_BYTES: usize = 4096;
const RECORD_BYTES: usize = 32 + 8 + 4;
const BLOCK_RECORDS: usize = BLOCK_BYTES / RECORD_BYTES;
const FENCE_BYTES: usize = 8 + 8;
const HASH_BYTES: usize = 32;
/// The header's fields, before its padding and its hash.
const HEADER_FIELDS: usize = 8 + 32 + 8 * 6 + HASH_BYTES;

/// A merge reads so many blocks at once.
const SCAN_BLOCKS: usize = 64;

/// The additions that a run holds: `first..=last`, counted from 0 in each index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

impl Span {
    pub(super) fn file_name(self) -> String {
        format!("{:016x}-{:016x}.run", self.first, self.last)
    }

    /// Reads a file's name; `None` for a file that is not a run.
    pub(super) fn parse(name: &str) -> Option<Span> {
        let (first, last) = name.strip_suffix(".run")?.split_once('-')?;
        let number = |digits: &str| {
            let canonical = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if canonical { u64::from_str_radix(digits, 16).ok() } else { None }
        };
        let span = Span { first: number(first)?, last: number(last)? };
        (span.first <= span.last).then_some(span)
    }

    pub(super) fn contains(self, other: Span) -> bool {
        self.first <= other.first && other.last <= self.last
    }
}

/// Why a run can't be used.
#[derive(Debug)]
pub(super) enum RunError {
    /// The disk failed, or the file is not there (any more).
    Disk(io::Error),
    /// It is not what was written.
    Damaged(&'static str),
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> RunError {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => RunError::Damaged("it is cut short"),
            _ => RunError::Disk(error),
        }
    }
}

/// Where a block's ids begin, and the first bytes of the block's hash.
#[derive(Debug, Clone, Copy)]
struct Fence {
    first: u64,
    hash: [u8; 8],
}

/// An open run. The file may vanish from its folder: an open one can be read for ever.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    pub(super) path: PathBuf,
    pub(super) span: Span,
    pub(super) count: u64,
    fences: Vec<Fence>,
    filter: Filter,
}

/// A block of records that matched its hash.
struct Block {
    bytes: Box<[u8; BLOCK_BYTES]>,
    records: usize,
}

impl Run {
    pub(super) fn open(path: &Path, dataset: &DatasetId, span: Span) -> Result<Run, RunError> {
        let file = File::open(path)?;
        let mut header = [0; BLOCK_BYTES];
        file.read_exact_at(&mut header, 0)?;
        let (fields, hash) = header.split_at(BLOCK_BYTES - HASH_BYTES);
        if &fields[..4] != MAGIC {
            return Err(RunError::Damaged("it is not an index run"));
        }
        if fields[4] != VERSION {
            return Err(RunError::Damaged("it has another version"));
        }
        if blake3::hash(fields) != *hash {
            return Err(RunError::Damaged("its header does not match its hash"));
        }
        let number = |index: usize| {
            let at = 40 + 8 * index;
            u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes were taken"))
        };
        if fields[8..40] != dataset.0 {
            return Err(RunError::Damaged("it is one of another dataset"));
        }
        if (number(0), number(1)) != (span.first, span.last) {
            return Err(RunError::Damaged("it has the name of another run"));
        }
        let (count, filter_blocks) = (number(2), number(5));
        let blocks = count.div_ceil(BLOCK_RECORDS as u64);
        let fences_at = blocks.checked_add(1).and_then(|blocks| blocks.checked_mul(BLOCK_BYTES as u64));
        let fences_len = blocks.checked_mul(FENCE_BYTES as u64);
        let filter_len = filter_blocks.checked_mul(FILTER_BLOCK_BYTES as u64);
        let (Some(fences_at), Some(fences_len), Some(filter_len)) = (fences_at, fences_len, filter_len)
        else {
            return Err(RunError::Damaged("its header counts too much"));
        };
        let tail_len = fences_len.saturating_add(filter_len);
        // The file's length bounds what is allocated.
        if fences_at.checked_add(tail_len) != Some(file.metadata()?.len()) {
            return Err(RunError::Damaged("it has not the length that its header says"));
        }
        let too_long = |_| RunError::Damaged("it is too long for this machine");
        let mut tail = vec![0; usize::try_from(tail_len).map_err(too_long)?];
        file.read_exact_at(&mut tail, fences_at)?;
        if *blake3::hash(&tail).as_bytes() != fields[HEADER_FIELDS - HASH_BYTES..HEADER_FIELDS] {
            return Err(RunError::Damaged("its fences or filter do not match their hash"));
        }
        let (fences, filter) = tail.split_at(usize::try_from(fences_len).map_err(too_long)?);
        let fence = |bytes: &[u8; FENCE_BYTES]| {
            let [first @ .., _, _, _, _, _, _, _, _] = *bytes;
            let [_, _, _, _, _, _, _, _, hash @ ..] = *bytes;
            Fence { first: u64::from_be_bytes(first), hash }
        };
        Ok(Run {
            file,
            path: path.to_owned(),
            span,
            count,
            fences: fences.as_chunks().0.iter().map(fence).collect(),
            filter: Filter::from_bytes(filter).ok_or(RunError::Damaged("it has no filter"))?,
        })
    }

    /// Where the item lies, if the run has it.
    pub(super) fn find(&self, id: &ChunkId) -> Result<Option<Place>, RunError> {
        if !self.filter.may_hold(id) {
            return Ok(None);
        }
        let prefix = prefix(id);
        // Ids may share their first bytes with a block's first id and lie in the block before it.
        let from = self.fences.partition_point(|fence| fence.first < prefix).saturating_sub(1);
        let to = self.fences.partition_point(|fence| fence.first <= prefix);
        for index in from..to {
            let mut bytes = Box::new([0; BLOCK_BYTES]);
            self.file.read_exact_at(&mut bytes[..], block_offset(index))?;
            if let Some(place) = self.checked(index, bytes)?.find(id) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn checked(&self, index: usize, bytes: Box<[u8; BLOCK_BYTES]>) -> Result<Block, RunError> {
        if blake3::hash(&bytes[..]).as_bytes()[..8] != self.fences[index].hash {
            return Err(RunError::Damaged("a block of it does not match its hash"));
        }
        let before = (index * BLOCK_RECORDS) as u64;
        let left = usize::try_from(self.count - before).unwrap_or(usize::MAX);
        Ok(Block { bytes, records: left.min(BLOCK_RECORDS) })
    }
}

impl Block {
    fn record(&self, index: usize) -> &[u8] {
        &self.bytes[index * RECORD_BYTES..(index + 1) * RECORD_BYTES]
    }

    fn item(&self, index: usize) -> (ChunkId, Place) {
        let (id, rest) = self.record(index).split_first_chunk().expect("a record starts with an id");
        let (segment, item) = rest.split_first_chunk().expect("a segment follows");
        let item = item.try_into().expect("four bytes are left");
        let segment = SegmentNumber(u64::from_le_bytes(*segment));
        (ChunkId(*id), Place { segment, index: u32::from_le_bytes(item) })
    }

    fn find(&self, id: &ChunkId) -> Option<Place> {
        let (mut low, mut high) = (0, self.records);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.record(middle)[..32].cmp(id.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(self.item(middle).1),
            }
        }
        None
    }
}

fn block_offset(index: usize) -> u64 {
    (index as u64 + 1) * BLOCK_BYTES as u64
}

fn prefix(id: &ChunkId) -> u64 {
    let (first, _) = id.0.split_first_chunk().expect("an id has more than eight bytes");
    u64::from_be_bytes(*first)
}

/// Reads all of a run in order.
pub(super) struct Scan<'a> {
    run: &'a Run,
    next_block: usize,
    blocks: std::collections::VecDeque<Block>,
    next_record: usize,
}

impl<'a> Scan<'a> {
    pub(super) fn new(run: &'a Run) -> Scan<'a> {
        Scan { run, next_block: 0, blocks: std::collections::VecDeque::new(), next_record: 0 }
    }

    pub(super) fn run(&self) -> &'a Run {
        self.run
    }

    pub(super) fn next(&mut self) -> Result<Option<(ChunkId, Place)>, RunError> {
        if self.blocks.is_empty() {
            self.read_ahead()?;
        }
        let Some(block) = self.blocks.front() else { return Ok(None) };
        let item = block.item(self.next_record);
        self.next_record += 1;
        if self.next_record == block.records {
            self.blocks.pop_front();
            self.next_record = 0;
        }
        Ok(Some(item))
    }

    fn read_ahead(&mut self) -> Result<(), RunError> {
        let count = (self.run.fences.len() - self.next_block).min(SCAN_BLOCKS);
        let mut bytes = vec![0; count * BLOCK_BYTES];
        self.run.file.read_exact_at(&mut bytes, block_offset(self.next_block))?;
        for block in bytes.as_chunks().0 {
            self.blocks.push_back(self.run.checked(self.next_block, Box::new(*block))?);
            self.next_block += 1;
        }
        Ok(())
    }
}

/// Writes a run. Until [`Writer::publish`] it is a temporary file.
pub(super) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    dataset: DatasetId,
    span: Span,
    block: Vec<u8>,
    fences: Vec<Fence>,
    filter: Filter,
    count: u64,
    last: Option<ChunkId>,
    segments: Option<(u64, u64)>,
}

impl Writer {
    /// Starts a run at `path` for at most about `capacity` items: more only make the filter less sharp.
    pub(super) fn create(path: PathBuf, dataset: DatasetId, span: Span, capacity: u64) -> io::Result<Writer> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut file = BufWriter::with_capacity(SCAN_BLOCKS * BLOCK_BYTES, file);
        file.write_all(&[0; BLOCK_BYTES])?;
        Ok(Writer {
            file,
            path,
            dataset,
            span,
            block: Vec::with_capacity(BLOCK_BYTES),
            fences: Vec::new(),
            filter: Filter::for_keys(capacity),
            count: 0,
            last: None,
            segments: None,
        })
    }

    /// Takes the next item, whose id is above the one before.
    pub(super) fn push(&mut self, id: &ChunkId, place: Place) -> io::Result<()> {
        assert!(self.last.is_none_or(|last| last < *id), "items come sorted and once");
        self.last = Some(*id);
        if self.block.is_empty() {
            self.fences.push(Fence { first: prefix(id), hash: [0; 8] });
        }
        self.filter.insert(id);
        self.block.extend_from_slice(id.as_bytes());
        self.block.extend_from_slice(&place.segment.0.to_le_bytes());
        self.block.extend_from_slice(&place.index.to_le_bytes());
        let (low, high) = self.segments.unwrap_or((place.segment.0, place.segment.0));
        self.segments = Some((low.min(place.segment.0), high.max(place.segment.0)));
        self.count += 1;
        if self.block.len() == BLOCK_RECORDS * RECORD_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        self.block.resize(BLOCK_BYTES, 0);
        let fence = self.fences.last_mut().expect("a block's first record made its fence");
        fence.hash.copy_from_slice(&blake3::hash(&self.block).as_bytes()[..8]);
        self.file.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Ends the file, without making it durable.
    pub(super) fn finish(mut self) -> io::Result<Run> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut tail = Vec::with_capacity(self.fences.len() * FENCE_BYTES);
        for fence in &self.fences {
            tail.extend_from_slice(&fence.first.to_be_bytes());
            tail.extend_from_slice(&fence.hash);
        }
        tail.extend_from_slice(&self.filter.to_bytes());
        self.file.write_all(&tail)?;

        let (segment_low, segment_high) = self.segments.unwrap_or((0, 0));
        let numbers = [
            self.span.first,
            self.span.last,
            self.count,
            segment_low,
            segment_high,
            self.filter.block_count() as u64,
        ];
        let mut header = Vec::with_capacity(BLOCK_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&[VERSION, 0, 0, 0]);
        header.extend_from_slice(self.dataset.as_bytes());
        numbers.iter().for_each(|number| header.extend_from_slice(&number.to_le_bytes()));
        header.extend_from_slice(blake3::hash(&tail).as_bytes());
        header.resize(BLOCK_BYTES - HASH_BYTES, 0);
        let hash = blake3::hash(&header);
        header.extend_from_slice(hash.as_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&header)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Run {
            file,
            path: self.path,
            span: self.span,
            count: self.count,
            fences: self.fences,
            filter: self.filter,
        })
    }

    /// Ends the file, makes it durable and gives it its name in `dir`.
    pub(super) fn publish(self, dir: &Path) -> io::Result<Run> {
        let mut run = self.finish()?;
        run.file.sync_all()?;
        let path = dir.join(run.span.file_name());
        std::fs::rename(&run.path, &path)?;
        File::open(dir)?.sync_all()?;
        run.path = path;
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK_RECORDS, Run, RunError, Scan, Span, Writer};
    use seedbank_formats::place::Place;
    use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
    use std::path::Path;

    const DATASET: DatasetId = DatasetId([7; 32]);
    const SPAN: Span = Span { first: 2, last: 5 };

    fn place(number: u64) -> Place {
        Place { segment: SegmentNumber(number), index: u32::try_from(number % 100).unwrap() }
    }

    fn write(dir: &Path, ids: &[ChunkId]) -> Run {
        let mut writer = Writer::create(dir.join("x.tmp"), DATASET, SPAN, ids.len() as u64).unwrap();
        for (id, number) in ids.iter().zip(0..) {
            writer.push(id, place(number)).unwrap();
        }
        writer.publish(dir).unwrap()
    }

    /// Ids of which many share their first eight bytes, so that they straddle blocks.
    fn crowded(count: usize) -> Vec<ChunkId> {
        let mut ids: Vec<ChunkId> = (0..count)
            .map(|number| {
                let mut id = *blake3::hash(&number.to_le_bytes()).as_bytes();
                id[..8].fill(u8::try_from(number % 3).unwrap());
                ChunkId(id)
            })
            .collect();
        ids.sort();
        ids
    }

    #[test]
    fn every_item_is_found_where_it_was_put_whatever_the_ids() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, BLOCK_RECORDS - 1, BLOCK_RECORDS, BLOCK_RECORDS + 1, 1000] {
            let ids = crowded(count);
            write(dir.path(), &ids);
            let run = Run::open(&dir.path().join(SPAN.file_name()), &DATASET, SPAN).unwrap();
            for (id, number) in ids.iter().zip(0..) {
                assert_eq!(run.find(id).unwrap(), Some(place(number)));
            }
            let mut absent = ids.first().copied().unwrap_or(ChunkId([0; 32]));
            absent.0[31] ^= 1;
            assert_eq!(run.find(&absent).unwrap(), None);
            let mut scan = Scan::new(&run);
            let mut scanned = Vec::new();
            while let Some((id, _)) = scan.next().unwrap() {
                scanned.push(id);
            }
            assert_eq!(scanned, ids);
        }
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed_before_a_record_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let ids = crowded(150);
        write(dir.path(), &ids);
        let path = dir.path().join(SPAN.file_name());
        let good = std::fs::read(&path).unwrap();
        let broken = || match Run::open(&path, &DATASET, SPAN) {
            Err(RunError::Damaged(_)) => true,
            Err(RunError::Disk(error)) => panic!("{error}"),
            Ok(run) => ids.iter().any(|id| matches!(run.find(id), Err(RunError::Damaged(_)))),
        };
        assert!(!broken());
        for at in (0..good.len()).step_by(61) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            assert!(broken(), "byte {at}");
        }
        for len in [0, 1, 4095, 4096, 8000, good.len() - 1] {
            std::fs::write(&path, &good[..len]).unwrap();
            assert!(broken(), "length {len}");
        }
        std::fs::write(&path, [&good[..], &[0]].concat()).unwrap();
        assert!(broken());
        std::fs::write(&path, &good).unwrap();
        assert!(Run::open(&path, &DatasetId([8; 32]), SPAN).is_err());
        assert!(Run::open(&path, &DATASET, Span { first: 0, last: 5 }).is_err());
    }

    #[test]
    fn file_names_say_the_span_and_nothing_else_is_a_run() {
        assert_eq!(Span::parse(&SPAN.file_name()), Some(SPAN));
        for other in ["x.tmp", "forgotten", "2-5.run", "0000000000000005-0000000000000002.run", "é.run"] {
            assert_eq!(Span::parse(other), None, "{other}");
        }
    }
}
