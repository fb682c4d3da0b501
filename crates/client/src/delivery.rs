//! Delivers the bytes of many files in order, reading ahead, in bounded memory.
//!
//! The planning side walks entries and chunks and joins neighbours into runs of one request each; the delivering side is
//! one blocking thread that takes finished runs in order and hands chunk after chunk to a sink. Between them are a
//! bounded channel and a budget of bytes, so the fastest network can't outrun the slowest disk.

use crate::progress::Progress;
use crate::reader::{RUN_BYTES_MAX, ReadError, Reader};
use crate::walk::LocatedEntry;
use seedbank_formats::ChunkId;
use seedbank_formats::path::TreePath;
use seedbank_formats::place::{ChunkRef, Place};
use seedbank_formats::segment::SEGMENT_ITEMS_MAX;
use seedbank_formats::tree::Entry;
use std::ops::Range;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// Plaintext that is read ahead: enough for a gigabit over 200 ms, and small beside what a training job has.
const AHEAD_BYTES_MAX: u64 = 48 * 1024 * 1024;

/// Runs read ahead, when they are short.
const AHEAD_RUNS_MAX: usize = 64;

/// What takes the bytes. Called from one thread, in the order of the tree.
pub(crate) trait Sink: Send + 'static {
    /// Why it can't go on.
    type Error: Send + 'static;

    /// A file begins; the sink has its first `have` bytes.
    fn begin(&mut self, path: &TreePath, entry: &Entry, have: u64) -> Result<(), Self::Error>;
    /// The file's next bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// The file is complete.
    fn end(&mut self) -> Result<(), Self::Error>;
}

/// Why a delivery stopped.
#[derive(Debug)]
pub(crate) enum DeliveryError<E> {
    Read(ReadError),
    Sink(E),
}

impl<E> From<ReadError> for DeliveryError<E> {
    fn from(error: ReadError) -> DeliveryError<E> {
        DeliveryError::Read(error)
    }
}

enum Step {
    Begin {
        path: TreePath,
        entry: Entry,
        have: u64,
    },
    /// The next plaintext of this run.
    Chunk,
    End,
}

struct Run {
    read: Option<JoinHandle<Result<Vec<Vec<u8>>, ReadError>>>,
    steps: Vec<Step>,
    _budget: Option<OwnedSemaphorePermit>,
}

/// The run that is being put together.
#[derive(Default)]
struct Open {
    first: Option<Place>,
    ids: Vec<ChunkId>,
    bytes: u64,
    steps: Vec<Step>,
}

impl Open {
    /// Whether a chunk at `place` may join.
    fn takes(&self, chunk: &ChunkRef, place: Place) -> bool {
        let Some(first) = self.first else { return true };
        let next = u32::try_from(self.ids.len()).ok().and_then(|count| first.index.checked_add(count));
        first.segment == place.segment
            && next == Some(place.index)
            && self.bytes + u64::from(chunk.len) <= RUN_BYTES_MAX
            && self.ids.len() < SEGMENT_ITEMS_MAX
    }
}

/// The planning side of a delivery.
pub(crate) struct Delivery<E> {
    reader: Arc<Reader>,
    open: Open,
    budget: Arc<Semaphore>,
    runs: mpsc::Sender<Run>,
    sink: JoinHandle<Result<(), DeliveryError<E>>>,
}

