//! Which items a dataset has already, and where: the writer's memory for deduplication.
//!
//! A folder of immutable sorted runs per dataset, of which the newest that knows an id is right. Every addition writes
//! a run (or merges with the newest ones, so that there are few); nothing is ever changed in place, so other processes
//! read while one writes. All of it can be made again from the segments' footers: damage is an error that asks for that,
//! never a wrong answer. What an index says is a hint all the same: the segment may be gone, which the books know.
//!
//! Ids are hashes of plaintext, so the files are for their owner only, and never leave the machine.

mod filter;
mod run;

use run::{Run, RunError, Scan, Span, Writer};
use rustix::fs::{FlockOperation, flock};
use seedbank_formats::codec::{DecodeError, Reader, Writer as Bytes};
use seedbank_formats::place::Place;
use seedbank_formats::{ChunkId, DatasetId, SegmentNumber};
use seedbank_store::make_folder;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// Held while the folder is changed.
const LOCK: &str = "lock";
/// The segments whose items are no more.
const FORGOTTEN: &str = "forgotten";
/// Whoever holds the lock may delete files that end like this: their writer died.
const TEMPORARY: &str = ".tmp";

/// From so many forgotten segments on, all runs are rewritten without their items: half a megabyte that every opener
/// would read.
const FORGOTTEN_MAX: usize = 65_536;

/// A reader may meet a merge between listing the folder and opening a file. Each merge takes a while, so a reader that
/// loses so often is not unlucky: a run is missing.
const LOAD_ATTEMPTS_MAX: u32 = 8;

/// A rebuild sorts so many items at a time in memory, 48 bytes each.
const REBUILD_ITEMS: usize = 1 << 20;

/// Why the index can't answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Call [`Index::rebuild`] with the items of all segments' footers.
    #[error("the index is damaged: {}: {reason}", path.display())]
    Damaged {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Look at the folder and its disk.
    #[error("can't use the index: {}", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl IndexError {
    fn disk(path: &Path) -> impl FnOnce(io::Error) -> IndexError {
        let path = path.to_owned();
        move |source| IndexError::Disk { path, source }
    }

    fn run(path: &Path, error: RunError) -> IndexError {
        match error {
            RunError::Damaged(reason) => IndexError::Damaged { path: path.to_owned(), reason },
            RunError::Disk(source) => IndexError::Disk { path: path.to_owned(), source },
        }
    }
}

/// What one look at the folder found.
#[derive(Debug, Default)]
struct State {
    /// Newest first.
    runs: Vec<Arc<Run>>,
    forgotten: BTreeSet<SegmentNumber>,
}

/// A dataset's index. Shared by any number of threads, and by processes through the folder.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    dataset: DatasetId,
    state: RwLock<Arc<State>>,
}

