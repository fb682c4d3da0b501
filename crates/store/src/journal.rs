//! The append-only file that holds the index: what is not in it does not exist.
//!
//! Every sync of the journal appends exactly one *frame*, so after a crash at most the last frame is torn, whatever order
//! the disk wrote its pages in. That is the rule which tells a torn tail from rot: an unreadable frame with nothing
//! readable behind it is cut off, because nobody was told that it lasts; an unreadable frame before a readable one, or in
//! the part that was written as a whole, is [`JournalError::Corrupt`] and stops the store.
//!
//! When the file has grown to twice what the index needs, it is written anew beside itself and renamed over.

use crate::disk::{Disk, DiskFile, is_full};
use crate::entry::{self, Entry};
use crate::marker::{StoreId, truncated};
use seedbank_formats::DecodeError;
use seedbank_formats::codec::{Reader, Writer};
use std::io;
use std::sync::Arc;

/// The journal's path.
pub(crate) const JOURNAL: &str = "journal";
/// Where a new journal is written before it takes the old one's name.
pub(crate) const JOURNAL_NEW: &str = "journal.new";

/// Bytes of the file's header.
pub(crate) const FILE_HEADER_LEN: u64 = 4 + 1 + 32 + 8 + 8 + 8 + 16;
/// Bytes of a frame's header: longer than anything that a client chooses freely, so that nobody can place a forged
/// frame inside a real one.
pub(crate) const FRAME_HEADER_LEN: u64 = 4 + 4 + 8 + 32;
/// A frame's payload has at most this many bytes. It bounds the memory of a commit and how far a torn tail reaches.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;

const FILE_MAGIC: &[u8; 4] = b"SBSJ";
const FRAME_MAGIC: &[u8; 4] = b"SBSF";
const VERSION: u8 = 1;
const FORMAT: &str = "store journal";

/// Why a journal can't be read. None of these is repaired by guessing: restore the folder, or give up what it held.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is a marker, but no journal.
    #[error("the journal is missing")]
    Missing,
    /// It belongs to another store.
    #[error("the journal belongs to store {0}")]
    WrongStore(StoreId),
    /// Its header can't be read.
    #[error("the journal's header is damaged")]
    Header(#[source] DecodeError),
    /// A frame that was durable can't be read.
    #[error("the journal is damaged at byte {offset}")]
    Corrupt {
        /// Where the frame begins.
        offset: u64,
    },
    /// A frame is whole, but holds what this build does not know.
    #[error("the journal holds an unknown entry at byte {offset}")]
    Entry {
        /// Where the frame begins.
        offset: u64,
        /// What is unknown.
        #[source]
        source: DecodeError,
    },
    /// A frame is whole, but contradicts what came before.
    #[error("the journal contradicts itself at byte {offset}: {reason}")]
    Contradiction {
        /// Where the frame begins.
        offset: u64,
        /// How.
        reason: &'static str,
    },
    /// The disk failed.
    #[error("can't read the journal")]
    Disk(#[from] io::Error),
}

/// An open journal. One thread owns it.
pub(crate) struct Journal {
    store: StoreId,
    file: Arc<dyn DiskFile>,
    generation: u64,
    key: [u8; 32],
    /// The next frame's number. Numbers go on from one generation to the next.
    sequence: u64,
    /// Where the next frame goes.
    end: u64,
}

/// Why a new journal was not taken into use.
#[derive(Debug)]
pub(crate) enum RewriteError {
    /// The disk is full. The old one is untouched and good.
    Abandoned(io::Error),
    /// A sync or a name failed: nothing may be written any more.
    Unknown(io::Error),
}

fn frame_key(store: StoreId, generation: u64) -> [u8; 32] {
    let mut material = store.0.to_vec();
    material.extend_from_slice(&generation.to_le_bytes());
    blake3::derive_key("seedbank v1 store journal frame", &material)
}

/// A frame's checksum covers where it stands, so that it is good in one place of one generation only.
fn frame_checksum(key: &[u8; 32], offset: u64, sequence: u64, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&offset.to_le_bytes()).update(&sequence.to_le_bytes()).update(payload);
    *hasher.finalize().as_bytes()
}

fn encode_frame(key: &[u8; 32], offset: u64, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.raw(FRAME_MAGIC);
    writer.u32(u32::try_from(payload.len()).expect("a frame is far below 4 GiB"));
    writer.u64(sequence);
    writer.raw(&frame_checksum(key, offset, sequence, payload));
    writer.raw(payload);
    writer.finish()
}