impl<E: Send + 'static> Delivery<E> {
    /// Starts the delivering thread.
    pub(crate) fn start<S: Sink<Error = E>>(
        reader: &Arc<Reader>,
        mut sink: S,
        progress: Arc<dyn Progress>,
    ) -> Delivery<E> {
        let (runs, mut incoming) = mpsc::channel::<Run>(AHEAD_RUNS_MAX);
        let runtime = Handle::current();
        let sink = tokio::task::spawn_blocking(move || {
            while let Some(run) = incoming.blocking_recv() {
                let plains = match run.read {
                    None => Vec::new(),
                    Some(read) => runtime.block_on(read).unwrap_or(Err(ReadError::Stopped))?,
                };
                let mut plains = plains.into_iter();
                for step in run.steps {
                    match step {
                        Step::Begin { path, entry, have } => sink.begin(&path, &entry, have),
                        Step::Chunk => {
                            let plain = plains.next().expect("a run has a plaintext for each of its chunks");
                            let result = sink.bytes(&plain);
                            progress.advance(0, plain.len() as u64);
                            result
                        }
                        Step::End => {
                            progress.advance(1, 0);
                            sink.end()
                        }
                    }
                    .map_err(DeliveryError::Sink)?;
                }
            }
            Ok(())
        });
        let budget = usize::try_from(AHEAD_BYTES_MAX / 1024).expect("a small number");
        let budget = Arc::new(Semaphore::new(budget));
        Delivery { reader: Arc::clone(reader), open: Open::default(), budget, runs, sink }
    }

    /// Delivers a file from byte `have` on, which is a chunk's start.
    pub(crate) async fn file(&mut self, located: &LocatedEntry, have: u64) -> Result<(), ReadError> {
        let (path, entry) = (located.path.clone(), located.entry.clone());
        self.open.steps.push(Step::Begin { path, entry, have });
        let mut chunks = located.chunks(&self.reader, have);
        while let Some((chunk, place)) = chunks.next().await? {
            self.chunk(chunk, place).await?;
        }
        self.open.steps.push(Step::End);
        // Empty files make steps without bytes: they too must not pile up.
        if self.open.steps.len() > SEGMENT_ITEMS_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    /// Delivers the chunks that cover `range` of a file, which is not empty and ends within it. The sink is told as
    /// `have` how many bytes of the first chunk come before the range.
    pub(crate) async fn range(&mut self, located: &LocatedEntry, range: Range<u64>) -> Result<(), ReadError> {
        let mut chunks = located.chunks(&self.reader, range.start);
        let mut left = range.end - range.start;
        let mut begun = false;
        while let Some((chunk, place)) = if left > 0 { chunks.next().await? } else { None } {
            let mut useful = u64::from(chunk.len);
            if !begun {
                begun = true;
                let (path, entry, have) = (located.path.clone(), located.entry.clone(), chunks.skip());
                self.open.steps.push(Step::Begin { path, entry, have });
                useful -= have;
            }
            left = left.saturating_sub(useful);
            self.chunk(chunk, place).await?;
        }
        self.open.steps.push(Step::End);
        Ok(())
    }

    /// Delivers one chunk of the file that was begun.
    async fn chunk(&mut self, chunk: ChunkRef, place: Place) -> Result<(), ReadError> {
        if !self.open.takes(&chunk, place) {
            self.flush().await?;
        }
        self.open.first.get_or_insert(place);
        self.open.ids.push(chunk.id);
        self.open.bytes += u64::from(chunk.len);
        self.open.steps.push(Step::Chunk);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ReadError> {
        let Open { first, ids, bytes, steps } = std::mem::take(&mut self.open);
        let (mut read, mut budget) = (None, None);
        if let Some(first) = first {
            let kib = u32::try_from(bytes.div_ceil(1024)).expect("a run has a few MiB").max(1);
            let permit = Arc::clone(&self.budget).acquire_many_owned(kib).await;
            budget = Some(permit.map_err(|_closed| ReadError::Stopped)?);
            let reader = Arc::clone(&self.reader);
            read = Some(tokio::spawn(async move { reader.chunks(first, &ids).await }));
        }
        let run = Run { read, steps, _budget: budget };
        // The delivering side ends early only with an error, which `finish` tells.
        self.runs.send(run).await.map_err(|_ended| ReadError::Stopped)
    }

    /// Waits until everything is delivered. `planned` is how the planning went: the delivering side's error explains it.
    pub(crate) async fn finish(mut self, planned: Result<(), ReadError>) -> Result<(), DeliveryError<E>> {
        let planned = match planned {
            Ok(()) => self.flush().await,
            Err(error) => Err(error),
        };
        let Delivery { runs, sink, .. } = self;
        drop(runs);
        let delivered = sink.await.unwrap_or(Err(DeliveryError::Read(ReadError::Stopped)));
        match (delivered, planned) {
            (Err(error), _) => Err(error),
            (Ok(()), Err(error)) => Err(DeliveryError::Read(error)),
            (Ok(()), Ok(())) => Ok(()),
        }
    }
}