impl Index {
    /// Opens the index of `dataset` in `dir`, which is made when it doesn't exist.
    ///
    /// # Errors
    /// [`IndexError::Damaged`] when a run is damaged or missing.
    pub fn open(dir: &Path, dataset: DatasetId) -> Result<Index, IndexError> {
        make_dir(dir)?;
        let state = load(dir, &dataset, &State::default())?;
        Ok(Index { dir: dir.to_owned(), dataset, state: RwLock::new(Arc::new(state)) })
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, state: State) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
    }

    /// Where an item lies, by the newest run that knows it; `None` when there is no such item.
    ///
    /// # Errors
    /// [`IndexError::Damaged`], [`IndexError::Disk`].
    pub fn lookup(&self, id: &ChunkId) -> Result<Option<Place>, IndexError> {
        let state = self.state();
        for run in &state.runs {
            match run.find(id).map_err(|error| IndexError::run(&run.path, error))? {
                Some(place) if !state.forgotten.contains(&place.segment) => return Ok(Some(place)),
                Some(_) | None => {}
            }
        }
        Ok(None)
    }

    /// How many items the runs hold, those that are held twice or forgotten included. 0 beside segments in the books
    /// means that the folder was lost: rebuild.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.state().runs.iter().map(|run| run.count).sum()
    }

    /// How many runs there are: at most about the binary logarithm of the items.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.state().runs.len()
    }

    /// Takes in what other processes have added and forgotten since.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn refresh(&self) -> Result<(), IndexError> {
        let state = load(&self.dir, &self.dataset, &self.state())?;
        self.replace(state);
        Ok(())
    }

    /// Adds items, durably when this returns. An id that is known already gets the new place; of an id that comes twice
    /// the last one counts. Waits while another process adds.
    ///
    /// # Errors
    /// [`IndexError::Damaged`], [`IndexError::Disk`]; none of the items is added then.
    pub fn add(&self, items: Vec<(ChunkId, Place)>) -> Result<(), IndexError> {
        if items.is_empty() {
            return Ok(());
        }
        let _lock = lock(&self.dir)?;
        let before = load(&self.dir, &self.dataset, &self.state())?;
        let items = sorted(items);
        let sizes: Vec<u64> =
            [items.len() as u64].into_iter().chain(before.runs.iter().map(|run| run.count)).collect();
        let merged = merge_depth(&sizes) - 1;
        let after = self.merge(before, items, merged)?;
        self.replace(after);
        Ok(())
    }

    /// Makes the items of these segments unknown, durably when this returns.
    ///
    /// # Errors
    /// [`IndexError::Damaged`], [`IndexError::Disk`]; none is forgotten then.
    pub fn forget_segments(
        &self,
        segments: impl IntoIterator<Item = SegmentNumber>,
    ) -> Result<(), IndexError> {
        let _lock = lock(&self.dir)?;
        let mut state = load(&self.dir, &self.dataset, &self.state())?;
        state.forgotten.extend(segments);
        write_forgotten(&self.dir, &self.dataset, &state.forgotten)?;
        if state.forgotten.len() > FORGOTTEN_MAX && !state.runs.is_empty() {
            let all = state.runs.len();
            state = self.merge(state, Vec::new(), all)?;
        }
        self.replace(state);
        Ok(())
    }

    /// Writes new items and the newest `depth` runs into one run that takes their place.
    fn merge(&self, before: State, items: Vec<(ChunkId, Place)>, depth: usize) -> Result<State, IndexError> {
        let next = before.runs.first().map_or(0, |run| run.span.last + 1);
        let (merged, kept) = before.runs.split_at(depth);
        let span = Span { first: merged.last().map_or(next, |run| run.span.first), last: next };
        let mut sources = vec![Source::Memory(items.into_iter())];
        sources.extend(merged.iter().map(|run| Source::Run(Scan::new(run))));
        let run = self.write(span, sources, &before.forgotten)?;
        let mut after = State { runs: vec![Arc::new(run)], forgotten: before.forgotten };
        after.runs.extend_from_slice(kept);
        if kept.is_empty() && !after.forgotten.is_empty() {
            // No record of theirs is left to be hidden.
            after.forgotten.clear();
            write_forgotten(&self.dir, &self.dataset, &after.forgotten)?;
        }
        delete_runs(merged);
        Ok(after)
    }

    /// Writes a run of everything in `sources`, newest source first.
    fn write(
        &self,
        span: Span,
        sources: Vec<Source<'_>>,
        forgotten: &BTreeSet<SegmentNumber>,
    ) -> Result<Run, IndexError> {
        let path = self.dir.join(span.file_name() + TEMPORARY);
        let capacity = sources.iter().map(Source::size).sum();
        let mut writer =
            Writer::create(path.clone(), self.dataset, span, capacity).map_err(IndexError::disk(&path))?;
        merge_sources(sources, forgotten, |id, place| {
            writer.push(&id, place).map_err(IndexError::disk(&path))
        })?;
        writer.publish(&self.dir).map_err(IndexError::disk(&path))
    }

    /// Makes the index anew from the items of all segments, in the order in which the segments were written; damaged
    /// runs are replaced, and what was forgotten is gone. Memory stays bounded, whatever the number of items.
    ///
    /// # Errors
    /// [`IndexError::Disk`]; the runs that were there stay then.
    pub fn rebuild(
        dir: &Path,
        dataset: DatasetId,
        items: impl IntoIterator<Item = (ChunkId, Place)>,
    ) -> Result<Index, IndexError> {
        make_dir(dir)?;
        let _lock = lock(dir)?;
        let old = spans(dir)?;
        // One run over everything that was: by its name alone it takes the place of all others.
        let last = old.iter().map(|span| span.last.saturating_add(1)).max().unwrap_or(0);
        let span = Span { first: 0, last };
        let index = Index { dir: dir.to_owned(), dataset, state: RwLock::default() };
        let nothing = BTreeSet::new();
        let (mut items, mut spilled) = (items.into_iter(), Vec::new());
        let newest = loop {
            let batch: Vec<_> = items.by_ref().take(REBUILD_ITEMS).collect();
            let is_last = batch.len() < REBUILD_ITEMS;
            let batch = sorted(batch);
            if is_last {
                break batch;
            }
            let path = dir.join(format!("{}{TEMPORARY}", spilled.len()));
            let spill = || {
                let mut writer = Writer::create(path.clone(), dataset, span, batch.len() as u64)?;
                batch.iter().try_for_each(|(id, place)| writer.push(id, *place))?;
                writer.finish()
            };
            spilled.push(spill().map_err(IndexError::disk(&path))?);
        };
        let mut sources = vec![Source::Memory(newest.into_iter())];
        sources.extend(spilled.iter().rev().map(|run| Source::Run(Scan::new(run))));
        let run = index.write(span, sources, &nothing)?;
        write_forgotten(dir, &dataset, &nothing)?;
        for path in old.iter().filter(|old| **old != span).map(|old| dir.join(old.file_name())) {
            delete(&path);
        }
        spilled.iter().for_each(|run| delete(&run.path));
        index.replace(State { runs: vec![Arc::new(run)], forgotten: nothing });
        Ok(index)
    }
}