struct FileHeader {
    store: StoreId,
    generation: u64,
    first_sequence: u64,
    /// Bytes of the part that was durable before the file got its name, this header among them.
    written_whole: u64,
}

impl FileHeader {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::format(FILE_MAGIC, VERSION);
        writer.raw(&self.store.0);
        writer.u64(self.generation);
        writer.u64(self.first_sequence);
        writer.u64(self.written_whole);
        let mut bytes = writer.finish();
        let checksum = truncated(&blake3::hash(&bytes));
        bytes.extend_from_slice(&checksum);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
        let (body, found) =
            bytes.split_last_chunk::<16>().ok_or(DecodeError::Truncated { format: FORMAT })?;
        let mut reader = Reader::format(FORMAT, FILE_MAGIC, VERSION, body)?;
        let header = FileHeader {
            store: StoreId(reader.array()?),
            generation: reader.u64()?,
            first_sequence: reader.u64()?,
            written_whole: reader.u64()?,
        };
        if truncated(&blake3::hash(body)) != *found {
            return Err(reader.invalid("the header's checksum does not match"));
        }
        reader.finish()?;
        Ok(header)
    }
}

/// A frame found in the file.
struct Frame {
    sequence: u64,
    payload: Vec<u8>,
}

/// Reads the frame at `offset`; `None` when there is none that passes its checksum.
fn read_frame(file: &dyn DiskFile, key: &[u8; 32], offset: u64, length: u64) -> io::Result<Option<Frame>> {
    if length - offset < FRAME_HEADER_LEN {
        return Ok(None);
    }
    let mut head = [0; 48];
    file.read_at(offset, &mut head)?;
    let mut reader = Reader::bare(FORMAT, &head);
    let fields = (|| {
        let magic = reader.array::<4>()?;
        Ok::<_, DecodeError>((magic, reader.u32()?, reader.u64()?, reader.array::<32>()?))
    })();
    let (magic, payload_len, sequence, checksum) = fields.expect("a frame's header has 48 bytes");
    let fits = u64::from(payload_len) <= length - offset - FRAME_HEADER_LEN;
    let Some(payload_len) = usize::try_from(payload_len).ok().filter(|len| *len <= FRAME_BYTES_MAX && fits)
    else {
        return Ok(None);
    };
    if magic != *FRAME_MAGIC {
        return Ok(None);
    }
    let mut payload = vec![0; payload_len];
    file.read_at(offset + FRAME_HEADER_LEN, &mut payload)?;
    let good = frame_checksum(key, offset, sequence, &payload) == checksum;
    Ok(good.then_some(Frame { sequence, payload }))
}