/// How many of the newest runs become one, of runs with these sizes, newest first: all up to the oldest that is smaller
/// than what is newer than it. Afterwards each run is at least as large as all newer ones together, so there are at most
/// about log2 of the items, and an item is rewritten about as often.
fn merge_depth(sizes: &[u64]) -> usize {
    let (mut newer, mut depth) = (0u64, 1);
    for (index, size) in sizes.iter().enumerate() {
        if *size < newer {
            depth = index + 1;
        }
        newer = newer.saturating_add(*size);
    }
    depth
}

/// Sorts by id; of equal ids the last is kept.
fn sorted(mut items: Vec<(ChunkId, Place)>) -> Vec<(ChunkId, Place)> {
    items.reverse();
    items.sort_by_key(|(id, _)| *id);
    items.dedup_by_key(|(id, _)| *id);
    items
}

/// Sorted items, from memory or from a file.
enum Source<'a> {
    Memory(std::vec::IntoIter<(ChunkId, Place)>),
    Run(Scan<'a>),
}

impl Source<'_> {
    fn size(&self) -> u64 {
        match self {
            Source::Memory(items) => items.len() as u64,
            Source::Run(scan) => scan.run().count,
        }
    }

    fn next(&mut self) -> Result<Option<(ChunkId, Place)>, IndexError> {
        match self {
            Source::Memory(items) => Ok(items.next()),
            Source::Run(scan) => scan.next().map_err(|error| IndexError::run(&scan.run().path, error)),
        }
    }
}

/// Hands out all items by rising id, each once, from the newest source that has it in a segment that is not forgotten.
fn merge_sources(
    mut sources: Vec<Source<'_>>,
    forgotten: &BTreeSet<SegmentNumber>,
    mut take: impl FnMut(ChunkId, Place) -> Result<(), IndexError>,
) -> Result<(), IndexError> {
    let mut heads = BinaryHeap::with_capacity(sources.len());
    for (age, source) in sources.iter_mut().enumerate() {
        heads.extend(source.next()?.map(|(id, place)| Reverse((id, age, place))));
    }
    let mut last = None;
    while let Some(Reverse((id, age, place))) = heads.pop() {
        heads.extend(sources[age].next()?.map(|(id, place)| Reverse((id, age, place))));
        if last != Some(id) && !forgotten.contains(&place.segment) {
            take(id, place)?;
            last = Some(id);
        }
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<(), IndexError> {
    make_folder(dir).map_err(IndexError::disk(dir))
}

/// Waits until no other process changes the folder, and sweeps up after those that died while they did.
fn lock(dir: &Path) -> Result<File, IndexError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(IndexError::disk(&path))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| IndexError::disk(&path)(error.into()))?;
    for name in names(dir)?.iter().filter(|name| name.ends_with(TEMPORARY)) {
        delete(&dir.join(name));
    }
    Ok(file)
}

/// Deletes a file that nobody needs any more; if that fails it is ignored for ever.
fn delete(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "index file could not be deleted");
    }
}

fn delete_runs(runs: &[Arc<Run>]) {
    runs.iter().for_each(|run| delete(&run.path));
}

fn names(dir: &Path) -> Result<Vec<String>, IndexError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in dir.read_dir()? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    };
    list().map_err(IndexError::disk(dir))
}

/// The spans of all run files.
fn spans(dir: &Path) -> Result<Vec<Span>, IndexError> {
    Ok(names(dir)?.iter().filter_map(|name| Span::parse(name)).collect())
}

/// The runs that count, newest first: those that no other one contains. They must cover every addition from the first
/// on, else one is missing.
fn current(mut spans: Vec<Span>) -> Option<Vec<Span>> {
    let all = spans.clone();
    spans.retain(|span| !all.iter().any(|other| other != span && other.contains(*span)));
    spans.sort_unstable();
    let mut next = Some(0);
    for span in &spans {
        if next != Some(span.first) {
            return None;
        }
        next = span.last.checked_add(1);
    }
    spans.reverse();
    Some(spans)
}