/// Whether a whole frame begins anywhere behind `offset`. The rest is short: a torn frame is the last one.
fn frame_behind(file: &dyn DiskFile, key: &[u8; 32], offset: u64, length: u64) -> io::Result<bool> {
    let mut rest = vec![0; usize::try_from(length - offset).expect("at most one frame is left")];
    file.read_at(offset, &mut rest)?;
    for (at, window) in rest.windows(FRAME_MAGIC.len()).enumerate().skip(1) {
        let at = u64::try_from(at).expect("usize has at most 64 bits");
        if window == FRAME_MAGIC && read_frame(file, key, offset + at, length)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Journal {
    /// Writes the journal of an empty store.
    pub(crate) fn create(disk: &dyn Disk, store: StoreId) -> io::Result<()> {
        if disk.list("")?.iter().any(|name| name == JOURNAL) {
            disk.remove(JOURNAL)?;
        }
        let file = disk.create(JOURNAL)?;
        let header =
            FileHeader { store, generation: 0, first_sequence: 0, written_whole: FILE_HEADER_LEN }.encode();
        file.write_at(0, &header)?;
        file.sync()?;
        disk.sync_dir("")
    }

    /// Reads a journal from its start and gives each entry to `apply`. A torn tail is cut off, and all that was read is
    /// durable when this returns.
    pub(crate) fn open(
        disk: &dyn Disk,
        store: StoreId,
        apply: &mut dyn FnMut(&Entry) -> Result<(), &'static str>,
    ) -> Result<Journal, JournalError> {
        let file = disk.open(JOURNAL).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => JournalError::Missing,
            _ => JournalError::Disk(error),
        })?;
        let length = file.length()?;
        let mut header = vec![0; usize::try_from(FILE_HEADER_LEN.min(length)).expect("a short header")];
        file.read_at(0, &mut header)?;
        let header = FileHeader::decode(&header).map_err(JournalError::Header)?;
        if header.store != store {
            return Err(JournalError::WrongStore(header.store));
        }
        if length < header.written_whole {
            return Err(JournalError::Corrupt { offset: length });
        }
        let key = frame_key(store, header.generation);
        let (mut end, mut sequence) = (FILE_HEADER_LEN, header.first_sequence);
        let mut last_appended = None;
        while end < length {
            let Some(frame) = read_frame(file.as_ref(), &key, end, length)? else {
                let longest = FRAME_HEADER_LEN + u64::try_from(FRAME_BYTES_MAX).expect("a small constant");
                let durable = end < header.written_whole
                    || length - end > longest
                    || frame_behind(file.as_ref(), &key, end, length)?;
                if durable {
                    return Err(JournalError::Corrupt { offset: end });
                }
                tracing::warn!(offset = end, bytes = length - end, "torn journal tail cut");
                file.truncate(end)?;
                break;
            };
            if frame.sequence != sequence {
                return Err(JournalError::Corrupt { offset: end });
            }
            let entries = entry::read_all(&frame.payload)
                .map_err(|source| JournalError::Entry { offset: end, source })?;
            for entry in &entries {
                apply(entry).map_err(|reason| JournalError::Contradiction { offset: end, reason })?;
            }
            if end >= header.written_whole {
                last_appended = Some((end, encode_frame(&key, end, sequence, &frame.payload)));
            }
            sequence += 1;
            end += FRAME_HEADER_LEN + u64::try_from(frame.payload.len()).expect("usize has at most 64 bits");
        }
        if let Some((offset, frame)) = last_appended {
            // The process before this may have died between writing and syncing it, or after a sync failed: then only
            // the kernel's memory has it, perhaps marked as written. Written again, the next sync must store it.
            file.write_at(offset, &frame)?;
        }
        file.sync()?;
        disk.sync_dir("")?;
        Ok(Journal { store, file, generation: header.generation, key, sequence, end })
    }

    /// Bytes of the file.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends one frame and makes it durable. After an error that [`crate::disk::is_full`] knows, the journal is as
    /// it was and the call may be repeated; after any other, nothing may be written any more.
    pub(crate) fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        assert!(payload.len() <= FRAME_BYTES_MAX, "a batch fits into one frame");
        let frame = encode_frame(&self.key, self.end, self.sequence, payload);
        if let Err(error) = self.file.write_at(self.end, &frame) {
            // What was written of it must go before another frame stands in its place.
            self.file.truncate(self.end).map_err(|_| io::Error::other("can't take back half a frame"))?;
            return Err(error);
        }
        self.file.sync().map_err(unsynced)?;
        self.end += u64::try_from(frame.len()).expect("usize has at most 64 bits");
        self.sequence += 1;
        Ok(())
    }

    /// Replaces the journal by one with these frames, durably.
    pub(crate) fn rewrite(&mut self, disk: &dyn Disk, payloads: &[Vec<u8>]) -> Result<(), RewriteError> {
        let next = self.write_beside(disk, payloads).map_err(|error| match is_full(&error) {
            true => RewriteError::Abandoned(error),
            false => RewriteError::Unknown(error),
        })?;
        disk.rename(JOURNAL_NEW, JOURNAL).map_err(RewriteError::Unknown)?;
        disk.sync_dir("").map_err(RewriteError::Unknown)?;
        *self = next;
        Ok(())
    }

    fn write_beside(&self, disk: &dyn Disk, payloads: &[Vec<u8>]) -> io::Result<Journal> {
        remove_unfinished(disk)?;
        let file = disk.create(JOURNAL_NEW)?;
        let generation = self.generation + 1;
        let key = frame_key(self.store, generation);
        let (mut end, mut sequence) = (FILE_HEADER_LEN, self.sequence);
        for payload in payloads {
            let frame = encode_frame(&key, end, sequence, payload);
            file.write_at(end, &frame)?;
            end += u64::try_from(frame.len()).expect("usize has at most 64 bits");
            sequence += 1;
        }
        let header =
            FileHeader { store: self.store, generation, first_sequence: self.sequence, written_whole: end };
        file.write_at(0, &header.encode())?;
        file.sync().map_err(unsynced)?;
        Ok(Journal { store: self.store, file, generation, key, sequence, end })
    }
}

/// A disk that is full only when it syncs has lost what it had accepted: that is no refusal that could be repeated.
fn unsynced(error: io::Error) -> io::Error {
    io::Error::other(format!("can't sync the journal: {error}"))
}

/// Removes what a rewrite left behind that did not come to its end.
pub(crate) fn remove_unfinished(disk: &dyn Disk) -> io::Result<()> {
    match disk.remove(JOURNAL_NEW) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{FILE_HEADER_LEN, JOURNAL, Journal, JournalError};
    use crate::disk::Disk;
    use crate::entry::Entry;
    use crate::marker::StoreId;
    use crate::testing::MemDisk;
    use seedbank_formats::FragmentId;
    use seedbank_formats::codec::Writer;

    const STORE: StoreId = StoreId([5; 32]);

    fn payload(tag: u8) -> Vec<u8> {
        let mut writer = Writer::default();
        Entry::Freed { id: FragmentId([tag; 32]) }.write(&mut writer);
        writer.finish()
    }

    /// The journal as it reads back: the tags of its entries.
    fn read(disk: &MemDisk) -> Result<(Journal, Vec<u8>), JournalError> {
        let mut tags = Vec::new();
        let journal = Journal::open(disk, STORE, &mut |entry| {
            if let Entry::Freed { id } = entry {
                tags.push(id.as_bytes()[0]);
            }
            Ok(())
        })?;
        Ok((journal, tags))
    }

    fn with_frames(count: u8) -> MemDisk {
        let disk = MemDisk::default();
        Journal::create(&disk, STORE).unwrap();
        let (mut journal, _) = read(&disk).unwrap();
        (0..count).for_each(|tag| journal.append(&payload(tag)).unwrap());
        disk
    }

    #[test]
    fn tail_cut_at_any_byte_leaves_the_frames_before() {
        let whole = with_frames(3).bytes(JOURNAL);
        let frame = (whole.len() - usize::try_from(FILE_HEADER_LEN).unwrap()) / 3;
        for lost in 1..frame {
            let disk = with_frames(3);
            disk.open(JOURNAL).unwrap().truncate((whole.len() - lost) as u64).unwrap();
            let (mut journal, tags) = read(&disk).unwrap();
            assert_eq!(tags, [0, 1], "{lost} bytes lost");
            journal.append(&payload(9)).unwrap();
            assert_eq!(read(&disk).unwrap().1, [0, 1, 9]);
        }
    }

    #[test]
    fn flipped_bit_before_the_last_frame_is_never_skipped() {
        let whole = with_frames(3).bytes(JOURNAL);
        let frame = (whole.len() - usize::try_from(FILE_HEADER_LEN).unwrap()) / 3;
        for at in 0..whole.len() - frame {
            let disk = with_frames(3);
            disk.flip_bit(JOURNAL, at, 3);
            assert!(read(&disk).is_err(), "byte {at}");
        }
    }

    #[test]
    fn flipped_bit_in_a_rewritten_journal_is_never_taken_for_a_torn_tail() {
        let disk = with_frames(3);
        let (mut journal, _) = read(&disk).unwrap();
        journal.rewrite(&disk, &[payload(7), payload(8)]).unwrap();
        assert_eq!(read(&disk).unwrap().1, [7, 8]);
        let last = disk.bytes(JOURNAL).len() - 1;
        disk.flip_bit(JOURNAL, last, 0);
        assert!(matches!(read(&disk), Err(JournalError::Corrupt { .. })));
    }

    #[test]
    fn rewritten_journal_goes_on() {
        let disk = with_frames(2);
        let (mut journal, _) = read(&disk).unwrap();
        journal.rewrite(&disk, &[payload(7)]).unwrap();
        journal.append(&payload(8)).unwrap();
        assert_eq!(read(&disk).unwrap().1, [7, 8]);
    }

    #[test]
    fn frames_of_another_place_or_store_are_refused() {
        let disk = with_frames(2);
        let other = |_: &Entry| Ok(());
        assert!(matches!(
            Journal::open(&disk, StoreId([6; 32]), &mut { other }),
            Err(JournalError::WrongStore(_))
        ));
        // The second frame's bytes over the first: right bytes, wrong place.
        let bytes = disk.bytes(JOURNAL);
        let start = usize::try_from(FILE_HEADER_LEN).unwrap();
        let frame = (bytes.len() - start) / 2;
        disk.open(JOURNAL).unwrap().write_at(FILE_HEADER_LEN, &bytes[start + frame..]).unwrap();
        assert!(matches!(read(&disk), Err(JournalError::Corrupt { .. })));
    }

    #[test]
    fn missing_journal_is_told() {
        assert!(matches!(read(&MemDisk::default()), Err(JournalError::Missing)));
    }
}