/// Looks at the folder; runs that `known` has open are not opened again.
fn load(dir: &Path, dataset: &DatasetId, known: &State) -> Result<State, IndexError> {
    'again: for _ in 0..LOAD_ATTEMPTS_MAX {
        // Read before the runs: a merge of all runs empties it only after the merged run is there.
        let forgotten = read_forgotten(dir, dataset)?;
        let Some(current) = current(spans(dir)?) else { continue };
        let mut runs = Vec::with_capacity(current.len());
        for span in current {
            if let Some(open) = known.runs.iter().find(|run| run.span == span) {
                runs.push(Arc::clone(open));
                continue;
            }
            let path = dir.join(span.file_name());
            match Run::open(&path, dataset, span) {
                Ok(run) => runs.push(Arc::new(run)),
                Err(RunError::Disk(error)) if error.kind() == io::ErrorKind::NotFound => continue 'again,
                Err(error) => return Err(IndexError::run(&path, error)),
            }
        }
        return Ok(State { runs, forgotten });
    }
    Err(IndexError::Damaged { path: dir.to_owned(), reason: "a run is missing" })
}

const FORGOTTEN_FORMAT: &str = "list of forgotten segments";
const FORGOTTEN_MAGIC: &[u8; 4] = b"SBIF";
const FORGOTTEN_VERSION: u8 = 1;
const HASH_BYTES: usize = 32;

fn write_forgotten(
    dir: &Path,
    dataset: &DatasetId,
    forgotten: &BTreeSet<SegmentNumber>,
) -> Result<(), IndexError> {
    let (path, temporary) = (dir.join(FORGOTTEN), dir.join(format!("{FORGOTTEN}{TEMPORARY}")));
    let mut bytes = Bytes::format(FORGOTTEN_MAGIC, FORGOTTEN_VERSION);
    bytes.raw(dataset.as_bytes());
    bytes.len(forgotten.len());
    forgotten.iter().for_each(|segment| bytes.u64(segment.0));
    let bytes = bytes.finish();
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.write_all(blake3::hash(&bytes).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(IndexError::disk(&path))
}

fn read_forgotten(dir: &Path, dataset: &DatasetId) -> Result<BTreeSet<SegmentNumber>, IndexError> {
    let path = dir.join(FORGOTTEN);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(IndexError::disk(&path)(error)),
    };
    let damaged = |reason| IndexError::Damaged { path: path.clone(), reason };
    let (bytes, hash) = bytes.split_last_chunk::<HASH_BYTES>().ok_or_else(|| damaged("it is cut short"))?;
    if blake3::hash(bytes) != *hash {
        return Err(damaged("it does not match its hash"));
    }
    decode_forgotten(bytes, dataset)
        .map_err(|_| damaged("it is not a list of forgotten segments of this dataset"))
}

fn decode_forgotten(bytes: &[u8], dataset: &DatasetId) -> Result<BTreeSet<SegmentNumber>, DecodeError> {
    let mut reader = Reader::format(FORGOTTEN_FORMAT, FORGOTTEN_MAGIC, FORGOTTEN_VERSION, bytes)?;
    if reader.array()? != dataset.0 {
        return Err(reader.invalid("it is one of another dataset"));
    }
    let count = reader.count("segments", usize::MAX, 8)?;
    let mut segments = BTreeSet::new();
    for _ in 0..count {
        segments.insert(SegmentNumber(reader.u64()?));
    }
    match reader.remaining() {
        0 => Ok(segments),
        extra => Err(DecodeError::TrailingBytes { format: FORGOTTEN_FORMAT, extra }),
    }
}

/// Items of segments that a push has filled but not yet recorded: they are no help to anyone else, and gone with it.
#[derive(Debug, Default)]
pub struct Overlay {
    places: HashMap<ChunkId, Place>,
    segments: BTreeMap<SegmentNumber, Vec<ChunkId>>,
}

impl Overlay {
    /// Notes where an item will lie.
    pub fn insert(&mut self, id: ChunkId, place: Place) {
        self.places.insert(id, place);
        self.segments.entry(place.segment).or_default().push(id);
    }

    /// Where an item will lie.
    #[must_use]
    pub fn lookup(&self, id: &ChunkId) -> Option<Place> {
        self.places.get(id).copied()
    }

    /// Gives the items of a segment up, for [`Index::add`], when it is recorded.
    pub fn take(&mut self, segment: SegmentNumber) -> Vec<(ChunkId, Place)> {
        let ids = self.segments.remove(&segment).unwrap_or_default();
        let mut items = Vec::with_capacity(ids.len());
        for id in ids {
            // An id that has got another place since belongs to that place's segment.
            if self.places.get(&id).is_some_and(|place| place.segment == segment) {
                items.extend(self.places.remove(&id).map(|place| (id, place)));
            }
        }
        items
    }
}

#[cfg(test)]
mod tests;
